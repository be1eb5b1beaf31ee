"""A data set of hostile images and captions: each row is used or rejected with its reason, counted and listed."""

import json
import resource
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.data.images import open_image
from precompute.data.records import BadRow
from tests.helpers import tiny
from tests.helpers.hostile import captions
from tests.helpers.hostile.images import CASES, USED, ImageCase
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row a case; its id is the case's name."""
    folder = tmp_path_factory.mktemp("hostile-data")
    lines = []
    for case in CASES:
        (folder / case.name).write_bytes(case.make())
        lines.append(json.dumps({"file_name": case.name, "text": "a red dog", "id": case.name}))
    for i, caption in enumerate(captions.CASES):
        tiny.picture(i).save(folder / f"caption-{i}.png")
        lines.append(f'{{"file_name": "caption-{i}.png", "id": "{caption.name}", "text": "{caption.json}"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_image_is_read_or_refused_in_little_time_and_memory(case: ImageCase, data: Path) -> None:
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        image = open_image(data / case.name).image
    except BadRow as bad:
        assert case.must and case.must in bad.reason, bad.reason
    else:
        assert case.must == USED and image.mode == "RGB"
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "kilobytes"


def test_each_row_is_used_or_listed_with_its_reason(data: Path, tiny_files: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "store"
    done = saevx("precompute", data, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", out,
                 "--device", "cpu", "--ds", 10)  # fmt: skip
    assert done.status == 0, done.err
    must = {case.name: case.must for case in CASES} | {case.name: case.must for case in captions.CASES}
    with TestClient(create_app(Settings(stores=[out], live=False))) as client:
        page = client.get("/api/v1/rejected", params={"limit": 500}).json()
        by_id = {one["id"]: one["reason"] for one in page["items"]}
        n_bad = page["total"]
        samples = client.get("/api/v1/samples", params={"limit": 500}).json()
        used = {one["sample_id"] for one in samples["items"]}
        assert sum(kind["count"] for kind in page["kinds"]) == n_bad == len(page["items"])
        html = client.get("/rejected", headers={"Accept": "text/html"}).text
    # A line that is not valid Unicode gives no id.
    without_id = [one for one in page["items"] if one["id"] is None]
    nameless = {name for name, words in must.items() if words == "not valid Unicode"}
    assert len(without_id) == len(nameless) and all("not valid Unicode" in one["reason"] for one in without_id)
    assert used == {name for name, words in must.items() if not words}
    assert by_id.keys() - {None} == must.keys() - used - nameless
    assert {name: words for name, words in must.items() if name in by_id and words not in by_id[name]} == {}
    assert n_bad + len(used) == len(must) and html.count('data-testid="rejected-row"') == n_bad
    assert f"{n_bad} rows rejected" in done.err
