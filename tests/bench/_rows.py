"""One command over made-up rows, in a process of its own: seconds and memory of each part, as a line of JSON.

python -m tests.bench._rows precompute|prepare|train DATA MODEL SAE OUT
python -m tests.bench._rows score DATA MODEL SAE OUT STORE
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from precompute.collect import merge
from precompute.options.precompute import PrecomputeOptions
from precompute.options.score import ScoreOptions
from precompute.options.train import TrainOptions
from precompute.pipeline import Pipeline
from precompute.scoring import new_data
from precompute.training import train
from precompute.utils import memory
from precompute.utils.ownership import creating
from tests.bench._recorded import Recorded, RecordedSession

DS, TRAIN_STEPS = 200, 20


class Parts:
    """Seconds, and bytes resident at most and at the end, of each part; beyond what was resident before the first."""

    def __init__(self) -> None:
        self.base = memory.resident()
        self.parts: dict[str, dict[str, float]] = {}
        self.open: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measures what is done inside; the part around it, if there is one, is measured without it."""
        self._peak()
        self.open.append(name)
        self.parts.setdefault(name, {"seconds": 0.0, "peak": 0.0, "resident": 0.0})
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begin
            self._peak()
            memory.give_back()
            self.open.pop()
            self.parts[name]["seconds"] += seconds
            self.parts[name]["resident"] = memory.resident() - self.base
            if self.open:
                self.parts[self.open[-1]]["seconds"] -= seconds

    def _peak(self) -> None:
        """Counts the peak until now for the part that is open, and begins it again."""
        if self.open:
            own = self.parts[self.open[-1]]
            own["peak"] = max(own["peak"], memory.peak() - self.base)
        memory.reset_peak()

    def report(self) -> dict[str, Any]:
        return {"base": self.base, "parts": self.parts}


class MeasuredPipeline(Pipeline):
    """Measures each step where the pipeline times it."""

    parts: Parts

    @contextmanager
    def record_time(self, step: str) -> Iterator[None]:
        with self.parts.part(step), super().record_time(step):
            yield


def precompute(data: str, model: str, sae: str, out: Path, *, prepare_only: bool) -> Parts:
    options = PrecomputeOptions(data=data, model=model, sae=sae, out=out, device="cpu", ds=DS)
    with creating(out):
        session = RecordedSession(options)
        pipeline = MeasuredPipeline(options, session)
        _ = session.sae, session.mllm
        parts = pipeline.parts = Parts()
        with parts.part("read"):
            _ = session.rows
        with parts.part("fingerprint"):
            pipeline.fingerprint()
        with parts.part("plan"):
            _ = session.data_and_plan
        if not prepare_only:
            own = merge.merge

            def measured_merge(*arguments: Any) -> dict[str, Any]:
                with parts.part("merge"):
                    return own(*arguments)

            with patch.object(merge, "merge", measured_merge):
                pipeline.run_all()
    return parts


def score(data: str, model: str, sae: str, out: Path, store: Path) -> Parts:
    options = ScoreOptions(data=data, model=model, sae=sae, out=out, store=store, device="cpu")
    parts = Parts()
    with parts.part("score"), patch.object(new_data, "Collector", Recorded):
        new_data.score_data(options)
    return parts


def train_sae(data: str, model: str, out: Path) -> Parts:
    options = TrainOptions(data=data, model=model, layer=2, out=out, device="cpu", steps=TRAIN_STEPS, batch_size=256,
                           buffer_tokens=4096, expansion=4)  # fmt: skip
    parts = Parts()
    with parts.part("train"):
        train.train(options)
    return parts


def measured(what: str, data: str, model: str, sae: str, out: str, *more: str) -> dict[str, Any]:
    """What the command took."""
    if what == "train":
        parts = train_sae(data, model, Path(out))
    elif what == "score":
        parts = score(data, model, sae, Path(out), Path(more[0]))
    else:
        parts = precompute(data, model, sae, Path(out), prepare_only=what == "prepare")
    return {**parts.report(), "n_recorded": Recorded.n_recorded}


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
