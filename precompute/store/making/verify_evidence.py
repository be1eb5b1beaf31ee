"""Part of `saevx verify`: does the pair evidence follow from the events, and the verdict from the evidence?"""

import numpy as np

from precompute.store import schema as s
from precompute.store.core import feature_columns
from precompute.store.events import of_bits
from precompute.store.histogram import percentile, unpack
from precompute.store.making.verify_examples import ByGroup, EventRun, need, table
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain
from precompute.utils.ragged import slices
from precompute.utils.stats import discoveries, poisson_interval
from precompute.utils.types import Array

PASSING, FAILING = ("cross-modal", "in-context", "weakly-paired"), ("unpaired",)


class BothSides:
    """Counts again, from the events of all samples, on how many pairs each feature is above δ on both sides."""

    def __init__(self, store: Store) -> None:
        self.delta_fm = delta(store)
        self.unit, self.n_features = store.events.unit, store.n_features
        self.n_both_f = np.zeros(store.n_features, np.int64)
        n_tokens = table(store, "SELECT n_text, n_image FROM samples ORDER BY row", 2)
        self.is_pair_n: Array = np.asarray((n_tokens > 0).all(1))

    def update(self, run: EventRun, by_group: ByGroup) -> None:
        """Takes in a run of samples."""
        group = by_group.group[by_group.last]
        side, feature = np.divmod(group, self.n_features)
        z = of_bits(by_group.bits[by_group.last]).astype(np.float64) * self.unit
        counts = (z > self.delta_fm[feature, side % 2]) & self.is_pair_n[run.rows[0] + side // 2]
        key, n = np.unique((side[counts] // 2) * self.n_features + feature[counts], return_counts=True)
        self.n_both_f += np.bincount(key[n == 2] % self.n_features, minlength=self.n_features)

    def check(self, store: Store) -> None:
        """Compares the count with the store's, unless it was made from a part of the pairs."""
        if int(self.is_pair_n.sum()) == store.manifest["pair_evidence"]["n_samples"]:
            stored_n_both = feature_columns(store.engine, "n_both", dtype=np.int64)
            need((self.n_both_f == stored_n_both[:, 0]).all(), "n_both of a feature differs from the events")


def delta(store: Store) -> Array:
    """float64 [F, 2]: δ of each feature and modality, in z."""
    rows = fetch_plain(store.engine, "SELECT hist FROM feature_details ORDER BY id")
    max_fm = store.features.max_by_modality / store.events.unit
    p999_fm = np.zeros((store.n_features, 2))
    for at in slices(store.n_features, 1 << 12):
        p999_fm[at] = percentile(np.stack([unpack(blob) for (blob,) in rows[at]]), 0.999, max_fm[at])
    return s.DELTA_SHARE * p999_fm * store.events.unit


def check_evidence(store: Store) -> str:
    """Figures lie in their ranges, and verdicts are those of the figures."""
    verdict = feature_columns(store.engine, "verdict", dtype=str)[:, 0]
    values = dict(zip(s.PAIR_FIELDS, feature_columns(store.engine, *s.PAIR_FIELDS).T, strict=True))
    is_tested = ~np.isnan(values["pair_p"])
    need((np.isin(verdict, s.TESTED_VERDICTS) == is_tested).all(), "a verdict and its test do not go together")
    beyond = discoveries(values["pair_p"], s.FALSE_DISCOVERY)
    need(not np.isin(verdict, FAILING)[beyond].any(), "a feature that passes the test is called unpaired")
    need(beyond[np.isin(verdict, PASSING)].all(), "a feature that fails the test is called paired")
    for name in ("pair_lift", "agreement"):
        _check_rising(*(values[name + end] for end in ("_low", "", "_high")), name=name)
    has_n = is_tested & (values["n_both"] > 0)
    n_both = values["n_both"][has_n].astype(np.int64)
    for end, factor in zip(("_low", "_high"), poisson_interval(n_both), strict=True):
        agrees = np.isclose(values["pair_lift" + end][has_n] * n_both, values["pair_lift"][has_n] * factor, rtol=1e-6)
        need(agrees.all(), f"pair_lift{end} is not that of pair_lift and n_both")
    is_tied = store.features.has_place
    share = feature_columns(store.engine, "place_share")[:, 0]
    need((share[is_tied] >= s.TIED).all(), "a place has too little of a feature")
    return f"{int(is_tested.sum())} features tested, {int(is_tied.sum())} tied to a place"


def _check_rising(low: Array, value: Array, high: Array, *, name: str) -> None:
    is_known = ~np.isnan(value)
    need((low[is_known] <= value[is_known] + 1e-12).all(), f"{name} lies below its interval")
    need((value[is_known] <= high[is_known] + 1e-12).all(), f"{name} lies above its interval")
