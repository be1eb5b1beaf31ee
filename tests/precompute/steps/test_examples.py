"""What is shown of a feature's strongest samples: each once, those that show the same folded and counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from precompute.scoring.near_duplicates import NEAR_LIMIT
from precompute.scoring.pixels import pixel_hashes
from precompute.steps import folding as examples
from precompute.steps.index import all_sample_vectors
from precompute.store import schema as s
from precompute.store.events import Events
from precompute.store.making import example_views
from precompute.store.making.unfinished import load_step
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, SHOWN, TEXT
from tests.helpers import tiny
from tests.helpers.tinies import Tiny, make_tiny_store
from tests.helpers.unfinished import Part

Array = np.ndarray


@pytest.fixture(scope="module")
def repeats(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Thirty pairs; one white image under eight captions, in two files; one caption under twelve images. Twice, in one
    shard and in many."""
    root = tmp_path_factory.mktemp("repeats")
    folder = tiny.make_data(root / "data", 30)
    lines = (folder / "metadata.jsonl").read_text()
    Image.new("RGB", (40, 40), "white").save(folder / "white.png")
    Image.new("RGB", (40, 40), "white").save(folder / "white.jpg")
    rows = [
        {"file_name": f"white.{'jpg' if i % 2 else 'png'}", "text": f"a {tiny.WORDS[2 + i]} cup", "id": f"white-{i}"}
        for i in range(8)
    ]
    for i in range(12):
        tiny.picture(100 + i).save(folder / f"again-{i}.png")
        rows.append({"file_name": f"again-{i}.png", "text": "two red balls on the left", "id": f"again-{i}"})
    (folder / "metadata.jsonl").write_text(lines + "".join(json.dumps(row) + "\n" for row in rows))

    def made(name: str, shard_samples: int) -> Path:
        run_options = {
            "ds": 10,
            "batch_tokens": 150,
            "shard_samples": shard_samples,
            "name": "repeats",
            "sinks": "keep",
        }
        return make_tiny_store(tiny_files.root, data=str(folder), out=root / name / "store", **run_options)

    return made("few", 1000), made("many", 4)


def test_no_image_and_no_caption_fills_a_list(repeats: tuple[Path, Path]) -> None:
    store, _ = (Store.open(path) for path in repeats)
    n_white = n_again = 0
    for feature in range(store.n_features):
        for modality in s.MODALITIES:
            ids = [str(one["sample_id"]) for one in store.examples.of(feature, modality=modality)]
            assert len(set(ids)) == len(ids)
        seen = [one for one in store.examples.of(feature, modality="image") if one["sample_id"].startswith("white")]
        assert len(seen) <= 1
        n_white = max([n_white, *(1 + one["n_same"] for one in seen)])
        text = [one for one in store.examples.of(feature, modality="text") if one["sample_id"].startswith("again")]
        assert len({one["position"] for one in text}) == len(text)
        n_again = max(n_again, sum(1 + one["n_same"] for one in text))
        # The white images' captions differ, and so do the images of the one caption.
        for name, modality in (("white", "text"), ("again", "image")):
            ones = [one for one in store.examples.of(feature, modality=modality) if one["sample_id"].startswith(name)]
            assert all(one["n_same"] == 0 for one in ones)
    assert n_white == 8 and n_again == 12


def test_examples_do_not_depend_on_how_the_run_was_cut(repeats: tuple[Path, Path]) -> None:
    few, many = ((path / "store.sqlite").read_bytes() for path in repeats)
    assert few == many


def plain_likeness(part: Part) -> Callable[[int, tuple[int, int], tuple[int, int]], bool]:
    """Whether two examples (row, position) show the same, in a few plain lines."""
    data = part.data
    vectors = all_sample_vectors(data, load_step(part.path, "weigh"), IMAGE).astype(np.float64)
    hashes = pixel_hashes([part.path / record["images"][0]["thumb"] for record in data.samples])

    def window(row: int, position: int) -> tuple[list[int], int]:
        sample = data.events.tokens(row)
        text = np.flatnonzero(sample.modality_t == TEXT).tolist()
        at = text.index(position)
        return sample.token_id_t[text[max(0, at - 12) : at + 13]].tolist(), min(at, 12)

    def alike(m: int, a: tuple[int, int], b: tuple[int, int]) -> bool:
        one, other = data.samples[a[0]], data.samples[b[0]]
        differing = int((hashes[a[0]] != hashes[b[0]]).sum())
        near = min(float(vectors[a[0]] @ vectors[b[0]]), 1 - differing / 32) > NEAR_LIMIT
        if m == TEXT:
            return window(*a) == window(*b) or (near and one["text"] == other["text"])
        return near or one["images"][0]["sha256"] == other["images"][0]["sha256"]

    return alike


def test_lists_are_folded_as_a_few_plain_lines_would(part: Part) -> None:
    accum, shown, alike = part.data.accum, part.data.examples, plain_likeness(part)
    n_folded = {"top": [0, 0], "band": [0, 0]}
    for name, most in (("top", SHOWN), ("band", 8)):
        rows, positions = accum[f"{name}_row"], accum[f"{name}_position"]
        for at in np.ndindex(rows.shape[:-1]):
            heads: list[list[int]] = []
            for i in np.flatnonzero(rows[at] >= 0).tolist():
                place = (int(rows[at][i]), int(positions[at][i]))
                first = next((h for h in heads if alike(at[1], (rows[at][h[0]], positions[at][h[0]]), place)), None)
                if first is None:
                    heads.append([i])
                else:
                    first.append(i)
                    n_folded[name][at[1]] += 1
            remaining = [head[0] for head in heads[:most]]
            assert (shown[f"{name}_row"][at] >= 0).sum() == len(remaining)
            for field in ("row", "position", "value", "n_active"):
                listed = shown[f"{name}_{field}"][at][: len(remaining)]
                np.testing.assert_array_equal(listed, accum[f"{name}_{field}"][at][remaining], err_msg=field)
            assert shown[f"{name}_n_same"][at].tolist()[: len(remaining)] == [len(head) - 1 for head in heads[:most]]
    assert min(min(pair) for pair in n_folded.values()) > 0  # some of each kind


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 1000), st.floats(0, 0.6))
def test_each_is_folded_under_the_first_it_is_like(n: int, width: int, seed: int, share: float) -> None:
    """Never under one that is folded itself: likeness need not go on from one to the next."""
    rng = np.random.default_rng(seed)
    alike = rng.random((n, width, width)) < share
    valid = np.arange(width) < rng.integers(0, width + 1, (n, 1))
    head, n_same = examples.unfolded_entries(alike & valid[:, None] & valid[:, :, None], valid)
    for i in range(n):
        under: dict[int, int] = {}
        for at in np.flatnonzero(valid[i]).tolist():
            first = next((h for h in under if alike[i, h, at]), None)
            if first is None:
                under[at] = 0
            else:
                under[first] += 1
        assert np.flatnonzero(head[i]).tolist() == list(under)
        assert n_same[i][head[i]].tolist() == list(under.values())


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Token lists of three samples: two pictures of 2 and 4 patches with a sink among them, then text of another
    length; the same text after one picture; and a long text."""
    kinds: list[list[int]] = [[2, 1, 1, 1, 3, 1, 1, 0, 0, 0], [2, 1, 1, 0, 0, 0], [2, *[0] * 40]]
    ids: list[list[int]] = [[1, 9, 9, 9, 9, 9, 9, 5, 6, 7], [1, 9, 9, 5, 6, 7], [1, *[5, 6, 7, 8] * 10]]
    np.save(tmp_path / "sample_token.npy", np.cumsum([0, *map(len, kinds)]))
    np.save(tmp_path / "token_modality.npy", np.concatenate(kinds).astype(np.uint8))
    np.save(tmp_path / "token_id.npy", np.concatenate(ids).astype(np.int32))
    return Events(tmp_path, 0)


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_a_window_is_its_text_wherever_it_stands(events: Events, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_views, "TOKENS_AT_ONCE", at_once)
    places = [(1, 4), (0, 8), (0, 7), (2, 2), (2, 14), (2, 18), (2, 22), (2, 39), (0, 8)]
    result = example_views.windows(events, *map(np.array, zip(*places, strict=True))).tolist()
    same = [[i for i, key in enumerate(result) if key == one] for one in dict.fromkeys(result)]
    # In the long text, only those windows are equal that neither end cuts short.
    assert same == [[0, 1, 8], [2], [3], [4, 5, 6], [7]]


def test_of_several_pictures_the_one_that_holds_the_patch_counts(events: Events) -> None:
    grids: list[list[Any]] = [[1, 2, [0, 0, 1, 1], 1], [2, 2, [0, 0, 1, 1], 0]]
    images = [("ab", json.dumps(grids)), ("b", json.dumps(grids[:1])), ("", "[]")]
    files = example_views.number_files(3, images)
    rows, positions = np.array([0, 0, 0, 0, 1, 0]), np.array([1, 2, 3, 6, 2, 5])
    result = example_views.image_files(events, files, rows, positions).tolist()
    a, b = files.first_n[:2].tolist()
    assert a != b and result == [b, b, a, a, b, a]
