"""Step `collect`: the one pass over the data. Forward to layer L, encode, keep what is active.

A shard's file appears whole or not at all, so a killed run continues behind the last one. merge.py puts the
shards together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from precompute.collect.accumulators import Accumulator
from precompute.collect.entries import by_sample
from precompute.collect.shard import SHARDS, Sample, Shard, pair_events, shard_path, split, sums_of, write_shard
from precompute.data import Data, RejectedRow, Row, none_left, write_thumbnail
from precompute.data.batches import PRELUDE, Plan
from precompute.errors import SaevxError
from precompute.model.loader import ahead, behind, decode, no_finite
from precompute.model.mllm import IMAGE, TEXT, Batch, Mllm
from precompute.sae.encode import CHUNK_ELEMENTS, Scale, encode_batch, largest_activation
from precompute.sae.sae import SaeV, average_factor
from precompute.utils import memory
from precompute.utils.files import write_text
from precompute.utils.progress import progress_bar
from precompute.utils.types import Array

THUMBS, PRELUDE_FILE = "thumbs", "prelude.json"
CHUNK_BYTES = 4 * CHUNK_ELEMENTS


@dataclass
class Clock:
    """Seconds of the pass and of the model's forward inside it, for run.json."""

    forward: float = 0.0
    wall: float = 0.0
    tokens: int = 0
    prelude_samples: int = 0


@dataclass
class Loaded:
    """A batch that came through decoding."""

    rows: list[Row]
    batch: Batch | None
    """None when every row of it was set aside."""
    pictures: list[list[dict[str, Any]]]
    """Per row and image: width, height, sha256."""
    rejected_rows: list[RejectedRow]
    ends_batch: bool
    """False where another part of the same planned batch follows."""
    hidden: Tensor | None = None
    """Already computed by the prelude."""
    nll_b: Array | None = None


@dataclass
class Collector:
    """The pass over one plan."""

    mllm: Mllm
    sae: SaeV
    data: Data
    plan: Plan
    part: Path
    seed: int
    nll: bool = False
    sink_multiple: float | None = 4.0
    clock: Clock = field(default_factory=Clock)

    @property
    def overlaps(self) -> bool:
        """Whether a shard is written while the next is computed: a CPU that computes it has no time to spare."""
        return self.mllm.device.type != "cpu"

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [i for i in range(len(self.plan.shards)) if not shard_path(self.part, i).exists()]

    def run(
        self, numbers: Sequence[int] | None = None, *, quiet: bool = False, wait: bool = False
    ) -> dict[str, Any]:
        """Every shard, or of those named, that is not there yet. Returns the prelude's findings: `scale_log2`,
        `sinks`, `input_factor`.

        Args:
            wait: another process has shard 0, and with it the prelude."""
        begin = time.monotonic()
        folder = self.part / SHARDS
        folder.mkdir(parents=True, exist_ok=True)
        todo = [i for i in self.missing() if numbers is None or i in numbers]
        n_samples = sum(len(batch) for batch in self.plan.batches)
        left = sum(len(self.plan.batches[b]) for i in todo for b in self.plan.shards[i])
        if todo:
            batches = [b for i in todo for b in self.plan.shards[i]]
            if todo[0] == 0 and not prelude_path(self.part).exists():  # its samples may reach beyond the shards
                batches += range(batches[-1] + 1, len(self.plan.batches))
            loaded = self.ahead(batches)
            if wait and todo[0] != 0:
                loaded = self.waited(loaded)
            found, loaded = self.prelude(loaded, fresh=todo[0] == 0)
            scale = Scale.of(found)
            bar = progress_bar("collect", n_samples, "samples", n_samples - left, quiet=quiet)
            with bar as progress, behind(self.overlaps) as later:
                for i in todo:
                    later(partial(self.write, i, self.shard(i, loaded, scale, progress)))
            loaded.close()
            memory.give_back()
        else:
            found = self.known()
        self.clock.wall += time.monotonic() - begin
        return dict(found)

    # ---- images and tokens, ahead of the model

    def ahead(self, batches: Sequence[int]) -> Generator[Loaded]:
        """Batches in order, decoded by a thread of their own while the model computes."""
        planned = ahead(lambda b: self.load([self.data.rows[i] for i in self.plan.batches[b]]), batches, wait=True)
        try:
            for parts in planned:
                yield from parts
        finally:
            planned.close()

    def load(self, rows: list[Row]) -> list[Loaded]:
        """Decode, tokenise, write thumbnails. One batch, or the parts in which the processor takes it."""
        decoded, parts = decode(self.mllm, rows), []
        for one in decoded:
            for row, pictures in zip(one.rows, one.pictures, strict=True):
                for i, picture in enumerate(pictures):
                    thumb = thumb_path(self.part, row.index, i)
                    thumb.parent.mkdir(parents=True, exist_ok=True)
                    write_thumbnail(picture.image, thumb)
            facts = [
                [{"width": p.image.width, "height": p.image.height, "sha256": p.sha256} for p in pictures]
                for pictures in one.pictures
            ]
            parts.append(Loaded(one.rows, one.batch, facts, one.rejected_rows, one is decoded[-1]))
        return parts

    # ---- the model

    def forward(self, loaded: Loaded) -> Tensor:
        """h [b, s, d], computed once."""
        assert loaded.batch is not None
        if loaded.hidden is None:
            begin = time.monotonic()
            if self.nll:
                loaded.hidden, loaded.nll_b = self.mllm.hidden_and_nll(loaded.batch, quick=True)
            else:
                loaded.hidden = self.mllm.hidden(loaded.batch)
            if loaded.hidden.device.type == "cuda":
                torch.cuda.synchronize(loaded.hidden.device)
            self.clock.forward += time.monotonic() - begin
            self.clock.tokens += int(loaded.batch.length_b.sum())
        return loaded.hidden

    def known(self) -> dict[str, Any]:
        """The findings of an earlier prelude, by which the SAE is scaled."""
        found: dict[str, Any] = json.loads(prelude_path(self.part).read_text())
        self.sae.scale_as(found)
        return found

    def prelude(self, loaded: Generator[Loaded], *, fresh: bool) -> tuple[dict[str, Any], Generator[Loaded]]:
        """What one pass cannot know, from the first 64 planned samples: median norm per modality, the factor by
        which an SAE wants its inputs scaled and does not say, and the power of two that puts the largest z in
        [16, 32) (METHOD, *Notation*). Its forward passes are not repeated."""
        path = prelude_path(self.part)
        if path.exists():
            return self.known(), loaded
        if not fresh:
            raise SaevxError(
                f"{path} is missing from the unfinished store: remove {self.part} and start again."
            )
        held: list[Loaded] = []
        hidden_m: dict[int, list[Tensor]] = {TEXT: [], IMAGE: []}
        n_samples = 0
        for one in loaded:
            held.append(one)
            if one.batch is None:
                continue
            hidden_bsd = self.forward(one)
            for b in range(min(len(one.rows), PRELUDE - n_samples)):
                for modality, found in hidden_m.items():
                    at = torch.from_numpy(np.flatnonzero(one.batch.modality_bs[b] == modality))
                    found.append(hidden_bsd[b, at.to(hidden_bsd.device)].float())
            n_samples += len(one.rows)
            if n_samples >= PRELUDE:
                break
        if not n_samples:
            raise SaevxError(none_left("No sample could be used", [bad for one in held for bad in one.rejected_rows]))
        self.clock.prelude_samples = n_samples
        median: dict[str, float | None] = {}
        counted: list[Tensor] = []
        for modality, name in ((TEXT, "text"), (IMAGE, "image")):
            hidden_td = torch.cat(hidden_m[modality])
            norm_t = hidden_td.norm(dim=-1)
            norm_t = norm_t[torch.isfinite(norm_t)]
            median[name] = float(np.median(norm_t.cpu().numpy())) if len(norm_t) else None
            keep = torch.isfinite(hidden_td).all(dim=-1)
            if self.sink_multiple is not None and median[name] is not None:
                keep &= hidden_td.norm(dim=-1) <= self.sink_multiple * median[name]  # type: ignore[operator]
            counted.append(hidden_td[keep])
        if set(median.values()) == {None} and any(len(hidden_td) for parts in hidden_m.values() for hidden_td in parts):
            raise SaevxError(no_finite(self.mllm.layer))
        if self.sae.lacks_factor:
            self.sae.scale(average_factor(counted))
        largest = max((largest_activation(self.sae, hidden_td) for hidden_td in counted), default=0.0)
        scale = 5 - int(np.frexp(largest)[1]) if largest > 0 else 0  # largest = m · 2^e with m in [½, 1)
        result = {
            "scale_log2": scale,
            "sinks": {"multiple": self.sink_multiple, "median_norm": median},
            "input_factor": self.sae.input_factor,
        }
        write_text(path, json.dumps(result))
        return result, rest(held, loaded)

    def waited(self, loaded: Generator[Loaded]) -> Generator[Loaded]:
        """Waits until the prelude's findings are there; meanwhile the first forward passes are done, of about as many
        samples as the prelude itself holds."""
        held: list[Loaded] = []
        while not prelude_path(self.part).exists():
            full = sum(len(one.rows) for one in held) >= PRELUDE
            one = None if full else next(loaded, None)
            if one is None:
                time.sleep(0.1)
                continue
            held.append(one)
            if one.batch is not None:
                self.forward(one)
        return rest(held, loaded)

    # ---- a shard

    def shard(self, number: int, loaded: Iterator[Loaded], scale: Scale, progress: tqdm) -> Shard:
        """Compute one shard."""
        ds = {self.data.rows[i].index for i in self.plan.ds}
        samples: list[Sample] = []
        rejected_rows: list[RejectedRow] = []
        sums: list[Array] = []
        accumulator = Accumulator(self.sae.n_features, self.seed, self.sae.device)
        n_batches = 0
        while n_batches < len(self.plan.shards[number]):
            one = next(loaded)
            n_batches += one.ends_batch
            rejected_rows += one.rejected_rows
            sum_md = np.zeros((2, self.mllm.d_model))
            if one.batch is not None:
                encoded = encode_batch(self.forward(one), one.batch, self.sae, scale, errors=True)
                good_b = np.array([reason is None for reason in encoded.reason_b])
                for row, reason in zip(one.rows, encoded.reason_b, strict=True):
                    if reason is not None:
                        rejected_rows.append(RejectedRow(row.index, row.sample_id, reason))
                events = pair_events(encoded, one)
                reduced = by_sample(events, self.sae.n_features)
                accumulator.update(events, reduced)
                samples += split(encoded, one, reduced, ds, self.sae.n_features)
                sum_md = sums_of(encoded, good_b)
                del encoded, events, reduced  # nothing of a batch but its samples stands beside the next
            sums.append(sum_md)
            progress.update(len(one.rows) + len(one.rejected_rows))
            del one
        samples.sort(key=lambda sample: sample.index)
        return Shard(samples, rejected_rows, np.array(sums), accumulator.accum())

    def write(self, number: int, shard: Shard) -> None:
        """Write a shard, and let go of it."""
        write_shard(self.part, number, shard, n_features=self.sae.n_features, d_model=self.mllm.d_model)
        shard.samples.clear()
        memory.give_back()


def rest(held: list[Loaded], loaded: Generator[Loaded]) -> Generator[Loaded]:
    """What was looked at already, each let go of as it is taken, then the others."""
    while held:
        yield held.pop(0)
    yield from loaded


def prelude_path(part: Path) -> Path:
    return part / PRELUDE_FILE


def thumb_path(part: Path, index: int, image: int) -> Path:
    return part / THUMBS / str(index // 1000) / f"{index}_{image}.webp"
