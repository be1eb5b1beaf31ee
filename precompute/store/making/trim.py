"""Whose events a store holds (`--events all|examples|none`), and the rewriting of `events/` to these samples.

Token lists, maxima and every table stay of all samples: lists, scores, search and captions need no more. Of the other
samples `token_event`, `event_feature` and `event_value` are left out; a server with the model can compute them again.

This runs when all steps are done, as steps read all events. The full arrays stay as they are until the trimmed ones are
complete, so `write` may be stopped and repeated, and so may `publish`, which puts the trimmed arrays in place of the
full ones by renaming one folder.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from precompute.errors import SaevxError
from precompute.store.events import Events
from precompute.store.making.unfinished import Collected, load_json
from precompute.utils import memory
from precompute.utils.files import atomic_folder, new_array
from precompute.utils.ragged import offsets
from precompute.utils.types import Array

EventChoice = Literal["all", "examples", "none"]
EVENT_CHOICES: tuple[EventChoice, ...] = ("all", "examples", "none")
"""From the largest store to the smallest."""

EVENTS, TRIMMED = "events", "events.kept"
ARRAYS_OF_ALL_SAMPLES = ("sample_token", "token_id", "token_modality", "max_offset", "max_feature", "max_value")
"""Arrays that every store has of all samples."""
BYTES_AT_ONCE = 1 << 26
MANIFEST_BYTES_PER_FILE = 110
"""What a file takes in the manifest: its path and its SHA-256."""
_FEATURES_AT_ONCE = 1 << 14


def example_rows(data: Collected) -> Array:
    """int64, rising: the rows that a feature's page or a flag's list shows: every example, and every sample whose flag
    has a reason, with the sample that it nearly repeats."""
    is_shown = np.zeros(data.n_samples, dtype=bool)
    for name in ("top_row", "band_row"):
        rows = data.examples[name]
        for low in range(0, len(rows), _FEATURES_AT_ONCE):
            block = rows[low : low + _FEATURES_AT_ONCE].ravel()
            is_shown[block[block >= 0]] = True
    reasons = load_json(data.part, "flag")["reasons"]
    is_shown[[int(row) for row, _, _ in reasons]] = True
    repeats = [int(row) for row, flag, _ in reasons if flag == "near-duplicate"]
    if repeats:
        with np.load(data.part / "steps" / "flag.npz", allow_pickle=False) as file:
            duplicate_rows = file["near_row"][repeats]
        is_shown[duplicate_rows[duplicate_rows >= 0]] = True
    return np.flatnonzero(is_shown)


def rows_of(data: Collected, choice: EventChoice) -> Array | None:
    """int64, rising: the rows whose events stay in the store; None for all."""
    if choice == "all":
        return None
    return example_rows(data) if choice == "examples" else np.zeros(0, np.int64)


def event_bytes(events: Events, rows: Array | None) -> int:
    """Bytes of the arrays that trimming shortens, with these rows kept of the full events."""
    bytes_per_event = events.event_feature.dtype.itemsize + events.event_value.dtype.itemsize
    if rows is None:
        return len(events.event_feature) * bytes_per_event + len(events.token_event) * 8
    tokens = events.sample_token[rows + 1] - events.sample_token[rows]
    n_events = events.token_event[events.sample_token[rows + 1]] - events.token_event[events.sample_token[rows]]
    return int(n_events.sum()) * bytes_per_event + (int(tokens.sum()) + 1 + 2 * len(rows) + 1) * 8


def other_bytes(part: Path) -> int:
    """Bytes of the finished store but for the arrays that trimming shortens, once everything else is written."""
    files = [path for path in part.rglob("*") if path.is_file()]
    stays = [
        path
        for path in files
        if (top := path.relative_to(part).parts[0]) not in ("collect", "steps", TRIMMED)
        and not (top == EVENTS and path.stem not in ARRAYS_OF_ALL_SAMPLES)
    ]
    return sum(path.stat().st_size for path in stays) + MANIFEST_BYTES_PER_FILE * len(stays)


def choose(choice: EventChoice | None, most_gb: float | None, bytes_of: Mapping[EventChoice, float]) -> EventChoice:
    """Whose events stay: `choice` where there is one, else the most that fits.

    Args:
        most_gb: limit of the store's size, None for no limit.
        bytes_of: size of the store by choice.

    Raises:
        SaevxError: the choice does not fit, or nothing does.
    """
    if most_gb is None:
        return choice or "all"
    candidates = EVENT_CHOICES if choice is None else (choice,)
    fitting_choices = [option for option in EVENT_CHOICES if bytes_of[option] <= most_gb * 1e9]
    for candidate in candidates:
        if candidate in fitting_choices:
            return candidate
    smallest_choice, need = candidates[-1], bytes_of[candidates[-1]] / 1e9
    way = f"take --events {fitting_choices[0]} or " if fitting_choices else ""
    raise SaevxError(
        f"With --events {smallest_choice} this store needs {need:.3g} GB, more than --max-store-gb {most_gb:g}: "
        f"{way}raise --max-store-gb to {np.ceil(need * 1000) / 1000:.10g} or give fewer pairs."
    )


def write(part: Path, scale_log2: int, rows: Array) -> None:
    """Writes the trimmed arrays to a folder next to the full ones.

    Args:
        rows: int64 [K], rising: the samples whose events stay.
    """
    with atomic_folder(part / TRIMMED) as folder:
        _write_arrays(folder, part, scale_log2, rows)


def _write_arrays(folder: Path, part: Path, scale_log2: int, rows: Array) -> None:
    events = Events(part / EVENTS, scale_log2)
    for name in ARRAYS_OF_ALL_SAMPLES:
        shutil.copyfile(part / EVENTS / f"{name}.npy", folder / f"{name}.npy")
    first, last = np.asarray(events.sample_token[rows]), np.asarray(events.sample_token[rows + 1])
    low, high = np.asarray(events.token_event[first]), np.asarray(events.token_event[last])
    n_tokens, n_events = int((last - first).sum()), int((high - low).sum())
    np.save(folder / "kept.npy", rows.astype(np.int64))
    np.save(folder / "kept_token.npy", offsets(last - first))
    offset = new_array(folder / "token_event.npy", np.int64, (n_tokens + 1,))
    offset[0] = 0
    at = 0
    for run in _runs(first, last, BYTES_AT_ONCE // 8):
        token_events = np.asarray(events.token_event[run.start : run.stop + 1])
        offset[at + 1 : at + len(token_events)] = token_events[1:] - token_events[0] + offset[at]
        at += len(token_events) - 1
        memory.release(offset, events.token_event)
    offset.flush()
    for name in ("event_feature", "event_value"):
        source: Array = getattr(events, name)
        target = new_array(folder / f"{name}.npy", source.dtype, (n_events,))
        at = 0
        for run in _runs(low, high, BYTES_AT_ONCE // source.dtype.itemsize):
            target[at : at + run.stop - run.start] = source[run]
            at += run.stop - run.start
            memory.release(source, target)
        target.flush()


def publish(part: Path) -> None:
    """Puts the trimmed arrays, where they are complete, in place of the full ones. It may be repeated."""
    trimmed_folder, events_folder = part / TRIMMED, part / EVENTS
    if trimmed_folder.is_dir():
        shutil.rmtree(events_folder, ignore_errors=True)
        trimmed_folder.rename(events_folder)


def forget(part: Path) -> None:
    """Removes trimmed arrays that an earlier run did not put in place."""
    for folder in part.glob(f"{TRIMMED}*"):
        shutil.rmtree(folder)


def _runs(low: Array, high: Array, max_length: int) -> Iterator[slice]:
    """Slices of at most `max_length` entries that cover the runs low…high−1; runs that touch are joined.

    Args:
        low, high: int64 [n], rising.
    """
    if not len(low):
        return
    begins = np.flatnonzero(np.r_[True, low[1:] != high[:-1]])
    ends = np.r_[begins[1:], len(low)] - 1
    for start, stop in zip(low[begins].tolist(), high[ends].tolist(), strict=True):
        for at in range(start, stop, max_length):
            yield slice(at, min(stop, at + max_length))
