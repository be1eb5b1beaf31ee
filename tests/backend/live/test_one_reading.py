"""One image has one reading: whatever file a row has, the pass and a running server make the same of it."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import HTTPException

from backend.live.uploads import read_image
from backend.settings import Settings
from precompute.data.images import write_thumbnail
from precompute.errors import PairError
from precompute.live.engine import encode_pair
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import Pipeline
from precompute.sae.sae import SaeV
from precompute.scoring.pixels import pixel_flags
from precompute.store.making.unfinished import Collected
from tests.helpers import families, tiny
from tests.helpers.odd_images import FILES

TEXT = "a red dog"
ONE_OF_A_SIZE = (
    "turned-1.jpg", "turned-5.jpg", "rgba.png", "one-pixel.png", "wide.png", "tall.png", "wide-100-to-1.png",
    "tall-199-to-1.png", "strip-201-to-1.png", "strip-210-to-1.png", "cut.jpg",
)  # fmt: skip
"""How a file is read does not depend on the model, which gets an image of some size in RGB."""


def rows_of(names: Iterable[str], folder: Path) -> Path:
    """Odd files as a row each, with its name as the id."""
    rows = []
    for name in names:
        (folder / name).write_bytes(FILES[name]())
        rows.append({"file_name": name, "text": TEXT, "id": name})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every odd file."""
    return rows_of(FILES, tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows_of(ONE_OF_A_SIZE, tmp_path_factory.mktemp("sizes"))


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_sae(tmp_path_factory.mktemp("odd-sae"))


@pytest.mark.parametrize("family", families.MULTIMODAL)
def test_a_server_reads_a_file_as_the_pass_does(
    tmp_path: Path, data: Path, sizes: Path, sae: Path, family: str
) -> None:
    """Tokens, features, values and boxes bit for bit; and what the one refuses the other refuses."""
    names = set(FILES if family == "llava" else ONE_OF_A_SIZE)
    data = data if family == "llava" else sizes
    torch.set_num_threads(1)
    model = families.MULTIMODAL[family](tmp_path / "model")
    run = Pipeline(PrecomputeOptions(
        data=str(data), model=str(model), sae=str(sae), out=tmp_path / "store", device="cpu", batch_tokens=1,
        sinks="keep",
    ))  # fmt: skip
    manifest = run.collect()
    stored = Collected(run.part, manifest)
    reasons = {bad["sample_id"]: bad["reason"] for bad in stored.rejected_rows}
    row_of = {record["sample_id"]: row for row, record in enumerate(stored.samples)}
    assert len(row_of) > len(names) / 2 and {*reasons, *row_of} == names
    mllm, saev = Mllm.load(model, layer=tiny.LAYER, device="cpu"), SaeV.load(sae)
    for name in names:
        try:
            image = read_image((data / name).read_bytes(), Settings())
            live = encode_pair(mllm, saev, manifest, Pair(TEXT, [image]))
        except HTTPException as refused:
            assert refused.status_code == 422 and refused.detail.endswith("."), name
            assert refused.detail == f"The{reasons[name][3:]}: send another image."
            continue
        except PairError as refused:
            assert refused.reason == reasons[name]
            continue
        events = stored.events.of(row_of[name])
        np.testing.assert_array_equal(live.token_id_t, events.token_id_t, name)
        np.testing.assert_array_equal(live.modality_t, events.modality_t, name)
        np.testing.assert_array_equal(live.offset_t, events.offset_t, name)
        np.testing.assert_array_equal(live.feature_e, events.feature_e, name)
        np.testing.assert_array_equal(live.value_e.astype(np.float64) * stored.unit, events.z_e, name)
        views = [[view.rows, view.cols, list(view.box), view.image] for view in live.views]
        assert views == stored.samples[row_of[name]]["views"], name


def test_the_thumbnail_of_a_sent_image_is_the_stored_one(tmp_path: Path, data: Path, sae: Path) -> None:
    """Byte for byte, and with it the pixel flags, which rest on it; and so is the size that `tiny` rests on."""
    model = tiny.make_llava(tmp_path / "model")
    run = Pipeline(
        PrecomputeOptions(data=str(data), model=str(model), sae=str(sae), out=tmp_path / "store", device="cpu")
    )
    stored = Collected(run.part, run.collect())
    for record in stored.samples:
        (image,) = record["images"]
        sent = read_image((data / record["sample_id"]).read_bytes(), Settings())
        write_thumbnail(sent, tmp_path / "sent.webp")
        assert (tmp_path / "sent.webp").read_bytes() == (run.part / image["thumb"]).read_bytes(), record["sample_id"]
        assert sent.size == (image["width"], image["height"]), record["sample_id"]
    files = [run.part / record["images"][0]["thumb"] for record in stored.samples]
    for values in pixel_flags(files).values():
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("name", ["16-bit.png", "float.tiff", "rgba.png", "bilevel.png"])
def test_no_image_is_seen_black(name: str) -> None:
    level = np.asarray(read_image(FILES[name](), Settings()))
    assert level.max() > 200
