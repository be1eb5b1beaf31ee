"""Families of features as the finished store names them: by the strongest member of each."""

from typing import NamedTuple

import numpy as np

from precompute.store.making.unfinished import Collected, load_json, load_step
from precompute.store.schema import GOOD_NAME
from precompute.utils.text import bare_name
from precompute.utils.types import Array


class Families(NamedTuple):
    """Families of at least two features, n of them, and whose member each feature is."""

    of_f: Array
    """float64 [F]: the id of a feature's family, NaN for a feature alone."""
    id_n: Array
    """int64 [n], rising: the feature that is the strongest member."""
    size_n: Array
    """int64 [n]: members."""


def number_families(group_f: Array, evidence_f: Array, largest_f: Array) -> Families:
    """Numbers families by their strongest member: the one with most evidence, those without any last; of equal ones the
    one with the largest activation; of equal ones the first.

    Args:
        group_f: int64 [F], one number for all members of a family. evidence_f: float64 [F], NaN where unknown.
        largest_f: float64 [F], largest activation (z).
    """
    size_f = np.bincount(group_f)[group_f]
    order = np.lexsort((-largest_f, -np.nan_to_num(evidence_f, nan=-np.inf), group_f))
    order = order[size_f[order] > 1]
    group, first = np.unique(group_f[order], return_index=True)
    strongest_g = order[first]
    of_f = np.full(len(group_f), np.nan)
    of_f[order] = strongest_g[np.searchsorted(group, group_f[order])]
    order_g = np.argsort(strongest_g)
    return Families(of_f, strongest_g[order_g], size_f[strongest_g][order_g])


def evidence_and_families(data: Collected) -> tuple[dict[str, Array], Families]:
    """What the steps know of features, each [F], with `evidence` and `family`; and the families."""
    weigh, label = load_step(data.part, "weigh"), load_step(data.part, "label")
    figures = {**weigh, **label}
    evidence = figures["agreement_low"] * figures["score"]
    group = load_step(data.part, "families")["family"]
    families = number_families(group, evidence, data.accum["max"].max(1).astype(np.float64))
    mean_cosine = load_step(data.part, "index")["mean_cosine"]
    group_figures = {"evidence": evidence, "family": families.of_f, "mean_cosine": mean_cosine}
    labels, max_f = load_json(data.part, "label"), data.accum["max"].max(1)
    group_figures["namesake"] = namesakes(labels, figures["score"], evidence, max_f)
    return {**figures, **group_figures}, families


def namesakes(labels: list[str | None], score: Array, evidence: Array, max_f: Array) -> Array:
    """float64 [F]: of the features whose names begin with the same word and pass their test, the one with the most
    evidence; NaN for a feature alone, and where a name fails.

    Args:
        labels: of all features. score, evidence: float64 [F], NaN where unknown. max_f: [F], largest activation.
    """
    names = [bare_name(label or "").partition(",")[0].lower() for label in labels]
    words = [name if passes else k for k, (name, passes) in enumerate(zip(names, score >= GOOD_NAME, strict=True))]
    number: dict[str | int, int] = {}
    group = np.array([number.setdefault(word, len(number)) for word in words], np.int64)
    return number_families(group, evidence, max_f.astype(np.float64)).of_f
