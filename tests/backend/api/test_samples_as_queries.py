"""A stored sample is searched with, and steered, as the image that the pass saw, never as its thumbnail."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from tests.helpers import families, tiny
from tests.helpers.live_api import API, events, upload, wait_ready

PAGE = {"accept": "text/html"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen that sees 5 × 25 patches in an image of 400 × 80, of which a thumbnail has 3 × 16; and its store."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("queries")
    images = families.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 16 * 256, "longest_edge": 400 * 256}
    )
    model = families.qwen2_5_vl(folder / "model", images)
    data = tiny.make_data(folder / "data", 30)
    tiny.picture(5, (400, 80)).save(data / "long.png")
    with (data / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": "long.png", "text": "a red dog", "id": "long"}) + "\n")
    for events_kept in ("all", "none"):
        precompute(PrecomputeOptions(
            data=str(data), model=str(model), sae=str(tiny.make_sae(folder / "sae")), out=folder / events_kept,
            name=events_kept, events=events_kept, device="cpu", sinks="keep", ds=10,
        ))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[root / "all", root / "none"], device="cpu"))) as running:
        wait_ready(running)
        yield running


def steered(client: TestClient, **query: Any) -> list[Any]:
    """Channel, text and log probability of every token."""
    reply = client.post(f"{API}/steer", json={"prompt": "a", "max_tokens": 3, **query})
    assert reply.status_code == 200, reply.text
    return [(one["channel"], one["text"], one["logprob"]) for name, one in events(reply) if name == "token"]


def test_steering_a_sample_is_steering_its_image(client: TestClient, root: Path) -> None:
    detail = client.get(f"{API}/samples/long").json()
    (view,) = detail["views"]
    assert (view["rows"], view["cols"]) == (5, 25)
    query = {
        "features": [{"id": detail["top_features"]["image"][0]["id"], "strength": 3}],
        "scope": ["image"],
        "mask": [[0, 4, 24]],
    }
    image = base64.b64encode((root / "data" / "long.png").read_bytes()).decode()
    assert steered(client, sample_id="long", **query) == steered(client, image=image, **query)


@pytest.mark.parametrize("store", ["all", "none"])
def test_searching_with_a_sample_is_searching_with_its_image(client: TestClient, root: Path, store: str) -> None:
    image = (root / "data" / "long.png").read_bytes()
    sent = client.post(f"{API}/search", params={"store": store}, files=upload(image)).json()
    stored = client.post(f"{API}/search", params={"store": store}, data={"sample_id": "long"}).json()
    ranking = [(hit["id"], pytest.approx(hit["score"], rel=5e-3)) for hit in sent["features"]]
    assert [(hit["id"], hit["score"]) for hit in stored["features"]] == ranking and ranking
    assert stored["features"][0]["grids"][0]["cols"] == 25
    assert "long" not in [one["sample_id"] for one in stored["samples"]]
    page = client.get("/search", params={"sample": "long", "store": store}, headers=PAGE).text
    page_ids = [int(id) for id in re.findall(r'data-testid="result-feature" data-feature="(\d+)"', page)]
    assert page_ids == [id for id, _ in ranking]
    names = [
        [(group["kind"], [one["features"][0]["id"] for one in group["families"]]) for group in reply["groups"]]
        for reply in (sent, stored)
    ]
    assert names[0] == names[1] and names[0]


def test_searching_with_a_sample_needs_no_model(root: Path) -> None:
    with TestClient(create_app(Settings(stores=[root / "all", root / "none"], live=False))) as client:
        for store, has_heat in (("all", True), ("none", False)):
            reply = client.post(f"{API}/search", params={"store": store}, data={"sample_id": "long"})
            assert reply.status_code == 200, reply.text
            assert bool(reply.json()["features"][0]["grids"]) == has_heat
            page = client.get("/search", params={"sample": "long", "store": store}, headers=PAGE)
            assert page.status_code == 200 and 'data-testid="result-feature"' in page.text
        with_words = client.post(f"{API}/search", data={"sample_id": "long", "text": "a dog"})
        assert with_words.status_code == 503


def test_words_beside_a_sample_are_read_with_its_image(client: TestClient, root: Path) -> None:
    image = (root / "data" / "long.png").read_bytes()
    sent = client.post(f"{API}/search", files=upload(image), data={"text": "a red dog"}).json()
    stored = client.post(f"{API}/search", data={"sample_id": "long", "text": "a red dog"}).json()
    assert stored == sent


def test_an_image_that_is_gone_or_changed_is_a_sentence(root: Path, tmp_path: Path) -> None:
    for name in ("model", "sae", "data", "all"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / "all" / "run.json").unlink()  # it would lead back to the first folder
    with TestClient(create_app(Settings(stores=[tmp_path / "all"], device="cpu"))) as client:
        wait_ready(client)
        assert steered(client, sample_id="long")
        tiny.picture(6, (400, 80)).save(tmp_path / "data" / "long.png")
        for _ in range(2):
            reply = client.post(f"{API}/steer", json={"sample_id": "long", "prompt": "a"})
            assert reply.status_code == 409, reply.text
            assert reply.json()["detail"].endswith("restore the data, or send the image itself.")
            (tmp_path / "data" / "long.png").unlink(missing_ok=True)
        assert client.post(f"{API}/search", data={"sample_id": "long"}).status_code == 200


@pytest.mark.parametrize("family", ["llava-next", "llava-onevision", "llava-onevision-thinned"])
def test_a_view_without_a_patch_breaks_no_page(tmp_path: Path, family: str) -> None:
    """A long thin image leaves these families a second view without a column or a row."""
    torch.set_num_threads(1)
    model = families.MULTIMODAL[family](tmp_path / "model")
    data = tiny.make_data(tmp_path / "data", 12)
    rows = []
    for name, size in {"tall": (10, 130), "wide": (130, 10), "199 to 1": (199, 1), "1 to 199": (1, 199)}.items():
        tiny.picture(5, size).save(data / f"{name}.png")
        rows.append(json.dumps({"file_name": f"{name}.png", "text": "a red dog", "id": name}))
    with (data / "metadata.jsonl").open("a") as file:
        file.write("\n".join(rows) + "\n")
    out = precompute(PrecomputeOptions(
        data=str(data), model=str(model), sae=str(tiny.make_sae(tmp_path / "sae")), out=tmp_path / "store",
        device="cpu", sinks="keep", ds=10,
    ))  # fmt: skip
    n_empty = 0
    with TestClient(create_app(Settings(stores=[out], device="cpu"))) as client:
        wait_ready(client)
        for name in ("tall", "wide", "199 to 1", "1 to 199"):
            detail = client.get(f"{API}/samples/{name}").json()
            n_empty += any(0 in (view["rows"], view["cols"]) for view in detail["views"])
            feature = detail["top_features"]["image"][0]["id"]
            page = client.get(f"/samples/{name}", params={"feature": feature}, headers=PAGE)
            assert page.status_code == 200
            begin = page.text.index('data-testid="heat"')
            assert "<path" in page.text[begin : page.text.index("</svg>", begin)], "the feature fires in the other view"
            buffer = io.BytesIO((data / f"{name}.png").read_bytes())
            assert client.post("/search", files={"image": ("it.png", buffer)}, headers=PAGE).status_code == 200
            assert client.get("/search", params={"sample": name}, headers=PAGE).status_code == 200
    assert n_empty
