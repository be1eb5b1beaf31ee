"""Sample vectors (METHOD, *Search*), of stored samples and of live queries alike."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

from precompute.store.reader import Store
from precompute.store.schema import KEPT_MAXIMA
from precompute.utils.ragged import strongest
from precompute.utils.stats import unit
from precompute.utils.types import Array

WIDTH = 256
"""Dimensions of a projected sample vector."""
PROJECTION_SEED = 20250217
"""A constant of the format: live queries must draw the same signs."""


@lru_cache(maxsize=2)
def projection(n_features: int) -> Array:
    """float32 [F, 256] of ±1/16: the signs are the bits of NumPy's PCG64(20250217), `integers(0, 2, (F,
    256))`.
    """
    rng = np.random.Generator(np.random.PCG64(PROJECTION_SEED))
    signs = rng.integers(0, 2, (n_features, WIDTH), dtype=np.int8)
    return (signs.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(WIDTH))


def sample_vectors(maxima: csr_matrix, p999: Array, n_with: Array, n_samples: int) -> Array:
    """Unit vectors float32 [n, 256] of samples in one modality; zero where nothing is active.

    Of each sample the 256 maxima largest relative to p99.9 count. Their weight is log(1 + z / p99.9) ·
    log(N / n), n the samples with an active token of that modality (n = 0 left out); scaled to length 1,
    projected, scaled again.

    Args:
        maxima: largest z, CSR [n, F], features rising in a row.
        n_with: samples per feature, of this modality.
    """
    row = np.repeat(np.arange(maxima.shape[0]), np.diff(maxima.indptr))
    k = maxima.indices
    ratio = maxima.data / np.maximum(p999[k], 1e-30)
    kept = strongest(ratio, maxima.indptr, KEPT_MAXIMA) & (n_with[k] > 0)
    row, k, ratio = row[kept], k[kept], ratio[kept]
    weight = np.log1p(ratio) * np.log(n_samples / np.maximum(n_with[k], 1))
    length = np.sqrt(np.bincount(row, weight**2, minlength=maxima.shape[0]))
    weight = np.divide(weight, length[row], out=np.zeros_like(weight), where=length[row] > 0)
    sparse = csr_matrix((weight.astype(np.float32), (row, k)), shape=maxima.shape)
    vectors: Array = unit(np.asarray(sparse @ projection(maxima.shape[1]), dtype=np.float32))
    return vectors


def sample_vector(features: Array, z: Array, modality: str, store: Store) -> Array:
    """The vector [256] of a live query, as the store's own samples have it.

    Args:
        features: active features, rising. z: the largest activation of each on the query's tokens of
        `modality`.
    """
    table = store.feature_table
    maxima = csr_matrix(
        (np.asarray(z, np.float64), features, [0, len(features)]), shape=(1, store.n_features)
    )
    vectors = sample_vectors(maxima, table["p999"], table[f"samples_{modality}"], store.n_samples)
    return np.asarray(vectors[0])
