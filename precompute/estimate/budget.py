"""What a run will take, and whether some store fits --max-store-gb."""

import time
from typing import NamedTuple, cast

import torch

from precompute.collect.session import Session
from precompute.errors import SaevxError
from precompute.estimate.growth import Estimate, Width, estimate_run, widen
from precompute.estimate.trial import SECONDS, measure_trial_run, measure_trials
from precompute.options.precompute import PrecomputeOptions
from precompute.sae.subset import every_kth_feature, sae_subset
from precompute.store.making import trim
from precompute.store.making.unfinished import Collected
from precompute.utils import memory
from precompute.utils.progress import human, say

NARROWER = 4
"""Of a narrowed SAE, every so many features are tried alone too."""


class Budget(NamedTuple):
    """An estimate, with what it was made from."""

    estimate: Estimate
    n_rows: int
    device: str
    stride: int
    """Of the features that were tried."""
    resident: int
    """Bytes resident with model and SAE loaded."""

    def text(self, o: PrecomputeOptions) -> str:
        """A few lines for a person."""
        e, remarks = self.estimate, []
        try:
            choice = trim.choose(o.events, o.max_store_gb, e.bytes_with)
        except SaevxError as error:
            choice, remarks = o.events or "none", [str(error)]
        total = memory.total()
        if e.memory > total:
            clause = f"the SAE alone takes {human(e.sae)}" if e.sae > total else f"this run takes {human(e.memory)}"
            remarks.append(
                f"This machine has {human(total)} of memory in all, and {clause}: take a smaller SAE or a larger "
                "machine."
            )
        parts = {**e.bytes, "events": e.bytes["events"] - (e.bytes_with["all"] - e.bytes_with[choice])}
        n_samples, n_tokens, n_events = (e.counts[name] for name in ("samples", "tokens", "events"))
        lines = [
            f"{n_samples:.0f} samples of {self.n_rows} rows, about {n_tokens:.0f} tokens, {n_events:.0f} events "
            f"({n_events / max(n_tokens, 1):.1f} features a token)",
            f"time    {clock(e.total)}: " + ", ".join(f"{name} {clock(s)}" for name, s in e.seconds.items()),
            f"memory  {human(e.memory)} at most, {human(self.resident)} of it with model and SAE loaded, on "
            f"{self.device}",
            f"disk    {human(e.bytes_with[choice])} for the store with --events {choice}: "
            + ", ".join(f"{name} {human(n)}" for name, n in parts.items()),
            "        "
            + ", ".join(f"--events {name} {human(e.bytes_with[name])}" for name in trim.EVENT_CHOICES)
            + f"; {human(e.scratch)} more while it is made",
        ]
        if self.stride > 1:
            n_tried = -(-e.n_features // self.stride)
            lines.append(f"        tried with one of every {self.stride} features: {n_tried} of {e.n_features}")
        if torch.cuda.is_available() and self.device.startswith("cuda"):
            lines.append(f"GPU     {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most so far")
        return "\n".join([*lines, *remarks])


def clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def estimate(options: PrecomputeOptions, seconds: float = SECONDS) -> tuple[Budget, Session]:
    """Time, memory and bytes, from every step run for real on a few samples.

    Args:
        seconds: how long the model is run in the largest trial, about.

    Returns:
        the estimate, and a session with the model and the data of the trials.
    """
    o = options
    sae, stride, n_features = sae_subset(o.sae, o.layer, o.device, o.sae_format)
    session = Session(o, sae=sae)
    data, plan = session.data_and_plan
    start, resident = time.time() - memory.process_start(), memory.resident()
    trials = measure_trials(session, seconds)
    if stride > 1:
        narrow_session = session.with_sae(every_kth_feature(sae, NARROWER))
        share = narrow_session.sae.n_features / sae.n_features
        trials = [
            widen(trial, measure_trial_run(narrow_session, int(trial.n_samples)), share, stride) for trial in trials
        ]
    width = Width(n_features, sae.n_features, session.mllm.d_model)
    result = estimate_run(trials, plan, width, ds=o.ds, start=start)
    return Budget(result, data.n_rows, str(session.mllm.device), stride, resident), session.with_sae(None)


def check(options: PrecomputeOptions) -> tuple[Estimate, Session]:
    """Before the pass: whether some store, or the one that the options name, is estimated to fit.

    Raises:
        SaevxError: it is not.
    """
    budget, session = estimate(options)
    choice = trim.choose(options.events, options.max_store_gb, budget.estimate.bytes_with)
    say(f"events: {choice}, as estimated")
    return budget.estimate, session


def check_again(options: PrecomputeOptions, estimate: Estimate, data: Collected) -> None:
    """After the pass, when the events are known: whether some store, or the one that the options name, still fits.

    Raises:
        SaevxError: it does not; the pass is not lost.
    """
    all_bytes, example_bytes, min_bytes = (estimate.bytes_with[choice] for choice in ("all", "examples", "none"))
    events = trim.event_bytes(data.events, None)
    share = (example_bytes - min_bytes) / max(all_bytes - min_bytes, 1)
    growth = events - (all_bytes - min_bytes)
    sizes = {"all": all_bytes + growth, "examples": example_bytes + growth * share, "none": min_bytes}
    trim.choose(options.events, options.max_store_gb, cast("dict[trim.EventChoice, float]", sizes))
