"""A stored sample, scored live from its original file, has what the store says of it: scores, flags, flag scores,
reasons and strongest features, number by number and word by word.

The store ran each sample in a batch of its own, as a live pair is run: in larger batches the last digits differ. Two
things a pair alone cannot have: `random` is drawn from a sample's id, and `near-duplicate` compares with the whole set.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter

from backend.app import create_app
from backend.settings import Settings
from precompute.options.score import ScoreOptions
from precompute.scoring.new_data import score_data
from precompute.scoring.score_file import rows_of
from precompute.store.schema import FLAGS, flag_column, score_column
from tests.helpers import tiny
from tests.helpers.live_api import wait_ready
from tests.helpers.tinies import make_tiny_store

API = "/api/v1"
UNKNOWN_ALONE = ("random", "near-duplicate")


def faulty(i: int) -> tuple[Image.Image, str]:
    """A pair that some flags mark."""
    large = tiny.picture(90 + i, (200, 150))
    return [
        (Image.new("RGB", (200, 200), "grey"), "a red dog"),
        (Image.new("RGB", (90, 120), (5, 5, 5)), "the cat"),
        (large.filter(ImageFilter.GaussianBlur(9)), "a dog a dog a dog a dog"),
        (large, "…"),
        (tiny.picture(6, (40, 40)), "the red dog"),  # the image of pair 6
        (tiny.picture(7, (12, 300)), "a cat on a plain ground"),
    ][i]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, SAE, data with faults of every kind, and their store."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("stored-and-live")
    data = tiny.make_data(root / "data", 40)
    with (data / "metadata.jsonl").open("a") as file:
        for i in range(6):
            image, text = faulty(i)
            image.save(data / f"fault-{i}.png")
            file.write(json.dumps({"file_name": f"fault-{i}.png", "text": text, "id": f"fault-{i}"}) + "\n")
    tiny.make_sae(root / "sae", bias=-0.2)
    make_tiny_store(root, nll=True, batch_tokens=1)
    return root


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[folder / "store"], device="cpu"))) as running:
        wait_ready(running)
        yield running


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data" / "metadata.jsonl").read_text().splitlines()]


def test_every_stored_sample_scored_live_is_as_stored(
    client: TestClient, folder: Path, rows: list[dict[str, Any]]
) -> None:
    raised: set[str] = set()
    for row in rows:
        stored = client.get(f"{API}/samples/{row['id']}").json()
        image = (folder / "data" / row["file_name"]).read_bytes()
        reply = client.post(f"{API}/score", files={"image": ("image.png", image)}, data={"text": row["text"]})
        assert reply.status_code == 200, reply.text
        live = reply.json()
        for group in ("scores", "flag_scores"):
            expected = {name: None if name in UNKNOWN_ALONE else value for name, value in stored[group].items()}
            assert live[group] == expected, row["id"]
        assert live["flags"] == [flag for flag in stored["flags"] if flag["name"] != "near-duplicate"], row["id"]
        assert live["top_features"] == stored["top_features"], row["id"]
        raised |= {flag["name"] for flag in live["flags"]}
    assert raised >= {"blank", "dark", "blurred", "tiny", "empty-text", "repeated-text", "mismatch", "unsupported"}


def test_a_stored_pair_tried_as_ones_own_is_as_stored(
    client: TestClient, folder: Path, rows: list[dict[str, Any]]
) -> None:
    """Everything that its page shows: features and where they fire, scores, flags, reasons."""
    for row in [*rows[:3], *rows[-6:]]:
        stored = client.get(f"{API}/samples/{row['id']}").json()
        image = (folder / "data" / row["file_name"]).read_bytes()
        hash = client.post(f"{API}/images", files={"image": ("image.png", image)}).json()["hash"]
        own = {"image": hash, "text": row["text"]}
        tried = client.get(f"{API}/try", params=own)
        assert tried.status_code == 200, tried.text
        live = tried.json()
        same = (
            "text", "n_text", "n_image", "n_special", "n_sink", "views", "fvu_text", "fvu_image", "groups",
            "top_features",
        )  # fmt: skip
        assert {name: live[name] for name in same} == {name: stored[name] for name in same}, row["id"]
        expected = {name: None if name in UNKNOWN_ALONE else value for name, value in stored["scores"].items()}
        assert live["scores"] == expected
        assert live["flags"] == [flag for flag in stored["flags"] if flag["name"] != "near-duplicate"]
        assert [(one["width"], one["height"]) for one in live["images"]] == [
            (one["width"], one["height"]) for one in stored["images"]
        ]
        features = [one["id"] for side in stored["top_features"].values() for one in side[:2]]
        asks: list[tuple[str, dict[str, Any]]] = [
            ("activations", {"feature": features}),
            ("features", {"patch": "0,1,2"}),
            ("features", {"position": stored["n_special"]}),
            ("why", {"score": "pooled-cosine"}),
        ]
        for part, params in asks:
            of_stored = client.get(f"{API}/samples/{row['id']}/{part}", params=params).json()
            of_own = client.get(f"{API}/try/{part}", params={**own, **params}).json()
            for reply in (of_stored, of_own):
                reply.pop("next", None)  # names the list
            assert of_own == {k: v for k, v in of_stored.items() if k not in ("sample_id", "recomputed")}, part
        nearest = [one["sample_id"] for one in live["samples"] if one["modality"] == "image"]
        assert row["id"] in nearest[:3] or stored["groups"]["image_only"] + stored["groups"]["both"] == []


def test_a_side_alone_has_no_flags_of_the_other(client: TestClient, folder: Path) -> None:
    image = (folder / "data" / "003.png").read_bytes()
    hash = client.post(f"{API}/images", files={"image": ("image.png", image)}).json()["hash"]
    alone = client.get(f"{API}/try", params={"image": hash}).json()
    assert alone["n_text"] == 0 and alone["n_image"] == 16 and alone["reconstruction"]["fvu"] == alone["fvu_image"]
    assert not {"empty-text", "mismatch", "unsupported"} & {flag["name"] for flag in alone["flags"]}
    words = client.get(f"{API}/try", params={"text": "the red dog"}).json()
    assert words["images"] == [] and words["views"] == [] and words["n_image"] == 0 and words["n_text"] == 4
    tokens = client.get(f"{API}/try/activations", params={"text": "the red dog", "feature": 3}).json()["tokens"]
    assert tokens[words["unread"]]["text"] == "t" and words["reconstruction"] is None
    texts = [one["text"] for one in tokens if one["modality"] == "text"]
    assert texts == ["h", "e", " red", " dog"]
    for wrong, status in (({}, 422), ({"text": "  "}, 422), ({"image": "0" * 32}, 404)):
        assert client.get(f"{API}/try", params=wrong).status_code == status
    gone = client.get(f"{API}/try/features", params={"text": "the dog", "position": 9999})
    assert gone.status_code == 404 and "The pair has positions 0 to" in gone.json()["detail"]


def test_a_removed_image_takes_its_answers_along(client: TestClient, folder: Path) -> None:
    image = (folder / "data" / "004.png").read_bytes()
    hash = client.post(f"{API}/images", files={"image": ("image.png", image)}).json()["hash"]
    addresses = (f"{API}/try?image={hash}&text=dog", f"{API}/search/live?image={hash}", f"{API}/images/{hash}")
    assert [client.get(one).status_code for one in addresses] == [200] * 3
    assert client.delete(f"{API}/images/{hash}").json() == {"hash": hash}
    assert [client.get(one).status_code for one in addresses] == [404] * 3
    assert client.delete(f"{API}/images/{hash}").status_code == 404


def test_saevx_score_says_the_same(client: TestClient, folder: Path, rows: list[dict[str, Any]]) -> None:
    out = score_data(
        ScoreOptions(
            data=str(folder / "data"), store=folder / "store", out=folder / "scores.jsonl", nll=True, device="cpu"
        )
    )
    for row, wanted in zip(rows_of(out), rows, strict=True):
        stored = client.get(f"{API}/samples/{wanted['id']}").json()
        assert {name: row[score_column(name)] for name in stored["scores"]} == stored["scores"], wanted["id"]
        for name in FLAGS:
            if name != "near-duplicate":
                assert row[flag_column(name)] == stored["flag_scores"][name], (wanted["id"], name)
        assert row["flags"] == [f["name"] for f in stored["flags"] if f["name"] != "near-duplicate"]


def test_the_reason_of_a_blank_image_says_how_little_it_carries(client: TestClient) -> None:
    """Of a scale on which 1 is a rich image: never the flag's own score, which is the other way round."""
    stored = client.get(f"{API}/samples/fault-0").json()
    (reason,) = [flag["reason"]["text"] for flag in stored["flags"] if flag["name"] == "blank"]
    assert reason == f"The image carries almost no information ({1 - stored['flag_scores']['blank']:.2f} of 1)."
    assert stored["flag_scores"]["blank"] > 0.8
