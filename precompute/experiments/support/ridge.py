"""Ridge regression of a caption's pooled features on its image's, in closed form; what it misses is the score."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from precompute.utils.stats import unit
from precompute.utils.types import Array

LAMBDAS = tuple(10.0**power for power in range(-4, 3))
"""In units of the mean squared length of a row."""
FEWEST = 5
"""Train captions that have a feature, below which it is left out."""
POOLS = {
    "max": "largest of the patches",
    "mean": "mean over the patches",
    "moments": "mean over the patches, and the means weighted by row and by column",
}
WAYS = {
    f"{pool}-{how}": f"{description}; {meaning}"
    for pool, description in POOLS.items()
    for how, meaning in (
        ("residual", "minus Σ (y − ŷ)² / variance of what was missed on train scenes left out"),
        ("cosine", "cosine of y and ŷ, both less the mean"),
    )
}


class Ridge(NamedTuple):
    """A fit in the dual: ŷ = mean + (x − mean) Xᵀ (XXᵀ + λ)⁻¹ Y."""

    mean_x: Array
    """float64 [f]."""
    known_nf: Array
    """float64 [n, f]: the rows it was fitted on, less their mean."""
    dual_nf: Array
    """float64 [n, g]: (XXᵀ + λ)⁻¹ Y."""
    mean_y: Array
    """float64 [g]."""
    missed_ng: Array
    """float64 [n, g]: y − ŷ of each row, predicted from the others."""
    strength: float
    """λ, in units of the mean squared length of a row."""

    def predict(self, x_nf: Array) -> Array:
        """ŷ, float64 [n, g]."""
        return self.mean_y + ((x_nf - self.mean_x) @ self.known_nf.T) @ self.dual_nf


def fit_ridge(x_nf: Array, y_ng: Array, lambdas: Sequence[float] = LAMBDAS) -> Ridge:
    """The λ with the smallest squared error on rows left out, one by one.

    Args:
        x_nf, y_ng: float [n, f], [n, g].
    """
    x_nf, y_ng = x_nf.astype(np.float64), y_ng.astype(np.float64)
    mean_x, mean_y = x_nf.mean(0), y_ng.mean(0)
    centred_nf, target_ng = x_nf - mean_x, y_ng - mean_y
    kernel_nn = centred_nf @ centred_nf.T
    size = max(float(np.trace(kernel_nn)) / len(kernel_nn), 1e-12)
    value_n, vector_nn = np.linalg.eigh(kernel_nn)
    turned_ng = vector_nn.T @ target_ng
    best_fit: tuple[float, Ridge] | None = None
    for strength in lambdas:
        shrunk_n = 1 / (np.maximum(value_n, 0) + strength * size)
        dual_ng = vector_nn @ (shrunk_n[:, None] * turned_ng)
        # 1/n: the mean is fitted too, so the row that is left out leaves it as well.
        free_n = 1 - (vector_nn**2) @ (np.maximum(value_n, 0) * shrunk_n) - 1 / len(kernel_nn)
        missed_ng = (strength * size * dual_ng) / np.maximum(free_n, 1e-12)[:, None]
        error = float(np.square(missed_ng).sum())
        if best_fit is None or error < best_fit[0]:
            best_fit = error, Ridge(mean_x, centred_nf, dual_ng, mean_y, missed_ng, strength)
    assert best_fit is not None
    return best_fit[1]


def pool(patch_pf: Array, grid: tuple[int, int]) -> dict[str, Array]:
    """An image's features by POOLS, float32 [F] or [3F]. Args: z / p99.9 of the patches [p, F]."""
    rows, columns = (np.repeat(np.linspace(-1, 1, grid[0]), grid[1]), np.tile(np.linspace(-1, 1, grid[1]), grid[0]))
    mean_f = patch_pf.mean(0)
    moments = [mean_f, *(place_p @ patch_pf / len(patch_pf) for place_p in (rows, columns))]
    return {
        "max": patch_pf.max(0),
        "mean": mean_f,
        "moments": np.concatenate(moments).astype(np.float32),
    }


class Expectation(NamedTuple):
    """What images lead one to expect of captions."""

    feature: Array
    """int64 [g]: features of captions that are predicted."""
    fits: dict[str, Ridge]
    """By POOLS."""

    @classmethod
    def fitted(cls, text_nf: Array, image: dict[str, Array]) -> Self:
        """Args: captions' pooled features [n, F], and their images' by POOLS."""
        feature = np.flatnonzero((text_nf > 0).sum(0) >= min(FEWEST, len(text_nf)))
        return cls(feature, {name: fit_ridge(unit(x_nf), text_nf[:, feature]) for name, x_nf in image.items()})

    def scores(self, text_nf: Array, image: dict[str, Array]) -> dict[str, Array]:
        """By WAYS, float64 [n]."""
        result: dict[str, Array] = {}
        for name, fit in self.fits.items():
            y_ng, expected_ng = text_nf[:, self.feature].astype(np.float64), fit.predict(unit(image[name]))
            variance_g = np.maximum(np.square(fit.missed_ng).mean(0), 1e-6)
            result[f"{name}-residual"] = -(np.square(y_ng - expected_ng) / variance_g).sum(1)
            result[f"{name}-cosine"] = (unit(y_ng - fit.mean_y) * unit(expected_ng - fit.mean_y)).sum(1)
        return result
