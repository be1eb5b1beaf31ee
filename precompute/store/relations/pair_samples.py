"""Samples of a pair of features: both fire, only the one, only the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.reader import Store
from precompute.store.relations.pairs import MEASURES, SIDES, Pairs
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array

Item = dict[str, Any]

SCANNED = 20_000_000
"""Stored maxima of a store that are searched for a feature; of a larger store, its stored examples."""
ON = 0.1
"""Share of p99.9 from which a feature counts as firing here; below it and not off, a sample is in no group."""
MOST_ROWS = 4000


def pair_samples(store: Store, kind: str, a: int, b: int, n: int = 8) -> Item:
    """Up to `n` samples of each group, the clearest first.

    Args:
        kind: "text-image" (a on text, b on the image), "text-text" or "image-image".

    Returns:
        `pair`: what the list of pairs says of it, or null where it lists none; `complete`: whether all samples were
        looked at, or only the stored examples of the two; `both`, `only_a`, `only_b`: {sample_id, share_a, share_b},
        shares of the p99.9 of each feature, 0 where it is off; `n_both`, `n_only_a`, `n_only_b` of those looked at.

    Raises:
        SaevxError: no such feature or kind.
    """
    if kind not in SIDES:
        raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(SIDES)}.")
    last = store.n_features - 1
    if not 0 <= min(a, b) <= max(a, b) <= last:
        raise SaevxError(f"No such pair: features are 0 to {last}.")
    sides = SIDES[kind]
    complete = len(store.events.max_feature) <= SCANNED
    find = _all_rows if complete else _example_rows
    rows = np.union1d(find(store, a, sides[0]), find(store, b, sides[1]))[:MOST_ROWS]
    share_r2 = np.array([[_share(store, int(row), f, m) for f, m in ((a, sides[0]), (b, sides[1]))] for row in rows])
    share_r2 = share_r2.reshape(-1, 2)
    groups = {
        "both": (share_r2 >= ON).all(axis=1),
        "only_a": (share_r2[:, 0] >= ON) & (share_r2[:, 1] == 0),
        "only_b": (share_r2[:, 1] >= ON) & (share_r2[:, 0] == 0),
    }
    reply: Item = {"kind": kind, "a": a, "b": b, "complete": complete and len(rows) < MOST_ROWS}
    reply["pair"] = counted(store.cooccurrence.pairs[kind], a, b)
    for name, is_in in groups.items():
        at = np.flatnonzero(is_in)
        score = share_r2[at].min(axis=1) if name == "both" else share_r2[at].max(axis=1)
        best = at[np.lexsort((rows[at], -score))[:n]]
        reply[f"n_{name}"] = len(at)
        reply[name] = [
            {"sample_id": store.samples.sample_id(int(rows[i])), "share_a": share_r2[i, 0], "share_b": share_r2[i, 1]}
            for i in best
        ]
    return reply


def counted(pairs: Pairs, a: int, b: int) -> Item | None:
    """`MEASURES`, n_a and n_b of a stored pair, in either order where both are of one modality; None if not stored."""
    for first, second in ((a, b), (b, a)) if pairs.kind != "text-image" else ((a, b),):
        at = pairs.of(first, "a")
        at = at[pairs.column("b")[at] == second]
        if len(at):
            result = pairs.measured(at[:1])
            n_a, n_b = int(result.n_a[0]), int(result.n_b[0])
            n_a, n_b = (n_a, n_b) if first == a else (n_b, n_a)
            return {"n_a": n_a, "n_b": n_b} | {name: getattr(result, name)[0].item() for name in MEASURES}
    return None


def _all_rows(store: Store, feature: int, modality: int) -> Array:
    """int64, rising: every row with a stored maximum of the feature on that side."""
    events = store.events
    at = np.searchsorted(events.max_offset, np.flatnonzero(events.max_feature == feature), "right") - 1
    return at[at % len(s.MODALITIES) == modality] // len(s.MODALITIES)


def _example_rows(store: Store, feature: int, modality: int) -> Array:
    """int64, rising: the rows of the feature's stored examples on that side."""
    query = "SELECT DISTINCT row FROM examples WHERE feature = ? AND modality = ? ORDER BY row"
    return np.array(fetch_plain(store.engine, query, (feature, modality)), np.int64).reshape(-1)


def _share(store: Store, row: int, feature: int, modality: int) -> float:
    """A feature's largest activation on a side of a sample as a share of its p99.9; 0 where it is off."""
    feature_k, z_k = store.events.maxima(row, modality)
    at = int(np.searchsorted(feature_k, feature))
    is_on = at < len(feature_k) and feature_k[at] == feature
    return float(z_k[at] / max(store.features.table["p999"][feature], 1e-9)) if is_on else 0.0
