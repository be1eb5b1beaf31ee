"""Who has no token gets nothing, from no route; the token, its cookie, a bearer or the proxy's header open all."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route

from backend.app import API, PAGES, create_app
from backend.settings import Settings
from precompute.errors import SaevxError
from tests.helpers.in_process import saevx
from tests.helpers.servers import Server, over_http

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN = "correct-horse-battery"
PAGE = {"Accept": "text/html"}
WRONG = ("correct-horse-batterz", "", "correct-horse-battery-", "ﬀ", "\u2028", "a" * 5000)


def served(store_path: Path, **options: Any) -> FastAPI:
    return create_app(Settings(stores=[store_path], live=False, **options))


@pytest.fixture(scope="module")
def app(store_path: Path) -> FastAPI:
    return served(store_path, token=TOKEN)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, follow_redirects=False) as running:
        yield running


def addresses(app: FastAPI) -> list[tuple[str, str]]:
    """(method, address) of every route, and of a file below every mount."""
    routes = [("/api/v1", route) for module in API for route in module.router.routes]
    routes += [("", route) for module in PAGES for route in module.router.routes]
    routes += [("", route) for route in app.routes if isinstance(route, Route | Mount)]
    pairs = []
    for prefix, route in routes:
        assert isinstance(route, Route | Mount)
        path = prefix + re.sub(r"\{[^}]*\}", "1", route.path)
        methods = ["GET"] if isinstance(route, Mount) else sorted(route.methods or ())
        pairs += [(method, f"{path}/css/base.css" if isinstance(route, Mount) else path) for method in methods]
    return pairs


def test_no_route_is_open_but_the_health_check(app: FastAPI, client: TestClient) -> None:
    pairs = addresses(app)
    assert len(pairs) > 90 and {("GET", "/openapi.json"), ("GET", "/static/css/base.css")} <= {*pairs}
    others = [("GET", "/readyz"), ("GET", "/nothing"), ("POST", "/"), ("TRACE", "/"), ("GET", "/static/../x")]
    for method, path in [*pairs, *others]:
        reply = client.request(method, path)
        if path == "/healthz":
            assert reply.json() == {"status": "ok"}, "names of stores are not told"
        else:
            assert reply.status_code == 401 and "synthetic" not in reply.text, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"


def test_the_token_in_the_address_is_taken_once_and_leaves_it(client: TestClient) -> None:
    reply = client.get(f"/features?q=dog&token={TOKEN}&sort=id", headers=PAGE)
    assert (reply.status_code, reply.headers["location"]) == (303, "/features?q=dog&sort=id")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and TOKEN not in cookie
    assert client.get("/features", headers=PAGE).status_code == 200
    assert client.get("/api/v1/features").status_code == 200


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_token_opens_nothing(client: TestClient, wrong: str) -> None:
    reply = client.get("/", params={"token": wrong}, headers=PAGE)
    assert "set-cookie" not in reply.headers and reply.status_code in (303, 401)
    bearer = {b"Authorization": f"Bearer {wrong}".encode()}
    assert client.get("/api/v1/features", headers=bearer).status_code == 401
    assert client.get("/", headers={b"Cookie": f"saevx_login={wrong}".encode()}).status_code == 401
    reply = client.post("/login", data={"token": wrong, "next": "/features"}, headers=PAGE)
    assert reply.status_code in (401, 413) and "set-cookie" not in reply.headers


def test_a_program_sends_the_token_with_each_request(client: TestClient) -> None:
    reply = client.get("/api/v1/features", headers={"Authorization": f"Bearer {TOKEN}"})
    assert reply.status_code == 200 and "set-cookie" not in reply.headers
    reply = client.get("/api/v1/features", headers={"Authorization": f"Basic {TOKEN}"})
    assert reply.status_code == 401 and "Authorization: Bearer TOKEN" in reply.json()["detail"]


def test_another_token_ends_old_cookies(store_path: Path, client: TestClient) -> None:
    client.get(f"/?token={TOKEN}")
    cookie = client.cookies["saevx_login"]
    with TestClient(served(store_path, token="another-token"), cookies={"saevx_login": cookie}) as later:
        assert later.get("/api/v1/features").status_code == 401


@pytest.mark.parametrize("address", ["//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil", ""])
def test_logging_in_leads_to_no_other_site(client: TestClient, address: str) -> None:
    reply = client.post("/login", data={"token": TOKEN, "next": address})
    assert reply.status_code == 303 and re.match(r"/(?![/\\])|/$", reply.headers["location"])


def test_a_proxy_that_logs_in_is_trusted_where_it_is_named(store_path: Path) -> None:
    user = {"X-Forwarded-User": "kim"}
    with TestClient(served(store_path, trust_proxy_auth="X-Forwarded-User")) as trusting:
        assert trusting.get("/api/v1/features", headers=user).status_code == 200
        assert trusting.get("/api/v1/features").status_code == 401
        assert trusting.get("/api/v1/features", headers={"X-Forwarded-User": " "}).status_code == 401
        assert trusting.get("/?token=").status_code == 401 and "set-cookie" not in trusting.get("/?token=").headers
    with TestClient(served(store_path, token=TOKEN)) as other:
        assert other.get("/api/v1/features", headers=user).status_code == 401


def test_the_token_comes_from_a_file(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with TestClient(served(store_path, token_file=file)) as client:
        assert client.get("/api/v1/features", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/api/v1/features").status_code == 401
    for text in ("short", "two\nlines of it", ""):
        file.write_text(text)
        with pytest.raises(SaevxError, match="holds no token: give 8 to 200 characters"):
            served(store_path, token_file=file)
    with pytest.raises(SaevxError, match=r"cannot be read .*: give a text file"):
        served(store_path, token_file=tmp_path)
    with pytest.raises(SaevxError, match="holds no token"):
        served(store_path, token_file=Path("/dev/zero"))


def test_a_short_token_is_refused_and_never_shown(store_path: Path) -> None:
    result = saevx("serve", store_path, "--token", "secret")
    assert result.status == 1 and "--token holds no token: give 8 to" in result.err and "secret" not in result.err


def test_others_need_the_token_that_is_printed(store_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with Server(store_path, "--no-live", "--host", "0.0.0.0", log=log):
        printed = re.search(r"Open (http://\S+)/\?token=(\S+)", log.read_text())
        assert printed and len(printed[2]) >= 32
    with Server(store_path, "--no-live", log=log):
        assert "token" not in log.read_text()


def test_a_browser_asks_once(app: FastAPI, browser: Browser) -> None:
    with over_http(app, lifespan="off") as url, browser.new_context(base_url=url) as context:
        page = context.new_page()
        page.goto("/features?q=dog")
        assert page.evaluate("getComputedStyle(document.body).display") == "grid", "its style passes its own policy"
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_test_id("feature-row").first.wait_for()
        assert page.url == f"{url}/features?q=dog"


def test_the_page_that_asks_allows_its_own_style_alone(client: TestClient) -> None:
    reply = client.get("/x?a=%22%3E%3Cscript%3E", headers=PAGE)
    style = re.search(r"<style>(.*?)</style>", reply.text, re.S)
    assert style and "<script" not in reply.text
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in reply.headers["content-security-policy"]
    assert 'name="next" value="/x?a=%22%3E%3Cscript%3E"' in reply.text
    again = client.get("/x", headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert 'http-equiv="refresh"' in again.text and 'http-equiv="refresh"' not in reply.text
