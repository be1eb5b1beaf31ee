"""A flat map of unit vectors: t-SNE (van der Maaten and Hinton, 2008) over the graph of nearest neighbours.

Attraction is the graph's own, every edge the same (Böhm, Berens and Kobak, 2022: as good as calibrated weights).
Repulsion is a field on a mesh by FFT, as in FIt-SNE (Linderman et al., 2019), but one field serves for all of it: with
w = 1 / (1 + ‖y_i − y_j‖²) the sum over w²·(y_i − y_j) is −½ of the gradient of the sum over w. So a step costs two
transforms and is linear in the points; `naive_repulsion` is the same in plain sums. Nothing is drawn by chance.

Own code, because the libraries (openTSNE, umap-learn) bring scikit-learn or a compiler, want the neighbours searched
again, and were slower on a few thousand points, where a map must cost seconds.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.linalg
from scipy.sparse import csr_matrix, triu

from precompute.utils.types import Array

CELL = 0.4  # of the mesh, where w falls to a half at distance 1; forces are then 2 % off, and finer costs more
SMALLEST_CELL = 0.05  # early on the map is far smaller than 1; a slope over less drowns in float32's rounding
FEWEST_CELLS = 48  # across the map in between
PHASES = ((100, 12.0, 0.5), (250, 1.0, 0.8))  # (steps, exaggeration of the attraction, momentum)
MANY = 20_000  # from so many points on it takes twice the steps
LONGEST_STEP = 5.0
START = 1e-4  # standard deviation of the first axis at the start


def layout(vectors_nd: Array, other_nk: Array) -> Array:
    """Places float64 [n, 2] such that neighbours lie together.

    Args:
        vectors_nd: unit vectors; only their first two principal components count, as the start.
        other_nk: nearest neighbours of each as row numbers, −1 for none.
    """
    if len(vectors_nd) < 3:
        return np.stack([np.arange(len(vectors_nd)), np.zeros(len(vectors_nd))], 1).astype(np.float64)
    i_e, j_e, p_e = edges(other_nk)
    y = principal(vectors_nd)
    mesh = Mesh()
    step, gain = np.zeros_like(y), np.ones_like(y)
    for n_steps, exaggeration, momentum in PHASES:
        rate = len(y) / exaggeration
        for _ in range(n_steps * (1 + (len(y) >= MANY))):
            repulsion, total = mesh.repulsion(y)
            slope = 4 * (exaggeration * attraction(y, i_e, j_e, p_e) - repulsion / max(total, 1e-12))
            # Delta-bar-delta: an axis speeds up while it keeps its direction.
            gain = np.maximum(np.where((slope > 0) != (step > 0), gain + 0.2, gain * 0.8), 0.01)
            step = momentum * step - rate * gain * slope
            length = np.sqrt((step**2).sum(1, keepdims=True))
            step *= np.minimum(1, LONGEST_STEP / np.maximum(length, 1e-12))
            y = y + step
            y -= y.mean(0)
    return y


def edges(other_nk: Array) -> tuple[Array, Array, Array]:
    """The graph of neighbours, both ways in one: (i, j, p) with i < j; p sums to ½."""
    n = len(other_nk)
    known = other_nk >= 0
    rows = np.repeat(np.arange(n), known.sum(1))
    one_way = csr_matrix((np.ones(len(rows)), (rows, other_nk[known])), shape=(n, n))
    both = triu(one_way + one_way.T, 1).tocoo()
    return both.row, both.col, both.data / (2 * max(both.data.sum(), 1))


def principal(vectors_nd: Array) -> Array:
    """The first two principal components, small: where a layout starts, so that it keeps the large view."""
    centred = vectors_nd - vectors_nd.mean(0)
    d = centred.shape[1]
    _, axes = scipy.linalg.eigh(centred.T @ centred, subset_by_index=[max(d - 2, 0), d - 1])
    axes = axes[:, ::-1] * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])[::-1]
    y = np.zeros((len(centred), 2))
    y[:, : axes.shape[1]] = centred @ axes
    # Rounded, so that sums in another order start from the same place.
    found: Array = np.round(y * (START / max(float(y[:, 0].std()), 1e-30)), 10)
    return found


def attraction(y: Array, i_e: Array, j_e: Array, p_e: Array) -> Array:
    """[n, 2]: sum over edges of p · w · (y_i − y_j)."""
    apart = y[i_e] - y[j_e]
    pull = apart * (p_e / (1 + (apart**2).sum(1)))[:, None]
    n = len(y)
    return np.stack(
        [np.bincount(i_e, pull[:, a], minlength=n) - np.bincount(j_e, pull[:, a], minlength=n) for a in (0, 1)], 1
    )


class Mesh:
    """The field of w on a square mesh, by cubic B-splines (smooth particle mesh, Essmann et al., 1995)."""

    def __init__(self) -> None:
        self.key: tuple[int, float] = (0, 0.0)
        self.kernel_hat = np.zeros(0)

    def repulsion(self, y: Array) -> tuple[Array, float]:
        """([n, 2] sum over j of w²·(y_i − y_j), the sum of w over all ordered pairs)."""
        low, span = y.min(0), float(np.ptp(y, axis=0).max())
        cell = min(CELL, max(SMALLEST_CELL, span / FEWEST_CELLS))
        place = (y - low) / cell + 1
        corner = np.floor(place).astype(np.int64)
        (wx, dx), (wy, dy) = (spline((place - corner)[:, a].astype(np.float32)) for a in (0, 1))
        # Twice as wide as the map, for the transform's field repeats itself; few sizes, for each needs a kernel.
        size = scipy.fft.next_fast_len(16 * -(-2 * (int(corner.max()) + 3) // 16), real=True)
        near = np.arange(-1, 3)
        nodes = (corner[:, 0, None] + near)[:, :, None] * size + (corner[:, 1, None] + near)[:, None]  # (n, 4, 4)
        weight = (wx[:, :, None] * wy[:, None]).reshape(-1)
        density = np.bincount(nodes.reshape(-1), weight, minlength=size * size).astype(np.float32).reshape(size, size)
        field_hat = scipy.fft.rfft2(density)
        field_hat *= self.kernel(size, cell)
        field = scipy.fft.irfft2(field_hat, s=(size, size), overwrite_x=True).reshape(-1)[nodes]  # (n, 4, 4)
        along = (field * wy[:, None]).sum(2)
        across = (field * dy[:, None]).sum(2)
        gradient = np.stack([(along * dx).sum(1), (across * wx).sum(1)], 1).astype(np.float64) / cell
        return gradient / -2, float((along * wx).sum(dtype=np.float64)) - len(y)

    def kernel(self, size: int, cell: float) -> Array:
        """Transform of w over the mesh, freed of the splines' own blur on both sides."""
        if self.key != (size, cell):
            steps = np.arange(size)
            squared = (np.minimum(steps, size - steps) * cell) ** 2
            blur = ((2 + np.cos(2 * np.pi * steps / size)) / 3) ** 2
            kernel_hat = scipy.fft.rfft2(1 / (1 + squared[:, None] + squared))
            self.kernel_hat = (kernel_hat / (blur[:, None] * blur[: size // 2 + 1])).astype(np.complex64)
            self.key = (size, cell)
        return self.kernel_hat


def spline(u: Array) -> tuple[Array, Array]:
    """Weights and slopes [n, 4] of the cubic B-spline on the nodes −1, 0, 1, 2 around a place u in 0…1."""
    v = 1 - u
    weight = [v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3]
    slope = [-(v**2), 3 * u**2 - 4 * u, 4 * v - 3 * v**2, u**2]
    return np.stack(weight, 1) / 6, np.stack(slope, 1) / 2


def naive_repulsion(y: Array) -> tuple[Array, float]:
    """What `Mesh.repulsion` gives, pair by pair."""
    apart = y[:, None] - y[None]
    w = 1 / (1 + (apart**2).sum(2))
    np.fill_diagonal(w, 0)
    return ((w**2)[:, :, None] * apart).sum(1), float(w.sum())
