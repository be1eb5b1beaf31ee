"""What decides a feature's verdict, one of `schema.VERDICTS`.

A feature is `cross-modal` where all of this holds: it fires on both sides of the same pair far more often than with
captions exchanged (`strong`: beyond chance, with a lift of 3 or more, see pair_evidence.py); this also holds with the
texts run without their images; and the 95 % interval of ω's lift lies above 0, where ω could be computed.
"""

import numpy as np

from precompute.steps.evidence.pair_evidence import PairEvidence
from precompute.steps.omega import K_PAIRED
from precompute.store.schema import IMAGE, TEXT, VERDICTS
from precompute.utils.types import Array


def give_verdicts(count_fm: Array, pairs: PairEvidence, lift_low: Array) -> Array:
    """Index into VERDICTS per feature, the first that fits (METHOD *Pair evidence*).

    Args:
        count_fm: active tokens of D per modality, int64 [F, 2].
        pairs: how often features fire on both sides of one pair, against chance.
        lift_low: lower end of ω's lift, float64 [F]; NaN where D_s has too few samples, which then decides nothing.

    Returns:
        int64 [F].
    """
    evidence, of_text_alone = pairs.evidence, pairs.of_text_alone
    text, image = (pairs.samples_fm[:, m] >= K_PAIRED for m in (TEXT, IMAGE))
    in_context = evidence.is_strong & ~(lift_low <= 0)
    conditions = {
        "dead": count_fm.sum(1) == 0,
        "text-only": count_fm[:, IMAGE] == 0,
        "image-only": count_fm[:, TEXT] == 0,
        "mostly-text": text & ~image,
        "mostly-image": image & ~text,
        "rare": ~text & ~image,
        "cross-modal": in_context & (True if of_text_alone is None else of_text_alone.is_strong),
        "in-context": in_context,
        "weakly-paired": evidence.beyond_chance,
    }
    verdict_f: Array = np.select(
        list(conditions.values()), [VERDICTS.index(v) for v in conditions], VERDICTS.index("unpaired")
    )
    return verdict_f
