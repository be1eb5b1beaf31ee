"""The pass beyond the forward against the way of the paper's code (naive.py), on the same residuals: same ω."""

from typing import Any

import numpy as np

from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.sae.encode import Scale, encode_batch
from precompute.steps import weigh
from precompute.steps.omega import K_PAIRED
from precompute.store.making.unfinished import Collected, load_step
from tests.bench import naive
from tests.bench.collect import Known, Ready, demo_pairs
from tests.bench.common import Figure, Setup, alternately, ratio

SAMPLES, ROUNDS, SAME = 200, 3, 1e-5


def run(setup: Setup) -> dict[str, Any]:
    n, rounds = (40, 1) if setup.small else (SAMPLES, ROUNDS)
    mllm, sae, data, plan = demo_pairs(setup, n)
    part = setup.scratch / "part"
    decoder = Collector(mllm, sae, data, plan, part, 0)
    batches = {i: decoder.load([data.rows[at] for at in batch]) for i, batch in enumerate(plan.batches)}
    job = Ready(mllm, sae, data, plan, part, 0)
    job.batches = batches
    manifest = {**job.run(), **merge.merge(job, n), "sae": {"n_features": sae.n_features}}
    options = {"directions": lambda: sae.directions_fd.numpy(), "resamples": 1000}
    weigh.run(part, manifest, options)
    result = load_step(part, "weigh")
    scale, unit = Scale.from_manifest(manifest), Collected(part, manifest).unit

    # What both are given: every sample's h, computed beforehand in the same batches.
    by_row = {}
    loaded = [(one, one.batch) for parts in batches.values() for one in parts if one.batch is not None]
    for one, batch in loaded:
        one.hidden = hidden_bsd = mllm.hidden(batch)
        for b, row in enumerate(one.rows):
            length = int(batch.length_b[b])
            by_row[row.index] = (hidden_bsd[b, :length], batch.modality_bs[b, :length])
    hidden, modality = (list(side) for side in zip(*(by_row[i] for i in sorted(by_row)), strict=True))
    omegas: dict[str, Any] = {}

    def paper() -> None:
        omegas["paper"] = naive.omega(naive.tokens(sae, hidden, modality, scale), result["delta"], unit, K_PAIRED)

    def ours() -> None:
        for path in (part / "shards").glob("*"):
            path.unlink()
        again = Known(mllm, sae, data, plan, part, 0)
        again.batches = batches
        again.run()
        merge.merge(again, n)
        weigh.run(part, manifest, options)
        omegas["ours"] = load_step(part, "weigh")["omega"]

    def encoder() -> None:
        for one, batch in loaded:
            assert one.hidden is not None
            encode_batch(one.hidden, batch, sae, scale)

    seconds = alternately({"paper": paper, "ours": ours, "encoder": encoder}, rounds)
    paper_f, ours_f = omegas["paper"], omegas["ours"]
    either = ~(np.isnan(paper_f) & np.isnan(ours_f))
    differ = either & ~(np.abs(paper_f - ours_f) <= SAME)
    figures = compared(n, seconds, int(either.sum()), int(differ.sum()))
    return {"options": {"samples": n, "resamples": 1000, "rounds": rounds}, "figures": figures, "seconds": seconds}


def compared(n: int, seconds: dict[str, list[float]], n_either: int, n_differ: int) -> list[Figure]:
    """The ratio of both times, and the share of the features whose ω differs."""
    return [
        {
            "what": "the paper's way over the pass, both beyond the forward",
            "value": ratio(seconds["paper"], seconds["ours"]), "unit": "×", "goal": 50.0, "sense": "≥",
            "note": f"{n} pairs; ours with everything else the pass stores, all controls of ω, on disk; "
            f"{np.median(seconds['encoder']):.2f} s of its {np.median(seconds['ours']):.2f} s are the encoder",
        },
        {
            "what": "share of the features whose ω differs between the two",
            "value": n_differ / max(n_either, 1), "unit": "", "goal": 0.01, "sense": "≤",
            "note": f"by more than {SAME:g}, of {n_either}; a product of one token alone rounds otherwise "
            "than one of many, so a token within rounding of δ, or of another, may fall on the other side",
        },
    ]  # fmt: skip
