"""What a whole run takes, from trials of a few of its samples (trial.py): nothing here knows what a step does.

Of n, 2n and 4n samples everything is measured, so how it grows is seen, not assumed. A narrowed SAE is tried at two
widths: what the wider one takes more is due to the features, and there are `stride` times as many of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from precompute.data.batches import Plan
from precompute.estimate.trial import Trial
from precompute.steps.sample_map import LAID_OUT
from precompute.store.making.trim import EVENT_CHOICES, EventChoice

BY_TOKENS = {"collect", "merge", "events", "tokens", "tokens and maxima"}
"""Seconds, bytes and counts that grow with the tokens; the others grow with the samples."""


class Estimate(NamedTuple):
    """What a run would take."""

    n_features: int
    counts: dict[str, float]
    """`samples`, `tokens` and `events` of the store."""
    seconds: dict[str, float]
    """Of each step, `start` before them: imports, model, data, plan."""
    memory: float
    """Most bytes resident at any time."""
    sae: float
    """Bytes of its weights in memory."""
    bytes: dict[str, float]
    """Of the store with all events, by part."""
    bytes_with: dict[EventChoice, float]
    """Bytes of the store with each choice of `--events`."""
    scratch: float
    """More bytes on the disk while it is made."""

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())


def curve(x: Sequence[float], y: Sequence[float], target: float) -> float:
    """y at `target`, of an amount that grows as a + b·x^p with p ≤ 1 and never falls: lists fill up.

    Args:
        x: three sizes, rising. y: the amount at each.
    """
    step_1, step_2 = y[1] - y[0], y[2] - y[1]
    if target <= x[2] or step_2 <= 0 or x[0] >= x[1] or x[1] >= x[2]:
        return max(y[2], 0.0)

    def basis(p: float, at: float) -> float:  # x^p up to a and b, and log x at p = 0
        return float(np.log(at / x[2])) if abs(p) < 1e-6 else ((at / x[2]) ** p - 1) / p

    def ratio(p: float) -> float:
        return -basis(p, x[1]) / (basis(p, x[1]) - basis(p, x[0]))

    low, high = -4.0, 1.0
    if step_1 <= 0:  # it has just begun to grow, and does not say how
        low = high = 0.0
    elif step_2 / step_1 >= ratio(high):
        low = high
    elif step_2 / step_1 <= ratio(low):
        high = low
    while high - low > 1e-4:
        p = (low + high) / 2
        low, high = (p, high) if ratio(p) < step_2 / step_1 else (low, p)
    return y[2] + step_2 * basis(low, target) / -basis(low, x[1])


def line(x: Sequence[float], y: Sequence[float], target: float) -> float:
    """y at `target`, of something that grows as a + b·x with a, b ≥ 0, from the last two sizes. The first is a
    process's first run and may have taken longer, which the whole run will too."""
    b = min(max(0.0, (y[2] - y[1]) / (x[2] - x[1])), y[2] / x[2]) if x[2] > x[1] else 0.0
    first_run = max(0.0, y[0] - (y[2] - b * (x[2] - x[0])))
    return max(0.0, y[2] + b * (target - x[2])) + first_run


def widen(trial: Trial, narrow_trial: Trial, share: float, stride: int) -> Trial:
    """A trial as it would be with `stride` times as many features.

    Args:
        narrow_trial: the same samples with a part `share` of the features of `trial`.
    """

    def with_all_features(of_wide: dict[str, float], of_narrow: dict[str, float]) -> dict[str, float]:
        due = {name: max(0.0, y - of_narrow[name]) / (1 - share) for name, y in of_wide.items()}
        return {name: y + (stride - 1) * due[name] for name, y in of_wide.items()}

    shard = with_all_features({"shard": trial.shard}, {"shard": narrow_trial.shard})["shard"]
    seconds, memory, stored_bytes, events, counts = (
        with_all_features(getattr(trial, name), getattr(narrow_trial, name))
        for name in ("seconds", "memory", "bytes", "events", "counts")
    )
    return trial._replace(seconds=seconds, memory=memory, shard=shard, bytes=stored_bytes, events=events, counts=counts)


class Width(NamedTuple):
    """Sizes of the SAE."""

    n_features: int
    n_tried: int
    """Features of the narrowed SAE that was in memory."""
    d_model: int

    def bytes(self, n_features: int) -> float:
        """Of the encoder and the decoder of so many features, float32."""
        return n_features * self.d_model * 4.0 * 2


def estimate_run(trials: Sequence[Trial], plan: Plan, width: Width, *, ds: int, start: float) -> Estimate:
    """The whole run.

    Args:
        trials: of three sizes, the smallest first, as of all features. start: seconds before the first step.
    """
    n_samples, n_tokens = float(len(plan.length_n)), float(plan.length_n.sum())
    samples, tokens = [trial.n_samples for trial in trials], [trial.n_tokens for trial in trials]

    def amounts(field: str) -> dict[str, float]:
        result = {}
        for name in getattr(trials[-1], field):
            x, target = (tokens, n_tokens) if name in BY_TOKENS or field == "events" else (samples, n_samples)
            result[name] = curve(x, [getattr(trial, field)[name] for trial in trials], target)
        return result

    counts, parts, events = amounts("counts"), amounts("bytes"), amounts("events")
    parts["events"] = events["all"] = max(events.values())
    other_bytes = sum(parts.values()) - events["all"]
    seconds = {"start": start}
    bound_of = {"weigh": ds, "sample-map": LAID_OUT}  # ω is computed from D_s alone, and so many samples are laid out
    for name in trials[-1].seconds:
        y = [trial.seconds[name] for trial in trials]
        if name in bound_of:
            seconds[name] = line(samples, y, max(samples[-1], min(n_samples, float(bound_of[name]))))
        else:
            x, target = (tokens, n_tokens) if name in BY_TOKENS else (samples, n_samples)
            seconds[name] = line(x, y, target)
    # A trial is one shard: what the pass takes whatever is in it, each shard takes.
    b = max(0.0, (trials[-1].seconds["collect"] - trials[-2].seconds["collect"]) / max(tokens[-1] - tokens[-2], 1.0))
    seconds["collect"] += (len(plan.shards) - 1) * max(0.0, trials[-1].seconds["collect"] - b * tokens[-1])
    # Steps read the data piece by piece, so their memory does not grow with it; the pass holds a shard.
    shard_tokens = max(plan.length_n[[at for i in shard for at in plan.batches[i]]].sum() for shard in plan.shards)
    shard_growth = trials[-1].shard * max(0.0, float(shard_tokens) / tokens[-1] - 1)
    peaks = {**trials[-1].memory, "collect": trials[-1].memory["collect"] + shard_growth}
    sae, narrow_bytes = width.bytes(width.n_features), width.bytes(width.n_tried)
    return Estimate(
        width.n_features, counts, seconds, trials[-1].resident + sae - narrow_bytes + max(peaks.values()), sae, parts,
        {choice: other_bytes + events[choice] for choice in EVENT_CHOICES}, counts.pop("scratch"),
    )  # fmt: skip
