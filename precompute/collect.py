"""Step `collect`: the one pass over the data. Forward to layer L, encode, keep what is active.

A shard's file appears whole or not at all, so a killed run continues behind the last one. merge.py puts the
shards together.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute import accumulate as acc
from precompute import memory
from precompute.data import BadRow, Data, Row, SetAside, open_picture
from precompute.encode import CHUNK_ELEMENTS, Encoded, Scale, active, encode_batch
from precompute.errors import SaevxError
from precompute.model import IMAGE, TEXT, Batch, Mllm, Pair, first_line
from precompute.plan import PRELUDE, Plan
from precompute.progress import Progress
from precompute.sae import SaeV, average_factor

Array = NDArray[Any]
SHARDS, THUMBS, PRELUDE_FILE = "shards", "thumbs", "prelude.json"
THUMB_PX = 256
CHUNK_BYTES = 4 * CHUNK_ELEMENTS
AHEAD = 2
"""Batches decoded ahead of the model, the one that waits for its place among them."""


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
    set_aside: list[SetAside]
    n_planned: int
    hidden: Tensor | None = None
    """Already computed by the prelude."""
    nll_b: Array | None = None


@dataclass(frozen=True)
class Sample:
    """All that is kept of one sample."""

    index: int
    token_id_t: Array
    modality_t: Array
    count_t: Array
    feature_e: Array
    value_e: Array
    error_m: Array
    """float64 [2] Σ‖h − ĥ‖² by modality."""
    square_m: Array
    """float64 [2] Σ‖h‖²."""
    nll: float
    record: dict[str, Any]
    resid_td: Tensor | None
    """bf16, counted tokens of a member of D_s."""


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
            with Progress("collect", n_samples, "samples", n_samples - left, quiet=quiet) as progress:
                for i in todo:
                    self.shard(i, loaded, scale, progress)
            loaded.close()
            memory.give_back()
        else:
            found = self.known()
        self.clock.wall += time.monotonic() - begin
        return dict(found)

    # ---- images and tokens, ahead of the model

    def ahead(self, batches: Sequence[int]) -> Generator[Loaded]:
        """Batches in order, decoded by a thread of their own while the model computes."""
        ready: queue.Queue[Loaded | BaseException | None] = queue.Queue(maxsize=AHEAD - 1)
        stop = threading.Event()

        def offer(item: Loaded | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for b in batches:
                    if stop.is_set():
                        return
                    offer(self.load([self.data.rows[i] for i in self.plan.batches[b]]))
                offer(None)
            except BaseException as error:  # handed to the consumer, who raises it
                offer(error)

        thread = threading.Thread(target=work, name="decode-ahead", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def load(self, rows: list[Row]) -> Loaded:
        """Decode, write thumbnails, tokenise; whatever fails is set aside."""
        kept: list[Row] = []
        pairs: list[Pair] = []
        pictures: list[list[dict[str, Any]]] = []
        set_aside: list[SetAside] = []
        for row in rows:
            try:
                opened = [open_picture(path) for path in row.images]
            except BadRow as bad:
                set_aside.append(SetAside(row.index, row.sample_id, str(bad)))
                continue
            for i, picture in enumerate(opened):
                thumb = thumb_path(self.part, row.index, i)
                thumb.parent.mkdir(parents=True, exist_ok=True)
                small = picture.image.copy()
                small.thumbnail((THUMB_PX, THUMB_PX))
                small.save(thumb, "WEBP", quality=90, method=2)  # of 0…6: half the time of 4 for 3 % more
            kept.append(row)
            pairs.append(Pair(row.text, [picture.image for picture in opened]))
            pictures.append(
                [{"width": p.image.width, "height": p.image.height, "sha256": p.sha256} for p in opened]
            )
        batch = None
        if pairs:
            try:
                batch = self.mllm.prepare(pairs)
            except Exception as error:  # a processor may choke on one pair in any way
                good = []
                for i, (row, pair) in enumerate(zip(kept, pairs, strict=True)):
                    try:
                        self.mllm.prepare([pair])
                        good.append(i)
                    except Exception as own:
                        reason = f"the model's processor refuses it ({first_line(own)})"
                        set_aside.append(SetAside(row.index, row.sample_id, reason))
                if len(good) == len(kept):
                    raise SaevxError(f"The pairs cannot be prepared together: {first_line(error)}") from error
                kept, pairs = [kept[i] for i in good], [pairs[i] for i in good]
                pictures = [pictures[i] for i in good]
                batch = self.mllm.prepare(pairs) if pairs else None
        return Loaded(kept, batch, pictures, set_aside, len(rows))

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
            reasons = [bad.reason for one in held for bad in one.set_aside]
            raise SaevxError(
                f"No sample could be used; the first: {reasons[0] if reasons else 'there is none'}."
            )
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
        if self.sae.lacks_factor:
            self.sae.scale(average_factor(counted))
        largest = 0.0
        for hidden_td in counted:
            z_e = active(self.sae, hidden_td, Scale(0, (0.0, 0.0))).z_e
            largest = max(largest, float(z_e.max()) if len(z_e) else 0.0)
        scale = 5 - int(np.frexp(largest)[1]) if largest > 0 else 0  # largest = m · 2^e with m in [½, 1)
        result = {
            "scale_log2": scale,
            "sinks": {"multiple": self.sink_multiple, "median_norm": median},
            "input_factor": self.sae.input_factor,
        }
        write_whole(path, json.dumps(result).encode())
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

    def shard(self, number: int, loaded: Iterator[Loaded], scale: Scale, progress: Progress) -> None:
        """Compute and write one shard."""
        ds = {self.data.rows[i].index for i in self.plan.ds}
        samples: list[Sample] = []
        set_aside: list[SetAside] = []
        sums: list[Array] = []
        for _ in self.plan.shards[number]:
            one = next(loaded)
            set_aside += one.set_aside
            sum_md = np.zeros((2, self.mllm.d_model))
            if one.batch is not None:
                encoded = encode_batch(self.forward(one), one.batch, self.sae, scale, errors=True)
                good_b = np.array([reason is None for reason in encoded.reason_b])
                for row, reason in zip(one.rows, encoded.reason_b, strict=True):
                    if reason is not None:
                        set_aside.append(SetAside(row.index, row.sample_id, reason))
                samples += split(encoded, one, ds, feature_type(self.sae.n_features))
                sum_md = sums_of(encoded, good_b)
                del encoded  # nothing of a batch but its samples stands beside the next
            sums.append(sum_md)
            progress.add(one.n_planned)
            del one
        samples.sort(key=lambda sample: sample.index)
        write_shard(self, number, samples, set_aside, np.array(sums))
        samples.clear()
        memory.give_back()


def rest(held: list[Loaded], loaded: Generator[Loaded]) -> Generator[Loaded]:
    """What was looked at already, each let go of as it is taken, then the others."""
    while held:
        yield held.pop(0)
    yield from loaded


def split(encoded: Encoded, one: Loaded, ds: set[int], kind: type[np.integer[Any]] = np.int64) -> Iterator[Sample]:
    """A batch's samples, those set aside left out; features as numbers of the type `kind`."""
    count_t = np.diff(encoded.offset_t)
    for b, (row, pictures) in enumerate(zip(one.rows, one.pictures, strict=True)):
        if encoded.reason_b[b] is not None:
            continue
        t = slice(int(encoded.start_b[b]), int(encoded.start_b[b + 1]))
        e = slice(int(encoded.offset_t[t.start]), int(encoded.offset_t[t.stop]))
        kind_t = encoded.modality_t[t]
        masks = [kind_t == TEXT, kind_t == IMAGE]
        resid_td = None
        if row.index in ds:
            resid_td = encoded.hidden_td[t][torch.from_numpy(kind_t <= IMAGE).to(encoded.hidden_td.device)]
            resid_td = resid_td.to(torch.bfloat16).cpu()
        yield Sample(
            index=row.index,
            token_id_t=encoded.token_id_t[t],
            modality_t=kind_t,
            count_t=count_t[t],
            feature_e=encoded.feature_e[e].astype(kind),
            value_e=encoded.value_e[e],
            error_m=np.array([encoded.error_t[t][mask].sum() for mask in masks]),
            square_m=np.array([np.square(encoded.norm_t[t][mask]).sum() for mask in masks]),
            nll=float("nan") if one.nll_b is None else float(one.nll_b[b]),
            record={
                "index": row.index,
                "images": pictures,
                "views": [list(view) for view in encoded.views[b]],
            },
            resid_td=resid_td,
        )


def sums_of(encoded: Encoded, good_b: Array) -> Array:
    """float64 [2, d]: Σh of the tokens counted, by modality."""
    length_b = np.diff(encoded.start_b)
    kind_t = np.where(np.repeat(good_b, length_b), encoded.modality_t, 255)
    sums = []
    for modality in (TEXT, IMAGE):
        at = torch.from_numpy(np.flatnonzero(kind_t == modality)).to(encoded.hidden_td.device)
        sums.append(encoded.hidden_td[at].float().sum(dim=0, dtype=torch.float64).cpu().numpy())
    return np.stack(sums)


def write_shard(
    job: Collector, number: int, samples: list[Sample], set_aside: list[SetAside], sums: Array
) -> None:
    """One .npz, and D_s's residuals beside it as .npy; in place only when whole."""
    n_features = job.sae.n_features
    running = acc.Running(n_features, job.seed)
    maxima_parts = []
    for some in runs(samples):
        entries, sample_e = entries_of(some)
        running.see(entries)
        maxima_parts.append(
            maxima(sample_e * 2 + (entries.group & 1), entries.group >> 1, entries.value, len(some), n_features)
        )
    accum = running.accum()
    max_n, max_feature, max_value = (np.concatenate(part) for part in zip(*maxima_parts, strict=True))
    kind = feature_type(n_features)
    resid = [(s.index, s.modality_t, s.resid_td) for s in samples if s.resid_td is not None]
    arrays = {
        "index": np.array([s.index for s in samples], dtype=np.int64),
        "n_token": np.array([len(s.token_id_t) for s in samples], dtype=np.int64),
        "token_id": _cat([s.token_id_t for s in samples], np.int32),
        "token_modality": _cat([s.modality_t for s in samples], np.uint8),
        "token_count": _cat([s.count_t for s in samples], np.int32),
        "event_feature": _cat([s.feature_e for s in samples], kind),
        "event_value": _cat([s.value_e for s in samples], np.float16),
        "max_n": max_n,
        "max_feature": max_feature.astype(kind),
        "max_value": max_value,
        "sse": np.array([s.error_m for s in samples]).reshape(-1, 2),
        "sq": np.array([s.square_m for s in samples]).reshape(-1, 2),
        "nll": np.array([s.nll for s in samples], dtype=np.float64),
        "sums": sums,
        "resid_index": _cat([np.full(len(h), i) for i, _, h in resid], np.int64),
        "resid_pos": _cat([np.flatnonzero(kinds <= IMAGE) for _, kinds, _ in resid], np.int32),
        "records": as_bytes([s.record for s in samples]),
        "set_aside": as_bytes([astuple(bad) for bad in set_aside]),
        **{f"accum_{name}": array for name, array in acc.save(accum).items()},
    }
    rows_td = torch.cat([h for _, _, h in resid]) if resid else torch.zeros(0, job.mllm.d_model).bfloat16()
    path = shard_path(job.part, number)
    with resid_path(job.part, number).open("wb") as file:
        np.save(file, rows_td.view(torch.uint16).numpy())
    write_arrays(path, arrays)


def runs(samples: list[Sample]) -> Iterator[list[Sample]]:
    """The samples in runs of about AT_ONCE events; one run at least, if an empty one."""
    some: list[Sample] = []
    n = 0
    for sample in samples:
        some.append(sample)
        n += len(sample.value_e)
        if n >= acc.AT_ONCE:
            yield some
            some, n = [], 0
    if some or not samples:
        yield some


def entries_of(samples: list[Sample]) -> tuple[acc.Entries, Array]:
    """Events of samples, token by token, and which sample of the list [e] each is of."""
    token_n = np.array([len(s.token_id_t) for s in samples], dtype=np.int64)
    count_t = _cat([s.count_t for s in samples], np.int64)
    sample_e = np.repeat(np.repeat(np.arange(len(samples)), token_n), count_t)
    group_e = _cat([s.feature_e for s in samples], np.int64) * 2
    group_e += np.repeat(_cat([s.modality_t for s in samples], np.int64), count_t)
    position_t = _cat([np.arange(n) for n in token_n.tolist()], np.int32)
    index_n = np.array([s.index for s in samples], dtype=np.int64)
    value_e = _cat([s.value_e for s in samples], np.float16)
    return acc.Entries(group_e, value_e, index_n[sample_e], np.repeat(position_t, count_t)), sample_e


def maxima(
    group_e: Array, feature_e: Array, value_e: Array, n: int, n_features: int
) -> tuple[Array, Array, Array]:
    """Largest value of each feature in each (sample, modality).

    Returns:
        int64 [n, 2] how many, then features (ascending in each) and float16 values.
    """
    key = group_e.astype(np.uint64) * np.uint64(n_features) + feature_e.astype(np.uint64)
    packed = np.sort(key << np.uint64(16) | value_e.view(np.uint16).astype(np.uint64))
    key = packed >> np.uint64(16)
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True]) if len(key) else np.zeros(0, np.int64)
    group, feature = np.divmod(key[last], np.uint64(n_features))
    counts = np.bincount(group.astype(np.int64), minlength=2 * n).reshape(n, 2)
    return counts, feature.astype(np.int64), packed[last].astype(np.uint16).view(np.float16)


def feature_type(n_features: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if n_features <= 65536 else np.uint32


def _cat(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def as_bytes(value: Any) -> Array:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """A .npz, in place only when whole."""
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def write_whole(path: Path, raw: bytes) -> None:
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_bytes(raw)
    fresh.replace(path)


def prelude_path(part: Path) -> Path:
    return part / PRELUDE_FILE


def shard_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.npz"


def resid_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.resid.npy"


def thumb_path(part: Path, index: int, image: int) -> Path:
    return part / THUMBS / str(index // 1000) / f"{index}_{image}.webp"
