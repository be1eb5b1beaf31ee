"""Samples of a pair of features: both fire, only the one, only the other."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.reader import Store
from precompute.store.relations.feature_pairs import MEASURES, SIDES, FeaturePairs
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array, Item

SCANNED = 20_000_000
"""Stored maxima of a store that are searched for a feature; of a larger store, its stored examples."""
MAX_EXAMPLE_ROWS = 4000
"""Examples that are looked at."""
_TRIED_PER_SHOWN = 8
"""Samples looked at for each that is shown, where the other feature may fire below the stored maxima."""


def pair_samples(store: Store, kind: str, a: int, b: int, n: int = 8) -> Item:
    """Up to `n` samples of each group, the clearest first.

    Args:
        kind: "text-image" (a on text, b on the image), "text-text" or "image-image".

    Returns:
        `pair`: what the list of pairs says of it, or null where it lists none; `complete`: whether all samples were
        looked at, or only the stored examples of the two; `exact`: whether all activations were, or only the 256
        strongest features of each side; `both`, `only_a`, `only_b`: {sample_id, share_a, share_b}, shares of the p99.9
        of each feature, 0 where it is off, None where the store cannot tell; `n_both`, `n_only_a`, `n_only_b` of those
        looked at.

    Raises:
        SaevxError: no such feature or kind.
    """
    if kind not in SIDES:
        raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(SIDES)}.")
    last = store.n_features - 1
    if not 0 <= min(a, b) <= max(a, b) <= last:
        raise SaevxError(f"No such pair: features are 0 to {last}.")
    places = list(zip((a, b), SIDES[kind], strict=True))
    is_exact = store.events.scans_all
    complete = is_exact or len(store.events.max_feature) <= SCANNED
    rows, share_r2 = _all_shares(store, places) if complete else _example_shares(store, places)
    on_r2, off_r2 = share_r2 >= s.DELTA_SHARE, share_r2 == 0  # a sample between the two is in no group
    groups = {
        "both": on_r2.all(axis=1),
        "only_a": on_r2[:, 0] & off_r2[:, 1],
        "only_b": on_r2[:, 1] & off_r2[:, 0],
    }
    reply: Item = {"kind": kind, "a": a, "b": b, "complete": complete, "exact": is_exact}
    reply["pair"] = stored_pair(store.cooccurrence.pairs[kind], a, b)
    for name, is_in in groups.items():
        at = np.flatnonzero(is_in)
        score = share_r2[at].min(axis=1) if name == "both" else share_r2[at].max(axis=1)
        best_at = at[np.lexsort((rows[at], -score))][: n * _TRIED_PER_SHOWN]
        reply[f"n_{name}"] = len(at)
        off_at = None if is_exact or name == "both" else int(name == "only_a")
        candidates = zip(rows[best_at].tolist(), share_r2[best_at].tolist(), strict=True)
        reply[name] = list(islice(_samples_of_group(store, candidates, places, off_at), n))
    return reply


def stored_pair(pairs: FeaturePairs, a: int, b: int) -> Item | None:
    """`MEASURES`, n_a and n_b of a stored pair, in either order where both are of one modality; None if not stored."""
    for feature_a, feature_b in ((a, b), (b, a)) if pairs.kind != "text-image" else ((a, b),):
        at = pairs.of(feature_a, "a")
        at = at[pairs.column("b")[at] == feature_b]
        if len(at):
            result = pairs.measures(at[:1])
            n_a, n_b = int(result.n_a[0]), int(result.n_b[0])
            n_a, n_b = (n_a, n_b) if feature_a == a else (n_b, n_a)
            return {"n_a": n_a, "n_b": n_b} | {name: getattr(result, name)[0].item() for name in MEASURES}
    return None


def _samples_of_group(
    store: Store, candidates: Iterable[tuple[int, list[float]]], places: Sequence[tuple[int, int]], off_at: int | None
) -> Iterator[Item]:
    """The samples of a group; `off_at`, which of the two has no stored maximum there: those in which it fires below the
    maxima are left out."""
    for row, stored_shares in candidates:
        shares: list[float | None] = [*stored_shares]
        if off_at is not None:
            shares[off_at] = _share_of_events(store, row, *places[off_at])
        if off_at is None or not shares[off_at]:
            yield {"sample_id": store.samples.sample_id(row), "share_a": shares[0], "share_b": shares[1]}


def _all_shares(store: Store, places: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    """(rows, shares), int64 [r] rising and float64 [r, 2]: every row in which one of the two fires on its side."""
    columns = []
    for feature, modality in places:
        side, z = store.events.sides_with(feature)
        is_of_modality = side % len(s.MODALITIES) == modality
        columns.append((side[is_of_modality] // len(s.MODALITIES), z[is_of_modality] / _unit(store, feature)))
    rows = np.union1d(columns[0][0], columns[1][0])
    share_r2 = np.zeros((len(rows), 2))
    for column, (of_feature, share) in enumerate(columns):
        share_r2[np.searchsorted(rows, of_feature), column] = share
    return rows, share_r2


def _example_shares(store: Store, places: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    """As `_all_shares`, of the rows of the stored examples of the two, by the stored maxima."""
    query = "SELECT DISTINCT row FROM examples WHERE feature = ? AND modality = ? ORDER BY row"
    of_examples = [np.array(fetch_plain(store.engine, query, place), np.int64).reshape(-1) for place in places]
    rows = np.union1d(*of_examples)[:MAX_EXAMPLE_ROWS]
    share_r2 = np.array([[_share(store, row, *place) for place in places] for row in rows.tolist()])
    return rows, share_r2.reshape(-1, 2)


def _unit(store: Store, feature: int) -> float:
    """p99.9 of a feature."""
    return max(float(store.features.table["p999"][feature]), 1e-9)


def _share(store: Store, row: int, feature: int, modality: int) -> float:
    """A feature's largest stored activation on a side of a sample as a share of its p99.9; 0 without one."""
    feature_k, z_k = store.events.maxima(row, modality)
    at = int(np.searchsorted(feature_k, feature))
    is_on = at < len(feature_k) and feature_k[at] == feature
    return float(z_k[at]) / _unit(store, feature) if is_on else 0.0


def _share_of_events(store: Store, row: int, feature: int, modality: int) -> float | None:
    """That share of a feature without a stored maximum there, by the sample's events; None where they are not kept."""
    events = store.events
    if len(events.maxima(row, modality)[0]) < s.KEPT_MAXIMA:
        return 0.0
    if not events.has(row):
        return None
    tokens, z_t = events.feature(row, feature)
    return float(z_t[tokens.modality_t == modality].max(initial=0)) / _unit(store, feature)
