"""Two servers on one PostgreSQL."""

import time
from pathlib import Path

import httpx

from tests.helpers.postgres import postgres
from tests.helpers.servers import Server

API = "/api/v1"


def test_a_label_typed_in_one_server_is_seen_in_the_other(store_path: Path, tmp_path: Path) -> None:
    options = (store_path, "--no-live", "--annotations")
    with (
        postgres() as url,
        Server(*options, url, log=tmp_path / "a.txt") as a,
        Server(*options, url, log=tmp_path / "b.txt") as b,
    ):
        for writer, reader, version in ((a, b, 0), (b, a, 1)):
            page = httpx.get(reader.url + "/features/3")
            label = f"written by server {version}"
            written = httpx.put(
                f"{writer.url}{API}/annotations/features/3", json={"label": label}, headers={"If-Match": str(version)}
            )
            assert written.status_code == 200, written.text
            assert label in httpx.get(writer.url + "/features/3").text, "at once where it was written"
            end = time.monotonic() + 60
            while label not in (seen := httpx.get(reader.url + "/features/3")).text:
                assert time.monotonic() < end, "within a second, on a machine with time"
                time.sleep(0.1)
            assert seen.headers["etag"] != page.headers["etag"]
            assert httpx.get(f"{reader.url}{API}/features/3").json()["own_label"] == label
        stale = httpx.put(f"{a.url}{API}/annotations/features/3", json={"label": "x"}, headers={"If-Match": "1"})
        assert stale.status_code in (409, 412), "the version of the other server counts"
