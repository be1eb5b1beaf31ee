"""`--dry-run`: what the pass would take, measured on its first planned batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from precompute.accumulate import AT_ONCE
from precompute.collect import CHUNK_BYTES, Collector
from precompute.data import Data
from precompute.encode import Scale, encode_batch
from precompute.errors import SaevxError
from precompute.model import Mllm
from precompute.plan import Plan
from precompute.sae import SaeV, average_factor

BASE = 7e8
"""Python, torch and the other libraries themselves."""
SECONDS = 10.0
"""How long batches are tried; the first warms up and is not counted."""
BYTES_PER_FEATURE, BYTES_PER_SAMPLE, BYTES_PER_TOKEN = 6000, 1500, 13


def forecast(mllm: Mllm, sae: SaeV, data: Data, plan: Plan, *, nll: bool, ds: int) -> str:
    """A few lines for a person: time, memory, disk."""
    tokens = seconds = events = thumbs = samples = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        job = Collector(mllm, sae, data, plan, Path(scratch), 0, nll)
        start = time.monotonic()
        for i, batch in enumerate(plan.batches):
            begin = time.monotonic()
            one = job.load([data.rows[at] for at in batch])
            if one.batch is None:
                continue
            if sae.lacks_factor:
                sae.scale(average_factor([job.forward(one).flatten(0, 1)]))
            encoded = encode_batch(job.forward(one), one.batch, sae, Scale(0, (float("inf"),) * 2), errors=True)
            if i or len(plan.batches) == 1:
                seconds += time.monotonic() - begin
                tokens += float(plan.length_n[batch].sum())
                events += len(encoded.feature_e)
                samples += len(batch)
            if time.monotonic() - start > SECONDS and tokens:
                break
        thumbs = sum(path.stat().st_size for path in Path(scratch).rglob("*.webp"))
        tried = max(1, sum(1 for _ in Path(scratch).rglob("*.webp")))
    if not tokens:
        raise SaevxError("No sample could be tried: see the rows set aside by running without --dry-run.")
    n_tokens, n = float(plan.length_n.sum()), len(data.rows)
    n_events = n_tokens * events / tokens
    width = 2 if sae.n_features <= 65536 else 4
    event_bytes = n_events * (2 + width) + n_tokens * BYTES_PER_TOKEN
    store = event_bytes + sae.n_features * BYTES_PER_FEATURE + n * (BYTES_PER_SAMPLE + 256 * 2 * 4) + n * thumbs / tried
    d_s = np.sort(plan.length_n[plan.ds])[::-1][:ds].sum() * mllm.d_model * 2
    weights = sum(p.numel() * p.element_size() for p in mllm.model.parameters()) + 2 * sae.directions_fd.numel() * 4
    # docs/scale.md, Memory.
    tokens_of = [float(plan.length_n[batch].sum()) for batch in plan.batches]
    shard = max(sum(tokens_of[i] for i in one) for one in plan.shards) * n_events / n_tokens
    accum = sae.n_features * (2 * 256 * 8 + 5000)
    memory = BASE + weights + accum + shard * 2 * (2 + width) + min(shard, AT_ONCE) * 90 + CHUNK_BYTES
    lines = [
        f"{n} samples of {data.n_rows} rows, about {n_tokens:.0f} tokens, {n_events:.0f} events "
        f"({events / tokens:.1f} features a token)",
        f"time    {n_tokens * seconds / tokens / 60:.1f} min for collect at {tokens / seconds:.0f} tokens a second",
        f"memory  {memory / 1e9:.1f} GB ({weights / 1e9:.1f} GB of it model and SAE), on {mllm.device}",
        f"disk    {store / 1e6:.0f} MB for the store, {(event_bytes + 2 * d_s) / 1e6:.0f} MB more while it is made",
    ]
    if torch.cuda.is_available() and mllm.device.type == "cuda":
        lines.append(f"GPU     {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most so far")
    return "\n".join(lines)
