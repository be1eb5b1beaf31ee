"""The map of features: the layout against chance, what it says of itself against loops, and the file read back."""

import json
import shutil
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from precompute.errors import SaevxError
from precompute.steps import feature_map
from precompute.steps.feature_map import (
    MapLayout,
    exact_gradient,
    layout,
    layout_pool,
    neighbours_on_map,
    preserved_neighbours,
)
from precompute.steps.index import nearest
from precompute.store import mapfile
from precompute.store.making.sealing import content_id
from precompute.store.making.verify import verify
from precompute.store.opening import read_manifest
from precompute.store.reader import Store
from precompute.store.schema import VERDICTS
from precompute.utils.stats import unit

Array = NDArray[np.float64]


def clustered(n: int, d: int = 32, groups: int = 8, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """n unit vectors around the centres of so many groups, and the group of each."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    centre = rng.standard_normal((groups, d))
    return unit(centre[group] + 0.5 * rng.standard_normal((n, d))), group


def places(vectors: Array) -> Array:
    everyone = np.ones(len(vectors), dtype=bool)
    return layout(vectors, neighbours_on_map(vectors, nearest(vectors.astype(np.float32))[0], everyone))


def kept_neighbours(vectors: Array, place: Array, k: int = 10) -> float:
    """Share of each vector's k nearest that are among its k nearest on the map."""
    near = np.argsort(-vectors @ vectors.T, axis=1)[:, 1 : k + 1]
    apart = ((place[:, None] - place[None]) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    on_map = np.argsort(apart, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near.tolist(), on_map.tolist(), strict=True)]))


@pytest.mark.parametrize("k", [3, 10])
def test_the_share_of_preserved_neighbours_against_loops(k: int) -> None:
    rng = np.random.default_rng(2)
    other = np.array([rng.permutation(np.delete(np.arange(60), i))[:k] for i in range(60)])
    other[3, 1:] = -1
    place = rng.standard_normal((60, 2))
    place[7] = place[8]  # twins: each is the other's nearest, and none its own
    hits = []
    for i in range(60):
        apart = ((place - place[i]) ** 2).sum(1)
        apart[i] = np.inf
        near = set(np.argsort(apart)[:k].tolist())
        hits += [one in near for one in other[i].tolist() if one >= 0]
    assert preserved_neighbours(place, other) == pytest.approx(np.mean(hits), abs=1e-4)
    assert preserved_neighbours(place[:1], other[:1]) is None
    assert preserved_neighbours(place, np.full((60, k), -1)) is None


def test_it_tells_a_map_from_chance() -> None:
    vectors, _ = clustered(700)
    other = nearest(vectors.astype(np.float32))[0]
    place = places(vectors)
    assert preserved_neighbours(place, other) == pytest.approx(kept_neighbours(vectors, place), abs=0.01)
    assert preserved_neighbours(np.random.default_rng(0).standard_normal((700, 2)), other) < 0.05


@pytest.mark.parametrize("n", [100, 300, 2500])
def test_a_graph_without_structure_does_not_collapse(n: int) -> None:
    """Exaggerated attraction draws such a map into a point, on which the library would crash."""
    rng = np.random.default_rng(5)
    place = layout(unit(rng.standard_normal((n, 4))), rng.integers(0, n, (n, 10)))
    assert np.isfinite(place).all() and np.ptp(place) > 1
    star = np.full((n, 10), -1)
    star[:, 0] = 0
    assert np.isfinite(layout(np.ones((n, 4)) / 2, star)).all()


def test_neighbours_stay_together_and_groups_apart() -> None:
    vectors, group = clustered(700)
    place = places(vectors)
    assert np.isfinite(place).all()
    chance = 10 / 699
    assert kept_neighbours(vectors, place) > 15 * chance
    apart = ((place[:, None] - place[None]) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(1)] == group).mean() > 0.95


def test_the_exact_gradient_is_the_librarys_finest() -> None:
    from openTSNE.tsne import kl_divergence_bh
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    place, chosen = rng.standard_normal((80, 2)) * 5, rng.random((80, 80)) < 0.05
    attraction = csr_matrix((chosen + chosen.T) / (chosen + chosen.T).sum())
    _, expected = kl_divergence_bh(place, attraction, 1.0, {"theta": 0.0})
    np.testing.assert_allclose(exact_gradient(place, attraction)[1], expected, rtol=1e-9, atol=1e-15)


def test_neighbours_among_the_living() -> None:
    vectors, _ = clustered(120, seed=4)
    alive = np.random.default_rng(4).random(120) < 0.45
    other = nearest(vectors.astype(np.float32))[0]
    result = neighbours_on_map(vectors, other, alive)
    cosine = vectors[alive] @ vectors[alive].T
    np.fill_diagonal(cosine, -np.inf)
    exact = np.argsort(-cosine, axis=1)[:, : other.shape[1]]
    left = (alive[other] & (other >= 0))[alive].sum(1)
    assert (left < 5).any() and (left >= 5).any()
    for mine, all_of_them, n in zip(result.tolist(), exact.tolist(), left.tolist(), strict=True):
        remaining = [one for one in mine if one >= 0]
        assert remaining == all_of_them[: n if n >= 5 else len(all_of_them)]


def test_the_same_places_twice() -> None:
    vectors, _ = clustered(300, seed=3)
    assert np.array_equal(places(vectors), places(vectors.copy()))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 64])
@pytest.mark.parametrize("d", [1, 2, 8])
def test_any_number_of_features_has_places(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    for vectors in (unit(rng.standard_normal((n, d)) + 1e-3), np.ones((n, d)) / np.sqrt(d)):
        place = places(vectors)
        assert place.shape == (n, 2) and np.isfinite(place).all()
        small = mapfile.quantise_places(place)
        assert small.shape == (n, 2) and (n == 0 or small.max() <= mapfile.LAST)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=30))
def test_quantised_places_keep_their_shape(points: list[tuple[float, float]]) -> None:
    place = np.array(points, dtype=np.float64).reshape(-1, 2)
    small = mapfile.quantise_places(place).astype(np.float64)
    span = np.ptp(place, axis=0).max() if points else 0.0
    if span > 1e-9:
        shown = small / mapfile.LAST * span
        np.testing.assert_allclose(shown - shown[0], place - place[0], atol=2 * span / mapfile.LAST)
        assert np.ptp(small, axis=0).max() == mapfile.LAST


def omega_of(stored: np.ndarray) -> np.ndarray:
    """float64: ω of a column of the map, by the formula in docs/store.md."""
    return np.where(stored > 0, (stored.astype(np.float64) - 128) / 127, np.nan)


def density_of(stored: np.ndarray) -> np.ndarray:
    """float64: densities of a column of the map, by the formula in docs/store.md."""
    return np.where(stored > 0, 10 ** (6 * (stored.astype(np.float64) - 1) / 254 - 6), 0.0)


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(-1, 1)), min_size=1))
def test_omega_within_half_a_step(values: list[float]) -> None:
    omega = np.array(values)
    np.testing.assert_allclose(omega_of(mapfile.quantise_omega(omega)), omega, atol=0.5 / 127 + 1e-9)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1)), min_size=1))
def test_density_within_three_percent(values: list[float]) -> None:
    density = np.array(values)
    np.testing.assert_allclose(density_of(mapfile.quantise_density(density)), density, rtol=0.028)


def test_the_file_says_what_the_tables_say(made_up: Store) -> None:
    result = mapfile.read_map(made_up.path / mapfile.NAME)
    table = made_up.features.table
    verdict = [VERDICTS[v] for v in result.verdict]
    query = made_up.features.refs(range(made_up.n_features))
    assert verdict == [query[i]["verdict"] for i in range(made_up.n_features)]
    np.testing.assert_allclose(omega_of(result.omega), table["omega"], atol=0.5 / 127 + 1e-9)
    density = np.maximum(table["density_text"], table["density_image"])
    np.testing.assert_allclose(density_of(result.density), density, rtol=0.03)
    nowhere = np.array([v == "dead" for v in verdict])
    assert nowhere.any() and (~nowhere).any()
    for axis in (result.x, result.y):
        assert ((axis == mapfile.NOWHERE) == nowhere).all()
    assert (made_up.path / mapfile.NAME).stat().st_size == 16 + 7 * made_up.n_features
    assert mapfile.NAME in made_up.manifest["files"]
    assert made_up.manifest["map"]["k"] == 10 and 0.1 < made_up.manifest["map"]["preserved_neighbours"] <= 1


def test_on_the_second_map_lie_those_with_a_profile(made_up: Store) -> None:
    result, index = mapfile.read_map(made_up.path / mapfile.PROFILE_NAME), made_up.search.index("profile")
    profile_fd = index.reconstruct_n(0, index.ntotal)
    has_place = profile_fd.any(1) & (result.verdict != VERDICTS.index("dead"))
    assert has_place.sum() > 50 and ((result.x != mapfile.NOWHERE) == has_place).all()
    assert made_up.manifest["map"]["profile"]["preserved_neighbours"] > 0.1
    place = np.stack([result.x, result.y], 1)[has_place].astype(float)
    unlike = np.random.default_rng(0).permutation(place)
    near = nearest(profile_fd[has_place])[0]
    assert preserved_neighbours(place, near) > 3 * preserved_neighbours(unlike, near)


def test_the_file_goes_round(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = mapfile.FeatureMap(
        *(rng.integers(0, np.iinfo(kind).max, 77).astype(kind) for kind in mapfile.FIELDS.values())
    )
    for name in ("a", "b"):
        mapfile.write_map(tmp_path / name, columns)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for one, other in zip(mapfile.read_map(tmp_path / "a"), columns, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("data", [b"", b"SXM1", b"SXM1\x02\0\0\0" + b"\0" * 8, b"NOPE" + b"\0" * 12])
def test_a_broken_file_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "map.bin").write_bytes(data)
    with pytest.raises(SaevxError, match="no map of features"):
        mapfile.read_map(tmp_path / "map.bin")


def manifest_without(store: Path, name: str) -> dict[str, Any]:
    """The manifest of a store that never had that file, nor the sizes that older versions did not write."""
    manifest = read_manifest(store)
    del manifest["files"][name], manifest["sizes"], manifest["sealed"]
    return {**manifest, "content_id": content_id(manifest, manifest["files"])}


def test_an_older_store_opens_and_verifies_without_one(made_up: Store, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="older version"):
        mapfile.read_map(tmp_path / mapfile.NAME)
    old = tmp_path / "old"
    shutil.copytree(made_up.path, old)
    (old / mapfile.NAME).unlink()
    (old / "manifest.json").write_text(json.dumps(manifest_without(made_up.path, mapfile.NAME)))
    assert Store.open(old).n_features == made_up.n_features
    assert all(check.ok for check in verify(old))


def test_verify_finds_a_map_of_other_features(made_up: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made_up.path, copy)
    columns = mapfile.read_map(copy / mapfile.NAME)
    mapfile.write_map(copy / mapfile.NAME, columns._replace(verdict=columns.verdict[::-1]))
    report = {check.name: check for check in verify(copy)}
    assert not report["map"].ok and "verdict" in report["map"].detail


def columns_of(n: int) -> dict[str, Any]:
    """What step `weigh` leaves of n features that are all alive."""
    verdict = np.full(n, VERDICTS.index("cross-modal"))
    return {"verdict": verdict, "omega": np.full(n, 0.5), "density": np.full((n, 2), 0.1)}


def test_a_map_laid_out_in_a_process_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clustered(500)
    other = nearest(vectors.astype(np.float32))[0]
    weigh = columns_of(len(vectors))
    summary = feature_map.write(tmp_path / "here.bin", vectors, other, weigh)
    monkeypatch.setattr(feature_map, "LARGE_MAP", 1)  # here, not in the processes
    with layout_pool(len(vectors)) as pool:
        assert MapLayout.begin(pool, vectors, other, weigh).write(tmp_path / "there.bin", weigh) == summary
        assert len(active_children()) == 1
    assert (tmp_path / "here.bin").read_bytes() == (tmp_path / "there.bin").read_bytes()
    assert not active_children()


def test_a_run_that_fails_does_not_wait_for_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clustered(8000)
    other = np.random.default_rng(0).integers(0, len(vectors), (len(vectors), 10))
    monkeypatch.setattr(feature_map, "LARGE_MAP", 1)
    with pytest.raises(OSError, match="no space"), layout_pool(len(vectors)) as pool:
        pending = MapLayout.begin(pool, vectors, other, columns_of(len(vectors)))
        raise OSError("no space")
    assert isinstance(pending.places.exception(), BrokenProcessPool)
    assert not active_children()


@pytest.mark.parametrize("n", [40, 5000])
def test_a_layout_starts_from_the_same_place_with_any_number_of_threads(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors = unit(rng.standard_normal((n, 64)) + 3 * rng.standard_normal((n, 2)) @ rng.standard_normal((2, 64)))
    starts = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            starts.append(feature_map.principal(vectors.astype(np.float32)))
    assert len({start.tobytes() for start in starts}) == 1
    centred = vectors - vectors.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    start = starts[0] - feature_map.spiral(n) * (feature_map.START / 100)
    for k in (0, 1):
        assert abs(np.corrcoef(start[:, k], centred @ axes[k])[0, 1]) == pytest.approx(1, abs=1e-4)
    assert start[:, 0].std() == pytest.approx(feature_map.START, rel=1e-3) and values[0] > values[1]
