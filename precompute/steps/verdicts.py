"""What decides a feature's verdict: see `schema.VERDICTS`."""

from __future__ import annotations

import numpy as np
from scipy import stats

from precompute.steps.omega import K_PAIRED
from precompute.store.schema import IMAGE, TEXT, VERDICTS
from precompute.utils.types import Array

FALSE_DISCOVERY = 0.05
"""Expected share of wrong ones among the features called cross-modal (Benjamini and Hochberg, 1995)."""


def give_verdicts(count_fm: Array, samples_fm: Array, p_value: Array) -> Array:
    """Index into VERDICTS per feature, the first that fits (METHOD).

    Args:
        count_fm: active tokens of D per modality, int64 [F, 2].
        samples_fm: samples of D_s with z > δ per modality, int64 [F, 2].
        p_value: of the test against shuffled pairs, float64 [F]; NaN where it did not run.

    Returns:
        int64 [F].
    """
    text, image = samples_fm[:, TEXT], samples_fm[:, IMAGE]
    enough = (text >= K_PAIRED) & (image >= K_PAIRED)
    cross = np.zeros(len(text), dtype=bool)
    if enough.any():
        cross[enough] = stats.false_discovery_control(p_value[enough]) <= FALSE_DISCOVERY
    conditions = {
        "dead": count_fm.sum(1) == 0,
        "text-only": (image == 0) & (text > 0),
        "image-only": (text == 0) & (image > 0),
        "mostly-text": (image < K_PAIRED) & (text >= K_PAIRED),
        "mostly-image": (text < K_PAIRED) & (image >= K_PAIRED),
        "rare": ~enough,
        "cross-modal": cross,
    }
    chosen: Array = np.select(
        list(conditions.values()), [VERDICTS.index(v) for v in conditions], VERDICTS.index("unpaired")
    )
    return chosen
