"""`store.events`: memory-mapped arrays of events. An event is one feature that is active on one token: entry i of
`event_feature` and `event_value`; `token_event` says where the events of a token begin. Values are float16 in stored
units: z = value · 2^(−scale_log2). A store has tokens and maxima of all samples, and the events of all or of some
(`making/trim.py`).
"""

import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.store.opening import StoreUnreadable, damaged_error
from precompute.store.schema import IMAGE, MODALITIES, SINK
from precompute.utils.types import Array

ARRAYS = (
    "sample_token", "token_id", "token_modality", "token_event", "event_feature", "event_value", "max_offset",
    "max_feature", "max_value",
)  # fmt: skip
"""The arrays of every store, by their file's name."""
READ_IN_PARTS = ("token_id", "token_modality", "token_event", "event_feature", "event_value")
SCANNED = 50_000_000
"""Events of a store that are searched for a feature; of a store with more, its maxima."""
INFINITE = 0x7C00
"""Bits of a float16 from which on it is infinite, no number or negative, which no activation is."""
LARGE = 2 * SCANNED
"""Bytes of an array that is not searched whole."""


def map_array(path: Path, *, in_parts: bool = False) -> Array:
    """The array of a file, mapped: as a plain array, of which a slice costs a tenth of one of numpy's memmap.

    Args:
        in_parts: small parts of it are read, far from each other. Then the system reads nothing ahead of a large file,
            which takes many times as long as the part itself.

    Raises:
        StoreUnreadable: the file is missing, cut off or no array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if in_parts and array.nbytes > LARGE and hasattr(mmap, "MADV_RANDOM"):  # not on Windows
            array._mmap.madvise(mmap.MADV_RANDOM)
        return np.asarray(array)
    except Exception as error:  # what NumPy makes of a damaged header can fail in any way
        raise damaged_error(path.parent.parent, f"{path.parent.name}/{path.name} is missing or cut off") from error


class EventsNotStored(SaevxError):  # noqa: N818 - a choice of whoever made the store
    """The store does not hold the events of sample `row`, and no model has computed them again."""

    def __init__(self, row: int) -> None:
        super().__init__(
            f"The activations of sample row {row} are not kept in this store: "
            "open it in a server with the model, or make one with --events all."
        )
        self.row = row


class SampleEvents(NamedTuple):
    """The tokens of one sample and what fires on them: token i has the events offset_t[i]…offset_t[i+1]−1."""

    token_id_t: Array
    """int32 [t]."""
    modality_t: Array
    """uint8 [t]: 0 text, 1 image, 2 special, 3 attention sink."""
    offset_t: Array
    """int64 [t+1]."""
    feature_e: Array
    """int64 [e]; features rise inside a token."""
    z_e: Array
    """float64 [e]: activations."""

    def by_event(self, column_t: Array) -> Array:
        """[e]: of each event the value that its token has in a column [t]."""
        return np.repeat(column_t, np.diff(self.offset_t))


class FileArray:
    """An attribute that is an array of the folder of its object, memory-mapped when it is first used. What is mapped
    stays as it is when the file is deleted or another takes its place.

    Args:
        about: dtype, shape and meaning of the array.
        file: name of the file without its ending; default: that of the attribute.
        in_parts: as of `map_array`.
    """

    def __init__(self, about: str, file: str = "", *, in_parts: bool = False) -> None:
        self.__doc__, self.file, self.in_parts = about, file, in_parts

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.file = name, self.file or name

    def __get__(self, owner: Any, kind: type | None = None) -> Array:
        """Raises StoreUnreadable where the file is missing, cut off or no array."""
        array: Array = map_array(owner.folder / f"{self.file}.npy", in_parts=self.in_parts)
        owner.__dict__[self.name] = array  # which Python takes from now on
        return array


class Parts:
    """Reads parts of an array, a system call each: mapped, the few hundred bytes of a sample cost page faults."""

    def __init__(self, path: Path, array: Array) -> None:
        self.path, self.folder, self.array, self.dtype = path, path.parent, array, array.dtype
        try:
            self.file = os.open(path, os.O_RDONLY) if hasattr(os, "pread") else None  # not on Windows
        except OSError as error:
            raise self.error() from error
        if self.file is not None:
            self.start = os.fstat(self.file).st_size - array.nbytes
            weakref.finalize(self, os.close, self.file)

    def __getitem__(self, part: slice) -> Array:
        """The elements from part.start to part.stop − 1. Raises StoreUnreadable where damaged offsets lead outside."""
        if not 0 <= part.start <= part.stop <= len(self.array):
            raise damaged_error(self.folder.parent, f"offsets in {self.folder.name}/ lead outside {self.path.name}")
        if self.file is None:
            return self.array[part]
        size = (part.stop - part.start) * self.dtype.itemsize
        if len(data := os.pread(self.file, size, self.start + part.start * self.dtype.itemsize)) < size:
            raise self.error()
        return np.frombuffer(data, self.dtype)

    def error(self) -> StoreUnreadable:
        return damaged_error(self.folder.parent, f"{self.folder.name}/{self.path.name} is cut off")


class Events:
    """Memory-mapped `events/*.npy` (layout in docs/store.md)."""

    def __init__(self, folder: Path, scale_log2: int) -> None:
        self.folder = folder
        self.unit = 2.0**-scale_log2  # one stored unit in z
        self._parts: dict[str, Parts] = {}

    sample_token = FileArray("int64 [N+1]: tokens of sample `row` are sample_token[row]…sample_token[row+1].")
    token_id = FileArray("int32 [T]: the model's token.", in_parts=True)
    token_modality = FileArray("uint8 [T]: 0 text, 1 image, 2 special, 3 attention sink.", in_parts=True)
    token_event = FileArray(
        "int64 [T+1]: events of token t are token_event[t]…token_event[t+1]−1. Where not all events are there, it has "
        "the tokens of `kept_rows` only.",
        in_parts=True,
    )
    event_feature = FileArray("uint16 or uint32 [E].", in_parts=True)
    event_value = FileArray("float16 [E], in stored units.", in_parts=True)
    max_offset = FileArray("int64 [2N+1]: stored maxima of (row, modality) at row·2+modality.")
    max_feature = FileArray("uint16 or uint32; features rise inside a (row, modality).")
    max_value = FileArray("float16, in stored units.")
    kept_token = FileArray("int64 [K+1]: tokens of the i-th of `kept_rows` in `token_event`; not where all are there.")

    def _part(self, name: str) -> Parts:
        """One of `READ_IN_PARTS`, of which `of` and `feature` read what a sample has."""
        if name not in self._parts:
            self._parts[name] = Parts(self.folder / f"{name}.npy", getattr(self, name))
        return self._parts[name]

    def _z(self, name: str, value: Array) -> Array:
        """float64: z of float16 values of the array `name`. Raises StoreUnreadable for a value that no event has."""
        if value.view(np.uint16).max(initial=0) >= INFINITE:
            detail = f"{self.folder.name}/{name}.npy has values that are negative, infinite or no numbers"
            raise damaged_error(self.folder.parent, detail)
        return value.astype(np.float64) * self.unit

    @cached_property
    def kept_rows(self) -> Array | None:
        """int64 [K], rising: the rows whose events the store holds; None where it holds all."""
        path = self.folder / "kept.npy"
        return map_array(path) if path.is_file() else None

    def map_all(self) -> None:
        """Map every array now. Raises StoreUnreadable where one is missing or cut off."""
        for name in ARRAYS if self.kept_rows is None else (*ARRAYS, "kept_token"):
            getattr(self, name)
        for name in READ_IN_PARTS:  # what is opened later could be another store's
            self._part(name)

    def has(self, row: int) -> bool:
        """Whether the store holds the events of sample `row`."""
        if self.kept_rows is None:
            return True
        at = int(np.searchsorted(self.kept_rows, row))
        return at < len(self.kept_rows) and int(self.kept_rows[at]) == row

    @property
    def scans_all(self) -> bool:
        """Whether `sides_with` looks through all events: the store holds those of every sample, and not too many."""
        return self.kept_rows is None and len(self.event_feature) <= SCANNED

    def sides_with(self, feature: int) -> tuple[Array, Array]:
        """(side, z), int64 [n] rising and float64 [n]: row·2+modality of each side of a sample on which the feature
        fires, and its largest activation there: of all events where `scans_all`, else of the stored maxima, which are
        those of the 256 strongest features of a side."""
        if not self.scans_all:
            at = np.flatnonzero(self.max_feature == feature)
            side = np.searchsorted(self.max_offset, at, side="right") - 1
            return side, self._z("max_value", self.max_value[at])
        at = np.flatnonzero(self.event_feature == feature)
        token = np.searchsorted(self.token_event, at, side="right") - 1
        modality = self.token_modality[token].astype(np.int64)
        is_side = modality < len(MODALITIES)  # not a special token or a sink
        row = np.searchsorted(self.sample_token, token[is_side], side="right") - 1
        side, of_event = np.unique(row * len(MODALITIES) + modality[is_side], return_inverse=True)
        z = np.zeros(len(side))
        np.maximum.at(z, of_event, self._z("event_value", self.event_value[at[is_side]]))
        return side, z

    def tokens(self, row: int) -> SampleEvents:
        """The tokens of sample `row`, which every store has, without events."""
        first, last = self.sample_token[row : row + 2].tolist()
        token_id_t, modality_t = (self._part(name)[first:last] for name in ("token_id", "token_modality"))
        offset_t = np.zeros(last - first + 1, np.int64)
        return SampleEvents(token_id_t, modality_t, offset_t, np.zeros(0, np.int64), np.zeros(0))

    def _first_token(self, row: int) -> int:
        """Where the sample's tokens begin in `token_event`."""
        if self.kept_rows is None:
            return int(self.sample_token[row])
        if not self.has(row):
            raise EventsNotStored(row)
        return int(self.kept_token[np.searchsorted(self.kept_rows, row)])

    def of(self, row: int) -> SampleEvents:
        """Everything that fires in sample `row`.

        Raises:
            EventsNotStored: this store holds the events of other samples only.
        """
        tokens, first = self.tokens(row), self._first_token(row)
        offset = self._part("token_event")[first : first + len(tokens.token_id_t) + 1]
        low, high = int(offset[0]), int(offset[-1])
        feature_e = self._part("event_feature")[low:high].astype(np.int64)
        z_e = self._z("event_value", self._part("event_value")[low:high])
        return SampleEvents(tokens.token_id_t, tokens.modality_t, offset - low, feature_e, z_e)

    def feature(self, row: int, feature: int) -> tuple[SampleEvents, Array]:
        """`tokens` of sample `row`, and one feature's z on each, float64 [t], 0 where inactive.

        Raises:
            EventsNotStored: this store holds the events of other samples only.
        """
        tokens, first = self.tokens(row), self._first_token(row)
        n = len(tokens.token_id_t)
        offset = self._part("token_event")[first : first + n + 1]
        low, high = int(offset[0]), int(offset[-1])
        z_t = np.zeros(n)
        # The methods, not numpy's functions of the same name: a page asks this a hundred times.
        event = (self._part("event_feature")[low:high] == feature).nonzero()[0]
        value = self._part("event_value")[low:high][event]
        z_t[offset.searchsorted(event + low, "right") - 1] = self._z("event_value", value)
        return tokens, z_t

    def maxima(self, row: int, modality: int) -> tuple[Array, Array]:
        """(feature, z), int64 [k] rising and float64 [k]: each feature's largest activation on the sample's tokens of
        one modality, for the up to 256 features that the store holds.

        Args:
            modality: 0 text, 1 image.
        """
        low, high = (int(x) for x in self.max_offset[row * 2 + modality : row * 2 + modality + 2])
        feature = np.asarray(self.max_feature[low:high]).astype(np.int64)
        return feature, self._z("max_value", self.max_value[low:high])


def of_bits(bits: Any) -> Array:
    """float16 of the same shape, in stored units: the numbers whose bits these integers are.

    The table of examples holds these bits, as SQLite has no float16 and the integers order as the values do."""
    return np.asarray(bits, np.uint16).view(np.float16)


def dense_values(sample: SampleEvents, features: list[int]) -> Array:
    """float64 [t, k]: z of k features on every token of the sample, 0 where inactive."""
    values_tk = np.zeros((len(sample.token_id_t), len(features)))
    token_e = sample.by_event(np.arange(len(sample.token_id_t)))
    for column, feature in enumerate(features):
        event = np.flatnonzero(sample.feature_e == feature)
        values_tk[token_e[event], column] = sample.z_e[event]
    return values_tk


class Patches(NamedTuple):
    """Where the image tokens of a sample lie, each int64 [p] with one entry per image token, in token order."""

    position: Array
    """In the sample's token list."""
    view: Array
    """Index into the sample's views."""
    row: Array
    """Of the view's grid."""
    col: Array
    """Of the view's grid."""


def image_tokens(sample: SampleEvents, n_patches: int) -> Array:
    """bool [t]: the sample's patches, with those that are attention sinks, so that the grid has no gaps.

    The token list says only "sink", not of which modality. A sink is a patch when it carries the id of an
    image token, and failing that when it stands between image tokens while patches are missing.
    """
    is_image_t, is_sink_t = sample.modality_t == IMAGE, sample.modality_t == SINK
    if np.count_nonzero(is_image_t) >= n_patches or not is_sink_t.any():
        return is_image_t
    known_t = is_image_t | (is_sink_t & np.isin(sample.token_id_t, np.unique(sample.token_id_t[is_image_t])))
    if known_t.sum() < n_patches and known_t.any():
        first, last = np.flatnonzero(known_t)[[0, -1]]
        known_t[first : last + 1] |= is_sink_t[first : last + 1]
    return known_t


def patches(sample: SampleEvents, views: Sequence[Any]) -> Patches:
    """Maps image tokens to (view, row, col): the i-th image token is the i-th patch, read row by row, view after view.

    Args:
        views: [rows, cols, box, image] of each view.
    """
    sizes = np.array([int(v[0]) * int(v[1]) for v in views], dtype=np.int64)
    position = np.flatnonzero(image_tokens(sample, int(sizes.sum())))
    n = min(len(position), int(sizes.sum()))
    view = np.repeat(np.arange(len(views)), sizes)[:n]
    cell = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)[:n]
    width = np.array([int(v[1]) for v in views], dtype=np.int64)[view]
    return Patches(position[:n], view, cell // width, cell % width)
