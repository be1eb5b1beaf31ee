"""`--shuffle-images`: the control in which no caption belongs to its picture."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.settings import Settings
from precompute.data.batches import shuffle_images
from precompute.data.records import Row
from precompute.errors import SaevxError
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.tinies import Tiny

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def rows(*images: str) -> list[Row]:
    return [Row(i, f"s{i}", f"text {i}", (Path(name),) if name else (), {}, "") for i, name in enumerate(images)]


def test_every_image_moves_and_nothing_else() -> None:
    before = rows("a", "b", "", "c", "d", "", "e")
    after = shuffle_images(before, 0)
    for old, new in zip(before, after, strict=True):
        assert (old.sample_id, old.text) == (new.sample_id, new.text)
        assert bool(old.images) == bool(new.images) and (not old.images or old.images != new.images)
    assert sorted(row.images for row in before) == sorted(row.images for row in after)
    assert shuffle_images(before, 0) == after
    assert any(shuffle_images(before, seed) != after for seed in range(1, 9))


def test_one_image_cannot_move() -> None:
    with pytest.raises(SaevxError, match="give data with two pairs that have one"):
        shuffle_images(rows("a", ""), 0)


def coloured_pairs(folder: Path) -> dict[str, str]:
    """An imagefolder of pictures that are all but of one colour, which their caption names; the sha256 of each."""
    folder.mkdir()
    rng, own, rows = np.random.default_rng(3), {}, []
    for i in range(120):
        name, (word, colour) = f"{i:03d}.png", list(COLOURS.items())[rng.integers(len(COLOURS))]
        noise = tiny.picture(i)
        Image.blend(noise, Image.new("RGB", noise.size, colour), 0.9).save(folder / name)
        own[f"pair-{i}"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        rows.append(json.dumps({"file_name": name, "text": f"a {word}", "id": f"pair-{i}"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))
    return own


def test_a_control_store_says_so(tiny_files: Tiny, tmp_path: Path) -> None:
    """A whole store: other pictures under the same captions, where no feature may be called cross-modal."""
    made = {}
    own = coloured_pairs(tmp_path / "data")
    sae = tiny.make_sae(tmp_path / "sae", bias=-0.2)
    for name, shuffled in (("true", False), ("control", True)):
        options = PrecomputeOptions(
            data=str(tmp_path / "data"), model=str(tiny_files.model), sae=str(sae), out=tmp_path / name,
            batch_tokens=300, ds=40, device="cpu", shuffle_images=shuffled,
        )  # fmt: skip
        made[name] = precompute(options)
    stores = {name: Store.open(path) for name, path in made.items()}
    true, control = (
        {i["sample_id"]: i for i in stores[name].samples.list(limit=200).items} for name in ("true", "control")
    )
    for sample_id, sha in own.items():
        assert true[sample_id]["text"] == control[sample_id]["text"]
        assert true[sample_id]["images"][0]["sha256"] == sha != control[sample_id]["images"][0]["sha256"]
    assert sorted(i["images"][0]["sha256"] for i in control.values()) == sorted(own.values())
    counts = {name: store.detail["verdicts"]["cross-modal"] for name, store in stores.items()}
    assert counts["true"] > 0 == counts["control"]
    for name, path in made.items():
        assert json.loads((path / "manifest.json").read_text())["options"]["shuffle_images"] is (name == "control")
        with TestClient(create_app(Settings(stores=[path], live=False))) as client:
            page = client.get("/").text
        assert ("This store is a control" in page) is (name == "control")
        assert "keywords from each feature" in page and f"<dd>{counts[name]}</dd>" in page
    for store in stores.values():
        store.close()
