"""The server behind the real nginx, with the configuration that docs/deploy.md gives: path, name, streams, uploads."""

import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from tests.helpers.architecture import ROOT
from tests.helpers.servers import Server, free_port

NAME, TOKEN = "explorer.example.org", "correct-horse-battery"
MAIN = """\
{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; server_name {name}; {locations} }}
}}
"""


def nginx() -> str:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        message = "no nginx on this machine: `apt-get install nginx-light`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


@pytest.fixture(scope="module")
def proxy(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of nginx in front of `saevx serve --root-path /saevx`."""
    program, folder, port = nginx(), tmp_path_factory.mktemp("nginx"), free_port()
    options = ("--device", "cpu", "--root-path", "/saevx", "--allowed-host", NAME, "--token", TOKEN)
    with Server(made / "store", *options, log=folder / "log.txt") as server:
        locations = (ROOT / "docs/deploy/nginx.conf").read_text("utf-8")
        locations = locations.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{urlparse(server.url).port}")
        config = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(MAIN.format(user=user, folder=folder, port=port, name=NAME, locations=f"\n{locations}\n"))
        running = subprocess.Popen([program, "-c", str(config), "-e", str(folder / "error.log")])
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end and not (folder / "pid").exists():
                time.sleep(0.05)
            while time.monotonic() < end and ask(port, "/saevx/readyz").status != 200:
                time.sleep(0.2)
            yield port
        finally:
            running.terminate()
            running.wait(timeout=60)


def ask(port: int, path: str, body: bytes | None = None, **headers: str) -> HTTPResponse:
    """A request as a browser sends it to the site."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    whole = {"Host": NAME, "Authorization": f"Bearer {TOKEN}", **headers}
    connection.request("GET" if body is None else "POST", path, body, whole)
    return connection.getresponse()


def test_pages_links_and_files_stay_below_the_path(proxy: int) -> None:
    assert ask(proxy, "/saevx").getheader("location") == f"http://{NAME}:{proxy}/saevx/"
    page = ask(proxy, "/saevx/features", Accept="text/html").read().decode()
    links = set(re.findall(r'(?:href|src)="(/[^"]*)"', page))
    assert len(links) > 20 and all(link.startswith("/saevx/") for link in links), links
    for link in sorted(links)[:40]:
        assert ask(proxy, link.replace("&amp;", "&")).status == 200, link


def test_the_login_s_cookie_is_for_the_path(proxy: int) -> None:
    assert ask(proxy, "/saevx/features", Authorization="").status == 401
    reply = ask(proxy, f"/saevx/features?token={TOKEN}", Authorization="")
    assert (reply.status, reply.getheader("location")) == (303, "/saevx/features")
    cookie = str(reply.getheader("set-cookie"))
    assert "Path=/saevx" in cookie
    assert ask(proxy, "/saevx/features", Authorization="", Cookie=cookie.partition(";")[0]).status == 200


def test_another_site_is_refused_and_nobody_names_himself(proxy: int) -> None:
    assert ask(proxy, "/saevx/api/v1/steer", b"{}", Origin="https://evil.example").status == 403
    assert ask(proxy, "/saevx/features", Authorization="", **{"X-Forwarded-User": "root"}).status == 401
    own = ask(proxy, "/saevx/", **{"X-Request-ID": "mine"}).getheader("x-request-id")
    assert own is not None and re.fullmatch("[0-9a-f]{32}", own)


def test_words_of_steering_come_one_by_one(proxy: int) -> None:
    body = json.dumps({"prompt": "a dog", "max_tokens": 200, "temperature": 1.5, "seed": 1}).encode()
    reply = ask(proxy, "/saevx/api/v1/steer", body, **{"Content-Type": "application/json"})
    begin, times = time.monotonic(), []
    while line := reply.readline():
        if line.startswith(b"event: token"):
            times.append(time.monotonic() - begin)
    assert len(times) > 100, "the default and the steered text"
    assert times[-1] - times[0] > times[-1] / 4, "with a buffer all come at the end"


@pytest.mark.parametrize(("side", "status"), [(1200, 200), (2600, 413)])
def test_an_upload_of_some_megabytes_comes_through(proxy: int, side: int, status: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = file.getvalue()
    assert len(data) > 4_000_000
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = ask(proxy, "/saevx/api/v1/images", head + data + b"\r\n--x--\r\n", **kind)
    assert reply.status == status, reply.read()[:300]
