"""`saevx score`: any number of new pairs through the model, scored with the ω of a finished store.

The pairs are read, run and written shard by shard, so memory does not grow with their number, and a killed run
goes on behind its last whole shard; with --ray, workers run the shards. A pair that stands in the store gets the
store's own scores.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.collect.collector import Collector, thumb_path
from precompute.collect.entries import by_sample
from precompute.collect.shard import Sample, pair_events, samples_of
from precompute.data.batches import make_plan, usable
from precompute.data.records import Data, RejectedRow, Row, no_rows, stamps
from precompute.data.rejections import all_rejected_message, count_kinds, summary
from precompute.data.rows import guess_line, refuse_no_image, stream
from precompute.data.sources import METADATA
from precompute.data.survey import Survey, survey
from precompute.errors import SaevxError
from precompute.live.engine import load_engine
from precompute.model.loading import pick_device
from precompute.model.mllm import Mllm
from precompute.options.patches import PatchesOptions
from precompute.options.score import ScoreOptions
from precompute.sae.encode import Scale, encode_batch
from precompute.sae.sae import SaeV
from precompute.scoring.flags import Reference, flag_scores
from precompute.scoring.pairs import NewPairs, Thumbnails
from precompute.scoring.score_file import as_line, check_suffix, closing_lines, drop_fields, read_lines, write
from precompute.scoring.scores import pair_scores
from precompute.store.opening import source_of
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, IMAGE, SCORES, TEXT, flag_column, score_column
from precompute.utils.files import atomic_write, check_file
from precompute.utils.ownership import claim_folder, creating
from precompute.utils.processes.ray_pool import check, pool
from precompute.utils.progress import progress_bar, say
from precompute.utils.provenance import code_version, fingerprint, weights
from precompute.utils.ragged import batched

PLAN = "plan.json"
RUN_OPTIONS = {
    "nll", "batch_tokens", "shard_samples", "device", "dtype", "device_map",
    "image_column", "text_column", "id_column", "text_side", "image_folder", "allow_outside", "split", "text_only",
}  # fmt: skip


def score_data(options: ScoreOptions) -> Path:
    """Score every pair of DATA, or go on with a run that was interrupted. Returns the file.

    Raises:
        SaevxError: wrong input, a file that exists already, or no pair that can be scored.
    """
    check_suffix(options.out)
    check(options.ray)
    begin = time.monotonic()
    with creating(options.out):
        check_file(options.quarantine)
        store = Store.open(options.store)
        try:
            n, n_bad = Job(options, store).run()
        finally:
            store.close()
    where = f" ({options.quarantine})" if n_bad else ""
    for line in closing_lines(options.out):
        say(line)
    say(f"{options.out}: {n} pairs, {n_bad} rows rejected{where}, {time.monotonic() - begin:.0f} s")
    if n_bad:
        say(summary(count_kinds(item["reason"] for item in read_lines(options.quarantine)), options.id_column))
    return options.out


class Chunk(NamedTuple):
    """Rows that make a shard."""

    number: int
    rows: list[Row | RejectedRow]


def worker(options: ScoreOptions) -> Job:
    """A process of its own that scores shards of a run."""
    job = Job(options, Store.open(options.store))
    job.engine()
    return job


class Job:
    """One run; the model is loaded when the first shard needs it."""

    def __init__(self, options: ScoreOptions, store: Store) -> None:
        self.options, self.store, self.part = options, store, options.part
        self.reference, self.seed = Reference.from_store(store), int(store.manifest["options"].get("seed", 0))
        self.scale = Scale.from_manifest(store.manifest)
        self.cached_engine: tuple[Mllm, SaeV] | None = None

    def run(self) -> tuple[int, int]:
        """All shards, then the file. Returns the numbers of pairs scored and of rejected rows."""
        view = self.survey()
        self.begin()
        n_good = n_bad = n_shards = 0
        with Seen(self.part / "ids.sqlite") as ids, progress_bar("score", None, "rows") as progress:
            for n_scored, n_rejected in self.shards(self.chunks(view, ids)):
                n_good, n_bad, n_shards = n_good + n_scored, n_bad + n_rejected, n_shards + 1
                progress.update(n_scored + n_rejected)
        shards = [shard_path(self.part, i) for i in range(n_shards)]
        files_of_rejected = [bad_path(self.part, i) for i in range(n_shards)]
        if not n_good:
            rejected_rows = [RejectedRow(**item) for path in files_of_rejected for item in read_lines(path)]
            shutil.rmtree(self.part)
            if not rejected_rows:
                raise no_rows(self.options.data)
            subject = f"No row of {self.options.data} can be scored"
            raise SaevxError(all_rejected_message(subject, rejected_rows, self.options.id_column))
        self.options.quarantine.unlink(missing_ok=True)
        if n_bad:
            with atomic_write(self.options.quarantine) as file:
                for path in files_of_rejected:
                    file.write(path.read_bytes())
        manifest = self.store.manifest
        about = {"store": manifest["name"], "content_id": manifest["content_id"], "version": code_version()}
        write(self.options.out, shards, about)
        shutil.rmtree(self.part)
        return n_good, n_bad

    def begin(self) -> None:
        """Make the scratch folder, or take up the one of the same run."""
        run_fingerprint = fingerprint_of(self.options.absolute(), self.store.manifest, RUN_OPTIONS)
        claim_folder(self.part, run_fingerprint, PLAN, what="run", depends_on="data, store or options")

    def engine(self) -> tuple[Mllm, SaeV]:
        """Model and SAE, as the store had them."""
        if self.cached_engine is None:
            self.cached_engine = load_engine(self.options, self.store.manifest, full=self.options.nll)
        return self.cached_engine

    def survey(self) -> Survey:
        """A look at the data, before anything is written.

        Raises:
            SaevxError: there is none, or it lacks the images that the store's model reads.
        """
        o, model = self.options, self.store.manifest["model"]
        o = o if o.ray is None else o.absolute()  # rows name files, to workers elsewhere too
        view = survey(o.data, o.columns)
        if model["family"] != "text-only":
            refuse_no_image(o.data, model["name"], view.no_image)
        if view.guess and view.image:
            say(guess_line(view.image))
        return view

    def chunks(self, view: Survey, ids: Seen) -> Iterator[Chunk]:
        """The data, cut."""
        o = self.options
        rows = stream(view, ids.is_new, (o if o.ray is None else o.absolute()).columns)
        return map(Chunk, count(), batched(rows, o.shard_samples))

    def shards(self, chunks: Iterable[Chunk]) -> Iterator[tuple[int, int]]:
        """Of every shard, in any order, how many pairs it holds and how many rows it rejected."""
        o = self.options
        if o.ray is None or o.workers is None:
            yield from map(self.shard, chunks)
            return
        device = pick_device(o.device).partition(":")[0]
        worker_options = o.absolute().model_copy(update={"ray": None, "workers": None, "device": device})
        with pool(worker, worker_options, o.ray, o.workers, gpu=device == "cuda") as workers:
            yield from workers.map("shard", chunks)

    def shard(self, chunk: Chunk) -> tuple[int, int]:
        """One shard, unless it is there already; its files appear whole or not at all. Returns what `shards` does."""
        shard_file, bad_file = shard_path(self.part, chunk.number), bad_path(self.part, chunk.number)
        if not shard_file.exists():
            rows = [row for row in chunk.rows if isinstance(row, Row)]
            items, rejected_rows = self.score(rows) if rows else ([], [])
            rejected_rows = sorted([*rejected_rows, *(row for row in chunk.rows if isinstance(row, RejectedRow))])
            rejections = [as_line(asdict(row)) for row in rejected_rows]
            for path, lines in ((bad_file, rejections), (shard_file, map(as_line, items))):
                with atomic_write(path, "w") as file:
                    file.writelines(lines)
        n_bad = bad_file.read_bytes().count(b"\n")
        return len(chunk.rows) - n_bad, n_bad

    def score(self, rows: list[Row]) -> tuple[list[dict[str, Any]], list[RejectedRow]]:
        """Rows through the model: what is written of each, in the data's order, and what could not be run."""
        mllm, sae = self.engine()
        usable_rows, lengths, rejected_rows = usable(rows, mllm)
        o, options_of_store = self.options, self.store.manifest["options"]
        plan = make_plan(
            [row.sample_id for row in usable_rows],
            lengths,
            batch_tokens=o.batch_tokens or int(options_of_store.get("batch_tokens", 4096)),
            shard_samples=max(1, len(usable_rows)),
            ds=0,
            seed=self.seed,
        )
        samples: list[Sample] = []
        with tempfile.TemporaryDirectory(dir=self.part) as scratch:
            job = Collector(mllm, sae, Data("", usable_rows, [], False), plan, Path(scratch), self.seed, o.nll)
            for batch in job.planned_batches(range(len(plan.batches))):
                rejected_rows += batch.rejected_rows
                if batch.batch is None:
                    continue
                encoded_batch = encode_batch(job.forward(batch), batch.batch, sae, self.scale, errors=True)
                for row, reason in zip(batch.rows, encoded_batch.reason_b, strict=True):
                    if reason is not None:
                        rejected_rows.append(RejectedRow(row.index, row.sample_id, reason))
                maxima = by_sample(pair_events(encoded_batch, batch), sae.n_features)
                samples += samples_of(encoded_batch, batch, maxima, set(), sae.n_features)
            samples.sort(key=lambda sample: sample.index)
            by_index = {row.index: row for row in usable_rows}
            ran = [by_index[sample.index] for sample in samples]
            items = self.measure(ran, samples, job.part) if samples else []
        return items, rejected_rows

    def measure(self, rows: list[Row], samples: list[Sample], part: Path) -> list[dict[str, Any]]:
        """Rows of the file: COLUMNS of score_file.py.

        Args:
            part: the folder in which the pass has left the thumbnails.
        """
        images = [(i, j) for i, sample in enumerate(samples) for j in range(len(sample.record["images"]))]
        files = [thumb_path(part, samples[i].index, j) for i, j in images]
        thumbnails = Thumbnails(files, np.array([i for i, _ in images], dtype=np.int64))
        pairs = NewPairs(self.store, samples, [row.text for row in rows], thumbnails, [row.sample_id for row in rows])
        scores = pair_scores(pairs, self.reference.weights, self.seed)
        flags = flag_scores(pairs, scores, self.reference)
        is_flagged = {flag["name"]: flags[flag["name"]] > flag["threshold"] for flag in self.store.quality.flags}
        columns = {score_column(name): scores[name].tolist() for name in SCORES}
        columns |= {flag_column(name): flags[name].tolist() for name in FLAGS}
        return [
            {
                "id": row.sample_id,
                "n_text": int(pairs.n_tokens_nm[i, TEXT]),
                "n_image": int(pairs.n_tokens_nm[i, IMAGE]),
                **{name: values[i] if math.isfinite(values[i]) else None for name, values in columns.items()},
                "flags": [name for name in FLAGS if is_flagged[name][i]],
                "fields": {"text": row.text, **drop_fields(row.extra, "text")},
            }
            for i, row in enumerate(rows)
        ]


class Seen:
    """The ids met so far, on disk: memory must not grow with the data."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path

    def __enter__(self) -> Seen:
        self.base = sqlite3.connect(self.path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self.base.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        self.base.close()
        self.path.unlink(missing_ok=True)

    def is_new(self, sample_id: str) -> bool:
        """Notes the id; False where it was noted before."""
        digest = hashlib.sha256(sample_id.encode()).digest()[:16]
        return self.base.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1


def fingerprint_of(options: ScoreOptions | PatchesOptions, manifest: Mapping[str, Any], names: set[str]) -> str:
    """Of what a run of DATA against a store depends on.

    Args:
        names: of the options that decide its result.
    """
    o = options
    return fingerprint(
        data=[o.data, stamps(listing(o.data))],
        store=manifest["content_id"],
        model=[o.model, stamps(weights(o.model or source_of(o.store, manifest, "model")))],
        options=o.model_dump(mode="json", include=names),
        code=code_version(),
    )


def listing(source: str) -> list[Path]:
    """The file that names the pairs, where DATA is local."""
    path = Path(source)
    return [path for path in ([path / METADATA] if path.is_dir() else [path]) if path.is_file()]


def shard_path(part: Path, number: int) -> Path:
    return part / f"{number:06d}.jsonl"


def bad_path(part: Path, number: int) -> Path:
    return part / f"{number:06d}.quarantine"
