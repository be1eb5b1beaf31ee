"""Activation histograms: eight bins an octave over the positive float16 numbers.

The bits of a positive float16, read as an integer, rise with its value: five bits of exponent, then ten of mantissa. So
the bin is `bits >> 7`: all of the exponent and the three highest mantissa bits. Binning needs no logarithm, and the
same value falls into the same bin on every device.
"""

import zlib
from typing import Any

import numpy as np

from precompute.utils.types import Array

N_BINS = 256
SHIFT = 7
"""Mantissa bits that are dropped: three of ten stay, eight bins an octave."""
_LARGEST = 0x7BFF
"""Bits of the largest finite float16."""

EDGES: Array = (
    np.minimum(np.arange(N_BINS + 1) << SHIFT, _LARGEST).astype(np.uint16).view(np.float16).astype(np.float64)
)
"""float64 [257], in stored units: bin b holds [EDGES[b], EDGES[b + 1])."""


def percentile(hist: Array, quantile: float, max_value: Array) -> Array:
    """Nearest-rank percentile read off histograms, METHOD *Notation* (p99.9).

    Args:
        hist: int64 [..., 256] counts of positive values.
        quantile: in (0, 1].
        max_value: float [...] largest value, stored units; the answer is never above it.

    Returns:
        float64 [...] in stored units: the upper edge of the bin that reaches the rank; 0 where nothing was
        counted.
    """
    total = hist.sum(-1)
    # Exact integers: ⌈q·n⌉ in floats may fall one short for large n.
    per_million = round(quantile * 1_000_000)
    rank = -((-total * per_million) // 1_000_000)
    rank_bin = (np.cumsum(hist, -1) >= np.maximum(rank, 1)[..., None]).argmax(-1)
    edge = np.minimum(EDGES[rank_bin + 1], max_value.astype(np.float64))
    return np.where(total > 0, edge, 0.0)


def pack(hist: Array) -> bytes:
    """int64 [2, 256] as a small blob: zlib over the lowest bytes of all counts, then over the second ones, and so on.

    Most counts are small, so the planes of the higher bytes are zeros and take next to nothing."""
    planes = np.ascontiguousarray(hist.astype("<i8").reshape(-1, 1).view(np.uint8).T)
    return zlib.compress(planes.tobytes(), 6)


def unpack(blob: bytes) -> Array:
    """int64 [2, 256]: what `pack` was given."""
    planes = np.frombuffer(zlib.decompress(blob), np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view("<i8").reshape(2, N_BINS)


def nonempty_bins(counts: Array, unit: float) -> dict[str, list[Any]]:
    """{edges, counts} without the empty bins at both ends, edges in z.

    Args:
        counts: int64 [256]. unit: one stored unit in z.
    """
    nonempty = np.flatnonzero(counts)
    if not len(nonempty):
        return {"edges": [], "counts": []}
    low, high = int(nonempty[0]), int(nonempty[-1]) + 1
    return {"edges": (EDGES[low : high + 1] * unit).tolist(), "counts": counts[low:high].tolist()}


def bands(count_b: Array, max_z: float, unit: float) -> list[dict[str, Any]]:
    """Octaves down from the octave of the largest value; band 3 holds everything below the top three.

    Args:
        count_b: int64 [256], values by histogram bin.
        max_z: the largest value (z). unit: one stored unit in z.
    """
    if max_z <= 0:
        return []
    octave = int(np.floor(np.log2(max_z / unit)))
    octaves = []
    for band in range(4):
        high = 2.0 ** (octave + 1 - band)
        low = high / 2 if band < 3 else 0.0
        first, last = EDGES[:-1].searchsorted((low, high))
        count = int(count_b[first:last].sum())
        octaves.append({"band": band, "low": low * unit, "high": high * unit, "count": count})
    return octaves
