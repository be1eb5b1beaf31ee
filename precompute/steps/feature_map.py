"""The maps of features: the last part of step `index`. Every feature that is not dead gets a place on a plane, so that
features with similar decoder directions lie together, and on a second map those with similar profiles; the files are
`store/mapfile.py`'s.

The layout is t-SNE by openTSNE over the graph of nearest neighbours that the step has anyway. Attraction is the graph's
own, every edge the same (Böhm, Berens and Kobak, 2022: as good as calibrated weights). Nothing is drawn by chance: the
start is the first two principal components, and one thread adds up.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
import scipy.linalg
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from precompute.store import mapfile
from precompute.store.schema import VERDICTS
from precompute.utils.processes.children import end_with_parent, without_interrupts
from precompute.utils.ragged import slices
from precompute.utils.types import Array

MIN_NEIGHBOURS = 5  # alive neighbours of a feature; one that has fewer gets others by another search
START = 1e-4  # standard deviation of the first axis at the start
EXAGGERATED_STEPS, PLAIN_STEPS = 100, 250  # with exaggerated attraction, then without
EXAGGERATION = 12.0
MIN_EXAGGERATED = 50
CHECKED_STEPS, COLLAPSED = 25, 1e-6
"""Where every feature is near every other one, exaggerated attraction draws the whole map into one point, on which the
library crashes: after so many steps it ends where the map is smaller than this."""
LARGE_MAP = 20_000
"""From so many points on the map takes twice the steps, on a finer mesh: both cost seconds, and few notice where a
small map is a few percent worse. Then it also has a process of its own: the library holds Python's lock while it adds
up repulsion, so beside it in a thread all else waits."""
SMALL_MAP = 2_000
"""Below so many points repulsion is added up on a coarser mesh, or a small store would wait seconds for its map."""
BLOCK = 1 << 12
"""Vectors that are in memory as float64 at once."""
TINY_MAP = 300
"""Below so many points all pairs are added up: that is exact, and a mesh takes up to twenty times as long."""


@contextmanager
def layout_pool(n_points: int) -> Iterator[Executor]:
    """Where maps of so many points are laid out beside other work: a process for each of two if they are large."""
    if n_points < LARGE_MAP:
        with ThreadPoolExecutor(1) as thread:
            yield thread
        return
    old_processes = set(active_children())
    with ProcessPoolExecutor(2, get_context("spawn"), end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(active_children()) - old_processes:  # nobody waits for a map of a run that has failed
                process.terminate()
            raise


class MapLayout(NamedTuple):
    """A map of features whose places are being computed."""

    on_map_f: Array
    """bool [F]."""
    neighbours_nk: Array
    """int64 [n, k], as of `neighbours_on_map`."""
    places: Future[Array]
    """float64 [n, 2], as of `layout`."""

    @classmethod
    def begin(
        cls,
        pool: Executor,
        vectors: Array,
        neighbours_fk: Array,
        weigh: Mapping[str, Array],
        allowed_f: Array | None = None,
    ) -> Self:
        """Args: `pool` computes the places; the others as of `write`."""
        on_map_f = weigh["verdict"] != VERDICTS.index("dead")
        if allowed_f is not None:
            on_map_f &= allowed_f
        neighbours_nk = neighbours_on_map(vectors, neighbours_fk, on_map_f)
        start_n2 = principal(vectors[on_map_f]) if has_layout(neighbours_nk) else np.zeros((len(neighbours_nk), 2))
        with without_interrupts():
            return cls(on_map_f, neighbours_nk, pool.submit(places_from, start_n2, neighbours_nk))

    def write(self, path: Path, weigh: Mapping[str, Array]) -> dict[str, Any]:
        """The file, once the places are there. Returns what the manifest says of it."""
        place = np.full((len(self.on_map_f), 2), mapfile.NOWHERE, dtype=np.uint16)
        place[self.on_map_f] = mapfile.quantise_places(self.places.result())
        columns = mapfile.FeatureMap(
            x=place[:, 0],
            y=place[:, 1],
            verdict=weigh["verdict"],
            omega=mapfile.quantise_omega(weigh["omega"]),
            density=mapfile.quantise_density(weigh["density"].max(1)),
        )
        mapfile.write_map(path, columns)
        share = preserved_neighbours(place[self.on_map_f], self.neighbours_nk)
        return {"k": self.neighbours_nk.shape[1], "preserved_neighbours": share}


def write(
    path: Path, vectors: Array, neighbours_fk: Array, weigh: Mapping[str, Array], allowed_f: Array | None = None
) -> dict[str, Any]:
    """The file of a map. Returns what the manifest says of it: `preserved_neighbours`, the share of `k` nearest
    neighbours that are also among the nearest on the map; null where fewer than two features are on it.

    Args:
        vectors: unit vectors, such as centred decoder directions, float32 [F, d].
        neighbours_fk: their nearest neighbours, int64 [F, k], −1 for none.
        weigh: what step `weigh` left: verdict, omega, density.
        allowed_f: bool [F]: features that may be on the map; all by default.
    """
    with ThreadPoolExecutor(1) as thread:
        return MapLayout.begin(thread, vectors, neighbours_fk, weigh, allowed_f).write(path, weigh)


def neighbours_on_map(vectors_fd: Array, neighbours_fk: Array, on_map_f: Array) -> Array:
    """int64 [n, k]: the neighbours of the n features on the map that are on it too, numbered from 0 to n − 1 as their
    rows among these; −1 for none.

    A feature with fewer than MIN_NEIGHBOURS of them gets its k nearest features of the map by another search.

    Args:
        vectors_fd, neighbours_fk: as of `write`. on_map_f: bool [F].
    """
    is_neighbour_fk = (neighbours_fk >= 0) & on_map_f[neighbours_fk]
    neighbours_nk = np.where(is_neighbour_fk, (np.cumsum(on_map_f) - 1)[neighbours_fk], -1)[on_map_f]
    lonely = np.flatnonzero(is_neighbour_fk[on_map_f].sum(1) < MIN_NEIGHBOURS)
    k = min(neighbours_fk.shape[1], len(neighbours_nk) - 1)
    if len(lonely) and k > 0:
        vectors_nd = np.ascontiguousarray(vectors_fd[on_map_f], dtype=np.float32)
        _, nearest = faiss.knn(vectors_nd[lonely], vectors_nd, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
        neighbours_nk[lonely, :k] = without_itself(nearest, lonely)
    return neighbours_nk


def without_itself(nearest: Array, row: Array) -> Array:
    """int64 [n, k] of [n, k + 1]: the nearest of each row but itself; the last where its exact twins came first."""
    itself = nearest == row[:, None]
    itself[~itself.any(1), -1] = True
    return nearest[~itself].reshape(len(row), nearest.shape[1] - 1)


def layout(vectors_nd: Array, neighbours_nk: Array) -> Array:
    """Places float64 [n, 2] such that neighbours lie together.

    Args:
        vectors_nd: unit vectors; only their first two principal components count, as the start.
        neighbours_nk: nearest neighbours of each as row numbers, −1 for none.
    """
    start_n2 = principal(vectors_nd) if has_layout(neighbours_nk) else np.zeros((len(neighbours_nk), 2))
    return places_from(start_n2, neighbours_nk)


def has_layout(neighbours_nk: Array) -> bool:
    """Whether there is something to lay out: three points, and neighbours among them."""
    return len(neighbours_nk) >= 3 and bool((neighbours_nk >= 0).any())


def places_from(start_n2: Array, neighbours_nk: Array) -> Array:
    """`layout` from where its points start."""
    n, is_neighbour_nk = len(start_n2), neighbours_nk >= 0
    if not has_layout(neighbours_nk):
        return np.stack([np.arange(n), np.zeros(n)], 1).astype(np.float64)
    from openTSNE import TSNEEmbedding, affinity  # brings scikit-learn: only where a map is drawn

    rows = np.repeat(np.arange(n), is_neighbour_nk.sum(1))
    one_way = csr_matrix((np.ones(len(rows)), (rows, neighbours_nk[is_neighbour_nk])), shape=(n, n))
    places = TSNEEmbedding(
        start_n2,
        affinity.PrecomputedAffinities((one_way + one_way.T).tocsr(), normalize=True),
        # The library's other method, a tree, crashes where two directions are the same.
        negative_gradient_method=exact_gradient if n < TINY_MAP else "fft",
        min_num_intervals=20 if n < SMALL_MAP else 50,
        # 1 would take twice the time of a large map, for a few percent more neighbours that stay near.
        ints_in_interval=1.5 if n >= LARGE_MAP else 2,
        n_jobs=1,  # threads would add up in another order each time
        random_state=0,
    )
    step_factor = 1 + (n >= LARGE_MAP)
    if n >= MIN_EXAGGERATED:
        for _ in range(step_factor * EXAGGERATED_STEPS // CHECKED_STEPS):
            run_steps(places, CHECKED_STEPS, exaggeration=EXAGGERATION, momentum=0.5)
            if np.ptp(np.asarray(places), axis=0).max() < COLLAPSED:
                break
    run_steps(places, step_factor * PLAIN_STEPS, exaggeration=1.0, momentum=0.8)
    return np.asarray(places, dtype=np.float64)


def exact_gradient(places_n2: Any, attraction: csr_matrix, **_: Any) -> tuple[float, Array]:
    """The loss, which nothing reads here, and the gradient of t-SNE over all pairs of points, as the library's own
    methods return them.

    Args:
        places_n2: where the points lie. attraction: float64 [n, n], between neighbours.
    """
    across_nn, along_nn = (np.subtract.outer(axis, axis) for axis in np.asarray(places_n2).T)
    closeness_nn = 1 / (1 + across_nn**2 + along_nn**2)
    np.fill_diagonal(closeness_nn, 0.0)
    force_nn = closeness_nn * (attraction.toarray() - closeness_nn / closeness_nn.sum())
    return 0.0, np.stack([np.einsum("ij,ij->i", force_nn, apart) for apart in (across_nn, along_nn)], 1)


def run_steps(places: Any, n_steps: int, *, exaggeration: float, momentum: float) -> None:
    """Moves a TSNEEmbedding by so many steps of gradient descent."""
    rate = len(places) / exaggeration
    with np.errstate(invalid="ignore"):  # of the loss, which it only reports
        places.optimize(
            n_steps, exaggeration=exaggeration, momentum=momentum, learning_rate=rate, inplace=True, n_jobs=1
        )


def principal(vectors_nd: Array) -> Array:
    """The first two principal components, float64 [n, 2], small: where a layout starts, so that it keeps the large
    view."""
    n, d = vectors_nd.shape
    mean_d = vectors_nd.mean(0, dtype=np.float64)
    covariance_dd = np.zeros((d, d))
    for block in slices(n, BLOCK):
        centred = vectors_nd[block] - mean_d
        covariance_dd += centred.T @ centred
    _, axes = scipy.linalg.eigh(covariance_dd, subset_by_index=[max(d - 2, 0), d - 1])
    axes = axes[:, ::-1] * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])[::-1]
    y = np.zeros((n, 2))
    for block in slices(n, BLOCK):
        y[block, : axes.shape[1]] = (vectors_nd[block] - mean_d) @ axes
    y *= START / max(float(y[:, 0].std()), START)
    # Rounded float64, so that sums in another order, as of another number of threads, start from the same place.
    return np.round(y, 10) + spiral(len(y)) * (START / 100)


def spiral(n: int) -> Array:
    """float64 [n, 2]: n distinct points in the unit circle, by the golden angle, for what is the same to lie apart."""
    angle, radius = np.arange(n) * np.pi * (3 - np.sqrt(5)), np.sqrt((np.arange(n) + 0.5) / max(n, 1))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def preserved_neighbours(place_n2: Array, neighbours_nk: Array) -> float | None:
    """Share of the nearest neighbours that are also among each point's k nearest on the map; None without any.

    Args:
        neighbours_nk: int64, −1 for none.
    """
    n, k = len(place_n2), min(neighbours_nk.shape[1], len(place_n2) - 1)
    is_neighbour_nk = neighbours_nk >= 0
    if n < 2 or not is_neighbour_nk.any():
        return None
    row = np.arange(n)
    nearest = cKDTree(place_n2.astype(np.float64)).query(place_n2, k + 1)[1]
    map_neighbours_nk = without_itself(nearest, row)
    # One number for (point, neighbour), so that both lists are compared at once.
    pairs_nk, map_pairs_nk = (row[:, None] * n + columns for columns in (neighbours_nk, map_neighbours_nk))
    return round(float(np.isin(pairs_nk[is_neighbour_nk], map_pairs_nk).mean()), 4)
