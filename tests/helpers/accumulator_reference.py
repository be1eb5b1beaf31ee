"""The accumulators of the pass, computed one event at a time: slow, plain, and so a reference."""

import hashlib
from collections import Counter

import numpy as np

from precompute.store.histogram import N_BINS
from precompute.store.schema import IMAGE, PLACE_SIDE
from precompute.utils.types import Array

TOP = 40
BAND = 8


def accumulate(
    feature: Array, modality: Array, value: Array, row: Array, position: Array, cell: Array, n_features: int
) -> dict[str, Array]:
    """The accumulators of the pass, one event at a time; `cells` is the caller's.

    Args:
        cell: [e, 2] row and column of an image token's place, of 7 each.
    """
    shape = (n_features, 2)
    result: dict[str, Array] = {
        "count": np.zeros(shape, np.int64),
        "total": np.zeros(shape, np.int64),
        "max": np.zeros(shape, np.float16),
        "hist": np.zeros((*shape, N_BINS), np.int64),
        "place": np.zeros((n_features, PLACE_SIDE, PLACE_SIDE), np.int64),
    }
    for name, extra_shape in (("top", (TOP,)), ("band", (4, BAND))):
        result |= {
            f"{name}_row": np.full((*shape, *extra_shape), -1, np.int64),
            f"{name}_position": np.full((*shape, *extra_shape), -1, np.int32),
            f"{name}_value": np.zeros((*shape, *extra_shape), np.float16),
            f"{name}_n_active": np.zeros((*shape, *extra_shape), np.int32),
        }
    lists: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for k, m, v, r, p, (y, x) in zip(
        feature.tolist(), modality.tolist(), value, row.tolist(), position.tolist(), cell.tolist(), strict=True
    ):
        if m == IMAGE:
            result["place"][k, y, x] += int(float(v) * 2**24)
        result["count"][k, m] += 1
        result["total"][k, m] += int(float(v) * 2**24)
        result["max"][k, m] = max(result["max"][k, m], v)
        result["hist"][k, m, int(v.view(np.uint16)) >> 7] += 1
        lists.setdefault((k, m), []).append((float(v), r, p))

    def one_a_sample(tokens: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
        first: dict[int, tuple[float, int, int]] = {}
        for token in sorted(tokens, key=lambda e: (-e[0], e[1], e[2])):
            first.setdefault(token[1], token)
        return list(first.values())

    for (k, m), tokens in lists.items():
        n_active = Counter(r for _, r, _ in tokens)

        def put(name: str, at: tuple[int, ...], entries: list[tuple[float, int, int]], n: Counter[int]) -> None:
            for i, (v, r, p) in enumerate(entries):
                result[f"{name}_row"][(*at, i)], result[f"{name}_position"][(*at, i)] = r, p
                result[f"{name}_value"][(*at, i)], result[f"{name}_n_active"][(*at, i)] = v, n[r]

        put("top", (k, m), one_a_sample(tokens)[:TOP], n_active)
        octave = np.floor(np.log2(max(e[0] for e in tokens)))
        for band in range(4):
            kept_entries = one_a_sample([e for e in tokens if min(3, octave - np.floor(np.log2(e[0]))) == band])
            kept_entries.sort(key=lambda e: hashlib.sha256(f"0,{k},{e[1]}".encode()).digest())
            put("band", (k, m, band), kept_entries[:BAND], n_active)
    return result


def to_bf16(values: Array) -> Array:
    """Rounded to nearest even, as bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
