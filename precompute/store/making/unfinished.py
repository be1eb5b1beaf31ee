"""What `collect` and the steps leave in STORE.part, as later steps read it: accumulators, maxima, residuals, samples.

Modality axis everywhere: 0 text, 1 image. Values are stored float16 units unless a name says z.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.store.events import Events, FileArray, map_array
from precompute.store.making.sample_records import Records, SampleRecords
from precompute.store.schema import IMAGE, TEXT
from precompute.utils import memory
from precompute.utils.files import atomic_write, write_text
from precompute.utils.ragged import csr_rows
from precompute.utils.token_text import NEIGHBOURS, whole_token
from precompute.utils.types import Array

BLOCK = 1 << 20
"""Maxima at a time."""


class Collected:
    """STORE.part after `collect`; everything is read lazily and arrays stay memory-mapped."""

    def __init__(self, part: Path, manifest: dict[str, Any]) -> None:
        if not (part / "collect").is_dir():
            raise SaevxError(f"{part} holds no collected data: run `saevx precompute` without --only first.")
        self.part, self.folder = part, part / "collect"
        self.manifest = manifest
        self.n_features = int(manifest["sae"]["n_features"])
        self.scale_log2 = int(manifest["scale_log2"])
        self.unit = 2.0**-self.scale_log2
        self.events = Events(part / "events", self.scale_log2)

    max_offset = FileArray(
        "int64 [2N+1]: maxima of (row, modality) at row·2+modality, of every feature that is active there.",
        "max_full_offset",
    )
    max_feature = FileArray("uint16 or uint32; features rise inside a (row, modality).", "max_full_feature")
    max_value = FileArray("float16, in stored units.", "max_full_value")
    alone_offset = FileArray("As `max_offset`, of each row's text without its image: int64 [N+1].")
    alone_feature = FileArray("As `max_feature`, of each row's text without its image.")
    alone_value = FileArray("As `max_value`, of each row's text without its image.")
    resid = FileArray("bf16 bits as uint16 [R, d]: non-special tokens of D_s.")
    resid_row = FileArray("int64 [R]: the sample of each.")
    resid_pos = FileArray("int32 [R]: the place in the sample's token list.")

    @cached_property
    def accum(self) -> dict[str, Array]:
        """count, total, max, hist, top_*, band_* per feature and modality (collect/accumulators.py)."""
        return _read_arrays(self.folder / "accum.npz")

    @cached_property
    def examples(self) -> dict[str, Array]:
        """top_*, band_* as pages show them, with examples that show the same folded (steps/folding.py); step `flag`
        writes them."""
        return load_step(self.part, "examples")

    @cached_property
    def sample(self) -> dict[str, Array]:
        """Per-sample arrays [N] and the sums over all counted tokens."""
        return _read_arrays(self.folder / "sample.npz")

    @property
    def n_samples(self) -> int:
        return len(self.sample["n_text"])

    @cached_property
    def samples(self) -> SampleRecords:
        """One record per sample, in row order: sample_id, text, images, views, extra, source."""
        return SampleRecords(self.folder / "samples.jsonl")

    @cached_property
    def rejected_rows(self) -> Records:
        """One record per rejected row of the data: index, sample_id, reason."""
        return Records(self.folder / "quarantine.jsonl")

    @cached_property
    def vocabulary(self) -> list[str]:
        """Each token's text: a word's first piece starts with a space, bytes of a character are marks."""
        return json.loads((self.folder / "vocabulary.json").read_text("utf-8"))

    def token(self, row: int, position: int) -> str:
        """The text of a sample's token, with all of a character that it shares with its neighbours."""
        low, high = (int(x) for x in self.events.sample_token[row : row + 2])
        window = range(max(low, low + position - NEIGHBOURS), min(high, low + position + NEIGHBOURS + 1))
        pieces = [self.vocabulary[int(token)] for token in self.events.token_id[window.start : window.stop]]
        return whole_token(pieces, low + position - window.start)

    @property
    def has_alone(self) -> bool:
        """Whether the texts were run without their images too."""
        return (self.folder / "alone_offset.npy").exists()

    @cached_property
    def resid_modality(self) -> Array:
        """uint8 [R]: 0 text, 1 image."""
        return np.asarray(self.events.token_modality[self.events.sample_token[self.resid_row] + self.resid_pos])

    @cached_property
    def ds_rows(self) -> Array:
        """int64, ascending: the rows of D_s."""
        return np.sort(map_array(self.folder / "ds_rows.npy"))

    def maxima(self, low: int, high: int) -> tuple[csr_matrix, csr_matrix]:
        """Largest z of every feature in rows low…high−1: (text, image), each float64 CSR [rows, F]."""
        return self.maxima_of(np.arange(low, high))

    def maxima_of(self, rows: Array) -> tuple[csr_matrix, csr_matrix]:
        """As `maxima`, for any rows."""
        return self.maxima_in(rows, TEXT), self.maxima_in(rows, IMAGE)

    def maxima_in(self, rows: Array, modality: int) -> csr_matrix:
        """As `maxima_of`, in one modality."""
        return self._matrix(rows * 2 + modality, self.max_offset, self.max_feature, self.max_value)

    def maxima_alone(self, rows: Array) -> csr_matrix:
        """As `maxima_in`, of the texts without their images."""
        return self._matrix(rows, self.alone_offset, self.alone_feature, self.alone_value)

    def _matrix(self, at: Array, offset: Array, feature: Array, value: Array) -> csr_matrix:
        return csr_rows(at, offset, feature, value, self.n_features) * self.unit

    def blocks(self, entries: int = BLOCK) -> Iterator[tuple[int, int]]:
        """Runs of rows (low, high) with about `entries` maxima each, at least one row a run.

        Before the next run the pages that were read for the last one are given back to the system: mapped pages would
        otherwise stay resident, up to the size of all arrays."""
        ends = np.asarray(self.max_offset[2::2])
        low = 0
        while low < self.n_samples:
            limit = int(self.max_offset[2 * low]) + entries
            high = max(low + 1, int(np.searchsorted(ends, limit, "right")))
            yield low, high
            memory.release(*vars(self).values(), *vars(self.events).values())
            low = high


class Lens:
    """Of each feature the tokens it promotes and suppresses.

    Args:
        step: what `index` saved as `logits`; without a logit lens it is empty, and so are the lists.
    """

    SIDES = ("promoted", "suppressed")
    KINDS = (("centred", ""), ("raw", "raw_"))

    def __init__(self, step: dict[str, Array], vocabulary: list[str], n_features: int) -> None:
        self.step, self.vocabulary, self.n_features = step, vocabulary, n_features

    @classmethod
    def from_steps(cls, data: Collected) -> Self:
        return cls(load_step(data.part, "logits"), data.vocabulary, data.n_features)

    def rows(self, at: slice) -> list[dict[str, Any]]:
        """Of these features, as the store has them: {"centred": {"promoted": [[token, logit], …], "suppressed": …},
        "raw": the same, "informative": whether the centred ones say anything}."""
        n = len(range(*at.indices(self.n_features)))
        lists: dict[tuple[str, str], Sequence[Any]] = {
            (kind, side): self._token_lists(f"{name}{side}", at) if self.step else [[]] * n
            for kind, name in self.KINDS
            for side in self.SIDES
        }
        informative = self.step["informative"][at].tolist() if self.step else [False] * n
        return [
            {
                **{kind: {side: lists[kind, side][i] for side in self.SIDES} for kind, _ in self.KINDS},
                "informative": is_informative,
            }
            for i, is_informative in enumerate(informative)
        ]

    def _token_lists(self, name: str, at: slice) -> list[list[tuple[str, float]]]:
        """[(token, logit), …] of features."""
        logits = np.round(self.step[f"{name}_logit"][at].astype(np.float64), 4).tolist()
        tokens = self._texts[self.step[name][at]].tolist()
        return [list(zip(*columns, strict=True)) for columns in zip(tokens, logits, strict=True)]

    @cached_property
    def _texts(self) -> Array:
        """object [V]: the text of each token id, `<id>` beyond the vocabulary. An array gives many at once."""
        token_ids = [array for array in self.step.values() if array.dtype == np.int64]
        n = max(len(self.vocabulary), *(int(token_fk.max(initial=-1)) + 1 for token_fk in token_ids))
        return np.array([*self.vocabulary, *(f"<{token}>" for token in range(len(self.vocabulary), n))], dtype=object)

    def promoted_tokens(self) -> list[list[str]]:
        """Of each feature the promoted tokens (centred), the strongest first; none where the lens says nothing."""
        if not self.step:
            return [[] for _ in range(self.n_features)]
        tokens_and_flags = zip(
            self._texts[self.step["promoted"]].tolist(), self.step["informative"].tolist(), strict=True
        )
        return [tokens if says else [] for tokens, says in tokens_and_flags]


def _read_arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _of_step(part: Path, name: str, suffix: str) -> Path:
    """The file that a step left. Raises SaevxError where the step has not run."""
    path = part / "steps" / f"{name}.{suffix}"
    if not path.exists():
        raise SaevxError(f"Step {name!r} has not run on {part}: run `saevx precompute … --only {name}` first.")
    return path


def load_step(part: Path, name: str) -> dict[str, Array]:
    """Arrays that an earlier step left. Raises SaevxError where the step has not run."""
    return _read_arrays(_of_step(part, name, "npz"))


def save_step(part: Path, name: str, **arrays: Array) -> None:
    """Writes the arrays that a step leaves, of any shape, for `load_step`."""
    with atomic_write(steps_folder(part) / f"{name}.npz") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_json(part: Path, name: str) -> Any:
    """As `load_step`, what `save_json` wrote."""
    return json.loads(_of_step(part, name, "json").read_text())


def save_json(part: Path, name: str, value: Any) -> None:
    write_text(steps_folder(part) / f"{name}.json", json.dumps(value, ensure_ascii=False))


def steps_folder(part: Path) -> Path:
    folder = part / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
