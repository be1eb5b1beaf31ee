"""What `collect` left in STORE.part, as the later steps read it: accumulators, per-sample maxima, residuals.

Modality axis everywhere: 0 text, 1 image. Values are stored float16 units unless a name says z.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.store.events import Events
from precompute.store.schema import IMAGE, TEXT
from precompute.utils import memory
from precompute.utils.files import atomic_write, write_text
from precompute.utils.runs import expand, offsets
from precompute.utils.token_text import NEAR, whole_token

Array = NDArray[Any]
BLOCK = 1 << 20
"""Maxima at a time."""
_READ = 1 << 22
"""Bytes of a JSONL file that are searched for line ends at a time."""
_ROWS = 4000
"""Samples parsed at a time."""


class Collected:
    """STORE.part after `collect`; everything is read lazily and arrays stay memory-mapped."""

    def __init__(self, part: Path, manifest: dict[str, Any]) -> None:
        if not (part / "collect").is_dir():
            raise SaevxError(f"{part} holds no collected data: run `saevx precompute` without --only first.")
        self.part = part
        self.manifest = manifest
        self.n_features = int(manifest["sae"]["n_features"])
        self.scale_log2 = int(manifest["scale_log2"])
        self.unit = 2.0**-self.scale_log2
        self.events = Events(part / "events", self.scale_log2)

    def _map(self, name: str) -> Array:
        array: Array = np.load(self.part / "collect" / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    @cached_property
    def accum(self) -> dict[str, Array]:
        """count, total, max, hist, top_*, band_* per feature and modality (accumulate.tables)."""
        with np.load(self.part / "collect" / "accum.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def examples(self) -> dict[str, Array]:
        """top_*, band_* as they are shown, those that show the same folded (examples.fold); left by step `flag`."""
        return load_step(self.part, "examples")

    @cached_property
    def sample(self) -> dict[str, Array]:
        """Per-sample arrays [N] and the sums over all counted tokens."""
        with np.load(self.part / "collect" / "sample.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    @property
    def n_samples(self) -> int:
        return len(self.sample["n_text"])

    @cached_property
    def samples(self) -> SampleRecords:
        """One record per sample, in row order: sample_id, text, images, views, extra, source."""
        return SampleRecords(self.part / "collect" / "samples.jsonl")

    @cached_property
    def rejected_rows(self) -> Records:
        """One record per rejected row of the data: index, sample_id, reason."""
        return Records(self.part / "collect" / "quarantine.jsonl")

    @cached_property
    def vocabulary(self) -> list[str]:
        """Each token's text: a word's first piece starts with a space, bytes of a character are marks (pieces.py)."""
        words: list[str] = json.loads((self.part / "collect" / "vocabulary.json").read_text("utf-8"))
        return words

    def token(self, row: int, position: int) -> str:
        """The text of a sample's token, with the rest of a character that it shares with its neighbours."""
        low, high = (int(x) for x in self.events.sample_token[row : row + 2])
        near = range(max(low, low + position - NEAR), min(high, low + position + NEAR + 1))
        pieces = [self.vocabulary[int(token)] for token in self.events.token_id[near.start : near.stop]]
        return whole_token(pieces, low + position - near.start)

    @cached_property
    def max_offset(self) -> Array:
        return self._map("max_full_offset")

    @cached_property
    def max_feature(self) -> Array:
        return self._map("max_full_feature")

    @cached_property
    def max_value(self) -> Array:
        return self._map("max_full_value")

    @cached_property
    def resid(self) -> Array:
        """bf16 bits as uint16 [R, d]: non-special tokens of D_s."""
        return self._map("resid")

    @cached_property
    def resid_row(self) -> Array:
        return np.asarray(self._map("resid_row"))

    @cached_property
    def resid_pos(self) -> Array:
        return np.asarray(self._map("resid_pos"))

    @cached_property
    def resid_modality(self) -> Array:
        """uint8 [R]."""
        return np.asarray(
            self.events.token_modality[self.events.sample_token[self.resid_row] + self.resid_pos]
        )

    @cached_property
    def ds_rows(self) -> Array:
        """int64, ascending: the rows of D_s."""
        return np.sort(np.asarray(self._map("ds_rows")))

    def maxima(self, low: int, high: int) -> tuple[csr_matrix, csr_matrix]:
        """Largest z per feature of rows low…high−1: (text, image), each float64 CSR [rows, F], every
        feature.
        """
        return self.maxima_of(np.arange(low, high))

    def maxima_of(self, rows: Array) -> tuple[csr_matrix, csr_matrix]:
        """As `maxima`, for any rows."""
        return self.maxima_in(rows, TEXT), self.maxima_in(rows, IMAGE)

    def maxima_in(self, rows: Array, modality: int) -> csr_matrix:
        """As `maxima_of`, in one modality."""
        start = np.asarray(self.max_offset[rows * 2 + modality])
        stop = np.asarray(self.max_offset[rows * 2 + modality + 1])
        take = expand(start, stop - start)
        data = self.max_value[take].astype(np.float64) * self.unit
        shape = (len(rows), self.n_features)
        return csr_matrix((data, self.max_feature[take].astype(np.int64), offsets(stop - start)), shape=shape)

    def blocks(self, entries: int = BLOCK) -> Iterator[tuple[int, int]]:
        """Runs of rows with about `entries` maxima each, at least one row a run; when the next is asked for, what was
        read for the last one no longer counts as resident."""
        ends = np.asarray(self.max_offset[2::2])
        low = 0
        while low < self.n_samples:
            limit = int(self.max_offset[2 * low]) + entries
            high = max(low + 1, int(np.searchsorted(ends, limit, "right")))
            yield low, high
            memory.release(*vars(self).values(), *vars(self.events).values())
            low = high


class Records(Sequence[dict[str, Any]]):
    """The lines of a JSONL file, each read when it is asked for: a million of them would fill the memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw: Array = np.zeros(0, np.uint8)
        """uint8: the bytes of the file, memory-mapped."""
        if path.exists() and path.stat().st_size:
            self.raw = np.memmap(path, np.uint8, "r")

    @cached_property
    def offset(self) -> Array:
        """int64 [n+1]: where each line begins and, last, where all end."""
        ends = [np.zeros(1, np.int64)]
        for low in range(0, len(self.raw), _READ):
            ends.append(np.flatnonzero(self.raw[low : low + _READ] == ord("\n")) + low + 1)
        return np.concatenate(ends)

    def __len__(self) -> int:
        return len(self.offset) - 1

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        record: dict[str, Any] = json.loads(self.raw[self.offset[at] : self.offset[at + 1]].tobytes())
        return record


class SampleRecords(Records):
    """The records of samples, and what the steps read of all of them as columns.

    The first use of a column parses the lines once, some thousand at a time, into `samples.arrow`, which is then
    memory-mapped: a step holds Python objects of one batch at a time.
    """

    COLUMNS = ("sample_id", "text", "views", "sha256", "thumb")
    """Strings; `views` is JSON, `sha256` and `thumb` are lists with an entry for each image."""

    def column(self, name: str, rows: Array | None = None) -> Iterator[Any]:
        """The values of one of `COLUMNS` in row order, or of these rows alone.

        Args:
            rows: int64 [n].
        """
        column = self._table[name]
        if rows is not None:  # `take` would copy the whole column
            yield from (column[int(row)].as_py() for row in rows)
            return
        for chunk in column.chunks:
            yield from chunk.to_pylist()

    @cached_property
    def _table(self) -> Any:
        """A memory-mapped `pyarrow.Table`."""
        import pyarrow as pa

        path = self.path.with_suffix(".arrow")
        if not path.is_file():
            string = pa.string()
            types = {"sha256": pa.list_(string), "thumb": pa.list_(string)}
            schema = pa.schema([(name, types.get(name, string)) for name in self.COLUMNS])
            with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
                for low in range(0, len(self), _ROWS):
                    lines = [_columns_of(record) for record in self[low : low + _ROWS]]
                    writer.write_batch(pa.RecordBatch.from_pylist(lines, schema))
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _columns_of(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "sample_id": str(record["sample_id"]),
        "text": str(record["text"]),
        "views": json.dumps(record["views"]),
        **{name: [str(image[name]) for image in record["images"]] for name in ("sha256", "thumb")},
    }


class Lens(Sequence[dict[str, list[list[Any]]]]):
    """Of each feature the tokens it promotes and suppresses: {"promoted": [[token, logit], …], "suppressed": …}.

    Args:
        step: what `index` saved as `logits`; without a logit lens it is empty, and so are the lists.
    """

    SIDES = ("promoted", "suppressed")

    def __init__(self, step: dict[str, Array], vocabulary: list[str], n_features: int) -> None:
        self.step, self.vocabulary, self.n_features = step, vocabulary, n_features

    @classmethod
    def from_steps(cls, data: Collected) -> Lens:
        return cls(load_step(data.part, "logits"), data.vocabulary, data.n_features)

    def __len__(self) -> int:
        return self.n_features

    @overload
    def __getitem__(self, at: int) -> dict[str, list[list[Any]]]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, list[list[Any]]]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if not isinstance(at, slice):
            at = range(len(self))[at]
            return self[at : at + 1][0]
        if not self.step:
            return [{side: [] for side in self.SIDES} for _ in range(*at.indices(len(self)))]
        columns = []
        for side in self.SIDES:
            logits = np.round(self.step[f"{side}_logit"][at].astype(np.float64), 4).tolist()
            both = zip(self.tokens(side, at), logits, strict=True)
            columns.append([list(map(list, zip(*one, strict=True))) for one in both])
        return [dict(zip(self.SIDES, row, strict=True)) for row in zip(*columns, strict=True)]

    def tokens(self, side: str, features: slice = slice(None)) -> list[list[str]]:
        """Of some features, or all, the tokens of one side alone, the strongest first."""
        if not self.step:
            return [[] for _ in range(*features.indices(len(self)))]
        words = self.vocabulary
        return [
            [words[t] if t < len(words) else f"<{t}>" for t in tokens] for tokens in self.step[side][features].tolist()
        ]


def steps_folder(part: Path) -> Path:
    folder = part / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_step(part: Path, name: str) -> dict[str, Array]:
    """Arrays that an earlier step left.

    Raises:
        SaevxError: that step has not run.
    """
    path = part / "steps" / f"{name}.npz"
    if not path.exists():
        raise SaevxError(
            f"Step {name!r} has not run on {part}: run `saevx precompute … --only {name}` first."
        )
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def save_step(part: Path, name: str, **arrays: Array) -> None:
    with atomic_write(steps_folder(part) / f"{name}.npz") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_json(part: Path, name: str) -> Any:
    path = part / "steps" / f"{name}.json"
    if not path.exists():
        raise SaevxError(
            f"Step {name!r} has not run on {part}: run `saevx precompute … --only {name}` first."
        )
    return json.loads(path.read_text())


def save_json(part: Path, name: str, value: Any) -> None:
    write_text(steps_folder(part) / f"{name}.json", json.dumps(value, ensure_ascii=False))
