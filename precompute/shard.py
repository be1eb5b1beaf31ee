"""A shard of the pass: what is kept of each of its samples, and the file that holds it until the merge."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute import accumulate as acc
from precompute.data import SetAside
from precompute.encode import Encoded
from precompute.model import IMAGE, TEXT

if TYPE_CHECKING:
    from precompute.collect import Loaded

Array = NDArray[Any]
SHARDS = "shards"
"""Their folder in the unfinished store."""


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
    part: Path,
    number: int,
    samples: list[Sample],
    set_aside: list[SetAside],
    sums: Array,
    *,
    n_features: int,
    d_model: int,
    seed: int,
) -> None:
    """One .npz, and D_s's residuals beside it as .npy; in place only when whole.

    Args:
        samples: of the shard, in the data's order. sums: float64 [batches, 2, d], Σh by modality.
    """
    running = acc.Running(n_features, seed)
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
    rows_td = torch.cat([h for _, _, h in resid]) if resid else torch.zeros(0, d_model).bfloat16()
    path = shard_path(part, number)
    with resid_path(part, number).open("wb") as file:
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


def shard_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.npz"


def resid_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.resid.npy"
