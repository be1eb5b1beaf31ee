"""The map of samples: places against loops, what the draw and the others do, the file, and stores without one."""

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from precompute.errors import SaevxError
from precompute.migrate import migrate
from precompute.steps import sample_map
from precompute.steps.feature_map import layout, preserved_neighbours
from precompute.steps.index import flat_index, nearest
from precompute.store import mapfile
from precompute.store.making.sealing import content_id, seal
from precompute.store.making.verify import verify
from precompute.store.opening import read_manifest
from precompute.store.reader import Store
from precompute.utils.stats import unit
from tests.helpers import synthetic
from tests.helpers.demo import Demo

Array = NDArray[np.float64]


def grouped(n: int, groups: int = 6, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Vectors of 64 numbers in groups, float32, and the group of each."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    return unit(rng.standard_normal((groups, 64))[group] + 0.4 * rng.standard_normal((n, 64))).astype(np.float32), group


def sides_of(vectors: Array) -> list[Any]:
    """Two FAISS indexes, as a store has them of texts and of images."""
    half = vectors.shape[1] // 2
    return [flat_index(np.ascontiguousarray(part)) for part in (vectors[:, :half], vectors[:, half:])]


def test_a_small_map_lays_all_out(tmp_path: Path) -> None:
    vectors, group = grouped(400)
    vectors[[5, 77]] = 0  # nothing fires there
    summary = sample_map.write(tmp_path / "map", sides_of(vectors))
    stored = mapfile.read_sample_map(tmp_path / "map")
    assert {name: summary[name] for name in ("n", "laid_out", "k")} == {"n": 398, "laid_out": 398, "k": 10}
    assert np.flatnonzero(stored.x == mapfile.NOWHERE).tolist() == [5, 77] and not stored.source.any()
    placed = stored.x != mapfile.NOWHERE
    place = np.stack([stored.x, stored.y], 1)[placed].astype(float)
    apart = ((place[:, None] - place[None]) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    assert (group[placed][apart.argmin(1)] == group[placed]).mean() > 0.95
    near = np.argsort(-vectors[placed] @ vectors[placed].T, axis=1)[:, 1:11]
    on_map = np.argsort(apart, axis=1)[:, :10]
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near.tolist(), on_map.tolist(), strict=True)])
    assert summary["preserved_neighbours"] == pytest.approx(share, abs=0.02) and share > 0.2


def naive_centre(vector: Array, laid_out: Array, place: Array) -> int:
    """Of the ten most similar laid-out samples the one with the smallest sum of distances to the others."""
    near = np.argsort(-(laid_out @ vector), kind="stable")[:10].tolist()
    sums = [sum(float(np.hypot(*(place[a] - place[b]))) for b in near) for a in near]
    return int(near[sums.index(min(sums))])


def check_places_near(vectors: Array) -> None:
    """180 samples lie where a loop puts them, beside 150 that are scattered."""
    laid_out, rest = vectors[:150], vectors[150:330]
    place = np.random.default_rng(1).normal(size=(150, 2)) * [9, 3]
    rows = np.arange(150, 330)
    result = sample_map.places_near(rest, rows, laid_out, place)
    for vector, at in zip(rest, result, strict=True):
        centre = place[naive_centre(vector, laid_out, place)]
        others = np.hypot(*(place - centre).T)
        free = np.sort(others)[1]  # to the next laid-out one
        assert np.hypot(*(at - centre)) <= free / 2 + 1e-9
    assert len(np.unique(result.round(9), axis=0)) == len(result), "two lie on one point"


def test_the_others_lie_beside_the_most_central_of_their_nearest() -> None:
    check_places_near(grouped(330)[0])


def test_the_others_lie_beside_the_most_central_of_their_nearest_in_real_data(demo: Demo) -> None:
    store = Store.open(demo.store)
    check_places_near(unit(store.search.vectors_of(np.arange(330))))
    store.close()


def test_the_most_central_keeps_more_neighbours_than_the_mean_or_the_nearest(demo: Demo) -> None:
    store = Store.open(demo.store)
    vectors = unit(store.search.vectors_of(np.arange(store.n_samples)))
    store.close()
    drawn = sample_map.draw(np.arange(len(vectors)), len(vectors) // 2)
    rest = np.setdiff1d(np.arange(len(vectors)), drawn)
    laid_out = vectors[drawn]
    place = layout(laid_out, nearest(laid_out)[0])
    near = np.argsort(-vectors[rest] @ laid_out.T, axis=1, kind="stable")[:, :10]

    def share(at: Array) -> float:
        on_map = np.argsort(((at[:, None] - place[None]) ** 2).sum(2), axis=1)[:, :10]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near.tolist(), on_map.tolist(), strict=True)]))

    centre = share(sample_map.places_near(vectors[rest], rest, laid_out, place))
    assert centre > share(place[near].mean(axis=1)) and centre > share(place[near[:, 0]])


def test_groups_stay_together_where_few_are_laid_out(tmp_path: Path) -> None:
    vectors, group = grouped(900, seed=2)
    summary = sample_map.write(tmp_path / "map", sides_of(vectors), max_points=200)
    stored = mapfile.read_sample_map(tmp_path / "map")
    assert (summary["n"], summary["laid_out"], int(stored.source.sum())) == (900, 200, 700)
    place = np.stack([stored.x, stored.y], 1).astype(float)
    laid_out = stored.source == 0
    apart = ((place[~laid_out][:, None] - place[laid_out][None]) ** 2).sum(2)
    assert (group[laid_out][apart.argmin(1)] == group[~laid_out]).mean() > 0.95
    near = np.argsort(-vectors[laid_out] @ vectors[laid_out].T, axis=1)[:, 1:11]
    assert summary["preserved_neighbours"] == pytest.approx(preserved_neighbours(place[laid_out], near), abs=0.02)


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    vectors, _ = grouped(500, seed=3)
    for name in ("a", "b"):
        sample_map.write(tmp_path / name, sides_of(vectors), max_points=300)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size == 16 + 5 * 500


def test_the_draw_is_fixed_and_a_part_of_the_rows() -> None:
    rows = np.arange(0, 3000, 3)
    drawn = sample_map.draw(rows, 100)
    assert np.array_equal(drawn, sample_map.draw(rows, 100)) and len(set(drawn.tolist())) == 100
    assert set(drawn.tolist()) <= set(rows.tolist()) and (np.diff(drawn) > 0).all()
    assert sample_map.draw(rows, 1000) is rows


@pytest.mark.parametrize("n", [0, 1, 2, 3, 12])
@pytest.mark.parametrize("most", [1, 2, 20])
def test_any_number_of_samples_has_places(tmp_path: Path, n: int, most: int) -> None:
    vectors = np.zeros((0, 64), np.float32) if not n else grouped(n)[0]
    sides = [faiss.IndexFlatIP(32) for _ in range(2)] if not n else sides_of(vectors)
    summary = sample_map.write(tmp_path / "map", sides, max_points=most)
    stored = mapfile.read_sample_map(tmp_path / "map")
    assert len(stored.x) == n and (stored.x <= mapfile.LAST).all() and summary["laid_out"] == min(n, most)


def test_the_store_has_it_and_verify_looks_at_it(made_up: Store, tmp_path: Path) -> None:
    stored = made_up.sample_map
    assert len(stored.x) == made_up.n_samples and mapfile.SAMPLES_NAME in made_up.manifest["files"]
    assert made_up.manifest["sample_map"]["n"] == int((stored.x != mapfile.NOWHERE).sum()) > 0
    assert any("places of samples" in check.detail for check in verify(made_up.path) if check.name == "map")
    copy = Path(shutil.copytree(made_up.path, tmp_path / "copy"))
    for wrong in (stored._replace(source=1 - stored.source), mapfile.SampleMap(*(one[1:] for one in stored))):
        mapfile.write_map(copy / mapfile.SAMPLES_NAME, wrong)
        report = {check.name: check for check in verify(copy)}
        assert not report["map"].ok and "map of samples" in report["map"].detail


def without_sample_map(store: Path, out: Path) -> Path:
    """A copy as an older version would have made it."""
    copy = Path(shutil.copytree(store, out))
    (copy / mapfile.SAMPLES_NAME).unlink()
    manifest = read_manifest(store)
    del manifest["files"][mapfile.SAMPLES_NAME], manifest["sample_map"], manifest["sizes"], manifest["sealed"]
    manifest["content_id"] = content_id(manifest, manifest["files"])
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_an_older_store_opens_and_its_migrated_copy_has_the_same_map(made_up: Store, tmp_path: Path) -> None:
    old = without_sample_map(made_up.path, tmp_path / "old")
    assert all(check.ok for check in verify(old))
    opened = Store.open(old)
    with pytest.raises(SaevxError, match=r"no map of samples, .* run `saevx migrate STORE --out NEW`"):
        _ = opened.sample_map
    opened.close()
    message = migrate(old, tmp_path / "new")
    assert "map of samples added" in message
    new = Store.open(tmp_path / "new")
    for one, other in zip(new.sample_map, made_up.sample_map, strict=True):
        assert np.array_equal(one, other)
    assert new.manifest["sample_map"] == made_up.manifest["sample_map"]
    new.close()


def test_run_again_it_gives_the_same_file(tmp_path: Path) -> None:
    """As after a run that was killed: `--only sample-map` reads what `index` has left."""
    part = tmp_path / "store.part"
    manifest = synthetic.run_steps(part, *synthetic.write_part(part, 60, 0))
    first = (part / mapfile.SAMPLES_NAME).read_bytes()
    (part / mapfile.SAMPLES_NAME).write_bytes(b"half")
    assert sample_map.run(part, manifest, {}) == {"sample_map": manifest["sample_map"]}
    assert (part / mapfile.SAMPLES_NAME).read_bytes() == first
    assert seal(part, manifest)["files"][mapfile.SAMPLES_NAME]


@pytest.mark.parametrize("data", [b"", b"SXM2", b"SXM1\x02\0\0\0" + b"\0" * 18, b"SXM2\x02\0\0\0" + b"\0" * 9])
def test_a_broken_file_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sample_map.bin").write_bytes(data)
    with pytest.raises(SaevxError, match="no map of samples, or is cut off"):
        mapfile.read_sample_map(tmp_path / "sample_map.bin")


@pytest.mark.parametrize(("read", "command"), [(mapfile.read_map, "saevx"), (mapfile.read_sample_map, "saevx migrate")])
def test_a_map_that_is_absent_says_how_to_make_it(read: Any, command: str, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match=rf"{command} .*\.$"):
        read(tmp_path / "map.bin")
