"""Step `collect`: the one pass over the data. Forward to layer L, encode, keep what is active.

A shard's file appears whole or not at all, so a killed run continues behind the last one. merge.py puts the
shards together.
"""

import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from precompute.collect import captions
from precompute.collect.accumulators import Accumulator
from precompute.collect.entries import by_sample
from precompute.collect.shard import (
    SHARDS,
    Maxima,
    Sample,
    Shard,
    alone_maxima,
    feature_type,
    pair_events,
    place_errors_of,
    samples_of,
    shard_path,
    sums_of,
    write_shard,
)
from precompute.data.batches import CALIBRATION_SAMPLES, Plan
from precompute.data.images import DecodedImage, write_thumbnail
from precompute.data.records import Data, RejectedRow, Row
from precompute.errors import SaevxError
from precompute.model.calibration import average_factor, calibrate
from precompute.model.loader import LoadedBatch, load_batch, prefetch, write_in_background
from precompute.model.mllm import Mllm
from precompute.sae.encode import Scale, encode_batch, largest_activation
from precompute.sae.sae import SaeV
from precompute.store.schema import PLACE_SIDE
from precompute.utils import memory
from precompute.utils.files import write_text
from precompute.utils.progress import progress_bar
from precompute.utils.types import Array

THUMBS, CALIBRATION_FILE = "thumbs", "calibration.json"


@dataclass
class Clock:
    """Seconds of the pass and of the model's forward inside it, for run.json."""

    forward: float = 0.0
    wall: float = 0.0
    tokens: int = 0
    alone: float = 0.0
    """Of the texts without their images, apart from the others."""
    alone_tokens: int = 0
    calibration_samples: int = 0

    def add(self, other: Self) -> None:
        """What another process ran; not its time by the wall."""
        for name in ("forward", "tokens", "alone", "alone_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Collector:
    """The pass over one plan: `run` writes the file of each shard that is not there yet."""

    mllm: Mllm
    sae: SaeV
    data: Data
    plan: Plan
    part: Path
    seed: int
    nll: bool = False
    sink_multiple: float | None = 4.0
    calibrates_nll: bool = False
    """With `nll`, whether some captions are also read beside others' images."""
    text_alone: bool = False
    """Whether the SAE reads each text without its image too."""
    clock: Clock = field(default_factory=Clock)

    @cached_property
    def exchanged_rows(self) -> dict[int, Row]:
        """Of some pairs, by index, the one whose caption is read beside their image."""
        return captions.exchanged_captions(self.data, self.plan, self.seed) if self.calibrates_nll else {}

    @property
    def overlaps(self) -> bool:
        """Whether a shard is written while the next is computed: a CPU that computes it has no time to spare."""
        return self.mllm.device.type != "cpu"

    @property
    def shards_in_memory(self) -> int:
        """How often a shard's samples stand in memory: as they are collected, as one array each for the file, and those
        of the next shard where it is computed meanwhile."""
        return 3 if self.overlaps else 2

    def missing_shards(self) -> list[int]:
        """Shards that are not there yet."""
        return [i for i in range(len(self.plan.shards)) if not shard_path(self.part, i).exists()]

    def run(self, numbers: Sequence[int] | None = None, *, quiet: bool = False, wait: bool = False) -> dict[str, Any]:
        """Write every shard that is not there yet, or those of `numbers` that are not. Returns the manifest's
        `scale_log2`, `sinks` and `input_factor`.

        Args:
            wait: another process has shard 0, and with it the calibration."""
        begin = time.monotonic()
        folder = self.part / SHARDS
        folder.mkdir(parents=True, exist_ok=True)
        todo = [i for i in self.missing_shards() if numbers is None or i in numbers]
        n_samples = sum(len(batch) for batch in self.plan.batches)
        left = sum(len(self.plan.batches[b]) for i in todo for b in self.plan.shards[i])
        if todo:
            batches = [b for i in todo for b in self.plan.shards[i]]
            if todo[0] == 0 and not calibration_path(self.part).exists():  # its samples may reach beyond the shards
                batches += range(batches[-1] + 1, len(self.plan.batches))
            with closing(self.planned_batches(batches)) as loaded_batches:  # ends its thread, also where a shard fails
                waits = wait and todo[0] != 0
                batches_left = self.wait_for_calibration(loaded_batches) if waits else loaded_batches
                calibration, batches_left = self.calibration(batches_left, first=todo[0] == 0)
                scale = Scale.from_manifest(calibration)
                bar = progress_bar("collect", n_samples, "samples", n_samples - left, quiet=quiet)
                with bar as progress, write_in_background(self.overlaps) as later:
                    for i in todo:
                        later(partial(self.write, i, self.shard(i, batches_left, scale, progress)))
            memory.give_back()
        else:
            calibration = self.saved_calibration()
        self.clock.wall += time.monotonic() - begin
        return dict(calibration)

    # ---- images and tokens, ahead of the model

    def planned_batches(self, numbers: Sequence[int]) -> Generator[LoadedBatch]:
        """Planned batches in order, decoded by a thread of their own while the model computes."""
        rows = ([self.data.rows[i] for i in self.plan.batches[b]] for b in numbers)
        groups = prefetch(self.load, rows, wait=True)
        try:
            for parts in groups:
                yield from parts
        finally:
            groups.close()

    def load(self, rows: list[Row]) -> list[LoadedBatch]:
        """Decode, tokenise, write thumbnails. One batch, or the parts in which the processor takes it."""

        images: dict[int, list[Image]] = {}

        def save_thumbnail(row: Row, number: int, image: DecodedImage) -> None:
            if row.index in self.exchanged_rows:
                images.setdefault(row.index, []).append(image.image)
            path = thumb_path(self.part, row.index, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_thumbnail(image.image, path)

        batches = load_batch(self.mllm, rows, save_thumbnail)
        if self.nll:
            captions.prepare(self.mllm, batches, images, self.exchanged_rows)
        elif self.text_alone:
            for batch in batches:
                batch.prepare_alone(self.mllm)
        return batches

    # ---- the model

    def forward(self, batch: LoadedBatch) -> Tensor:
        """h [b, s, d], computed once."""
        assert batch.batch is not None
        if batch.hidden is None:
            begin = time.monotonic()
            if self.nll:
                batch.hidden = captions.measure(self.mllm, batch)
            else:
                batch.hidden = self.mllm.hidden(batch.batch)
            if batch.hidden.device.type == "cuda":
                torch.cuda.synchronize(batch.hidden.device)
            self.clock.forward += time.monotonic() - begin
            self.clock.tokens += int(batch.batch.length_b.sum())
        return batch.hidden

    def maxima_alone(self, batch: LoadedBatch, scale: Scale) -> dict[int, Maxima]:
        """By place in the batch, the largest value of each feature on a text that is run without its image."""
        if batch.alone is None or not self.text_alone:
            return {}
        begin = time.monotonic()
        hidden_bsd = self.mllm.hidden(batch.alone) if batch.alone_hidden is None else batch.alone_hidden
        encoded_batch = encode_batch(hidden_bsd, batch.alone, self.sae, scale)
        self.clock.alone += time.monotonic() - begin
        self.clock.alone_tokens += int(batch.alone.length_b.sum())
        return alone_maxima(encoded_batch, batch.alone_members, feature_type(self.sae.n_features))

    def saved_calibration(self) -> dict[str, Any]:
        """The calibration of an earlier run, by which the SAE is scaled."""
        content: dict[str, Any] = json.loads(calibration_path(self.part).read_text())
        self.sae.fold_factor_of_store(content)
        return content

    def calibration(
        self, batches: Generator[LoadedBatch], *, first: bool
    ) -> tuple[dict[str, Any], Generator[LoadedBatch]]:
        """What one pass cannot know, from the first 64 planned samples: median norm per modality, the factor by
        which an SAE wants its inputs scaled and does not say, and the power of two that puts the largest z in
        [16, 32) (METHOD, *Notation*).

        Args:
            first: whether the batches begin with the first planned one.

        Returns:
            the manifest's `scale_log2`, `sinks` and `input_factor`; and the batches, whose forward passes are not
            repeated.
        """
        path = calibration_path(self.part)
        if path.exists():
            return self.saved_calibration(), batches
        if not first:
            raise SaevxError(f"{path} is missing from the unfinished store: remove {self.part} and start again.")
        first_batches: list[LoadedBatch] = []
        calibration_batches = record_batches(first_batches, batches)
        calibration = calibrate(calibration_batches, self.forward, self.sink_multiple, self.mllm.layer)
        self.clock.calibration_samples = calibration.n_samples
        if self.sae.lacks_factor:
            self.sae.fold_input_factor(average_factor(calibration.counted))
        max_z = max((largest_activation(self.sae, hidden_td) for hidden_td in calibration.counted), default=0.0)
        scale = 5 - int(np.frexp(max_z)[1]) if max_z > 0 else 0  # max_z = m · 2^e with m in [½, 1)
        result = {
            "scale_log2": scale,
            "sinks": {"multiple": self.sink_multiple, "median_norm": calibration.median_norm},
            "input_factor": self.sae.input_factor,
        }
        write_text(path, json.dumps(result))
        return result, replay_batches(first_batches, batches)

    def wait_for_calibration(self, batches: Generator[LoadedBatch]) -> Generator[LoadedBatch]:
        """Waits until another process has written the calibration. Meanwhile the first forward passes are done, of
        about as many samples as the calibration itself needs."""
        first_batches: list[LoadedBatch] = []
        while not calibration_path(self.part).exists():
            is_enough = sum(len(batch.rows) for batch in first_batches) >= CALIBRATION_SAMPLES
            batch = None if is_enough else next(batches, None)
            if batch is None:
                time.sleep(0.1)
                continue
            first_batches.append(batch)
            if batch.batch is not None:
                self.forward(batch)
        return replay_batches(first_batches, batches)

    # ---- a shard

    def shard(self, number: int, batches: Iterator[LoadedBatch], scale: Scale, progress: tqdm) -> Shard:
        ds = {self.data.rows[i].index for i in self.plan.ds}
        samples: list[Sample] = []
        rejected_rows: list[RejectedRow] = []
        sums: list[Array] = []
        place_errors: list[Array] = []
        accumulator = Accumulator(self.sae.n_features, self.seed, self.sae.device)
        n_batches = 0
        while n_batches < len(self.plan.shards[number]):
            batch = next(batches)
            n_batches += batch.ends_batch
            rejected_rows += batch.rejected_rows
            sum_md, error_c = np.zeros((2, self.mllm.d_model)), np.zeros(PLACE_SIDE**2)
            if batch.batch is not None:
                encoded_batch = encode_batch(self.forward(batch), batch.batch, self.sae, scale, errors=True)
                good_b = np.array([reason is None for reason in encoded_batch.reason_b])
                for row, reason in zip(batch.rows, encoded_batch.reason_b, strict=True):
                    if reason is not None:
                        rejected_rows.append(RejectedRow(row.index, row.sample_id, reason))
                events = pair_events(encoded_batch, batch)
                of_samples = by_sample(events, self.sae.n_features)
                accumulator.update(events, of_samples)
                alone_of = self.maxima_alone(batch, scale)
                samples += samples_of(encoded_batch, batch, of_samples, ds, self.sae.n_features, alone_of)
                sum_md, error_c = sums_of(encoded_batch, good_b), place_errors_of(encoded_batch, batch, good_b)
                del encoded_batch, events, of_samples  # before the next batch is computed, only its samples are left
            sums.append(sum_md)
            place_errors.append(error_c)
            progress.update(len(batch.rows) + len(batch.rejected_rows))
            del batch
        samples.sort(key=lambda sample: sample.index)
        return Shard(samples, rejected_rows, np.array(sums), np.array(place_errors), accumulator.accum())

    def write(self, number: int, shard: Shard) -> None:
        """Write a shard, and let go of it."""
        write_shard(self.part, number, shard, n_features=self.sae.n_features, d_model=self.mllm.d_model)
        shard.samples.clear()
        memory.give_back()


def record_batches(first_batches: list[LoadedBatch], batches: Iterable[LoadedBatch]) -> Iterator[LoadedBatch]:
    """The batches, each also appended to `first_batches`, for `replay_batches`."""
    for batch in batches:
        first_batches.append(batch)
        yield batch


def replay_batches(first_batches: list[LoadedBatch], batches: Generator[LoadedBatch]) -> Generator[LoadedBatch]:
    """The batches of `first_batches`, each let go of there as it is yielded, then those that are left in `batches`."""
    while first_batches:
        yield first_batches.pop(0)
    yield from batches


def calibration_path(part: Path) -> Path:
    return part / CALIBRATION_FILE


def thumb_path(part: Path, index: int, image: int) -> Path:
    return part / THUMBS / str(index // 1000) / f"{index}_{image}.webp"
