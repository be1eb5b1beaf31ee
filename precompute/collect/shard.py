"""A shard of the pass: what a store holds of each of its samples, and the file in which it lies until the merge."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.collect import accumulators as acc
from precompute.collect.entries import Activations, BySample
from precompute.data.records import RejectedRow
from precompute.model.batch import IMAGE, TEXT
from precompute.model.loader import LoadedBatch
from precompute.sae.encode import EncodedBatch
from precompute.store.schema import PLACE_SIDE
from precompute.utils.files import atomic_write
from precompute.utils.ragged import offsets
from precompute.utils.tensors import nonzero_indices, on_float64_device
from precompute.utils.types import Array

NO_NLL = np.full(3, np.nan)
SHARDS = "shards"
"""Their folder in the unfinished store."""


class Maxima(NamedTuple):
    """The features that are active somewhere."""

    feature: Array
    """uint16, uint32 beyond 65,536 features: ascending."""
    value: Array
    """float16, in stored units: the largest of each."""


NO_MAXIMA = Maxima(np.zeros(0, np.uint16), np.zeros(0, np.float16))


@dataclass(frozen=True)
class Sample:
    """All that a store holds of one sample: t counts its tokens, e its events."""

    index: int
    """Number of its row in the data."""
    token_id_t: Array
    """int32 [t]."""
    modality_t: Array
    """uint8 [t]: TEXT, IMAGE, SPECIAL or SINK."""
    count_t: Array
    """int64 [t]: events of each token."""
    feature_e: Array
    """uint16 [e], uint32 beyond 65,536 features: ascending inside a token."""
    value_e: Array
    """float16 [e], in stored units."""
    max_m: Array
    """int64 [2]: features active in each modality."""
    max_feature: Array
    """As feature_e, [Σ max_m]: the text's features ascending, then the image's."""
    max_value: Array
    """float16 [Σ max_m], in stored units: the largest value of each of them."""
    error_m: Array
    """float64 [2] Σ‖h − ĥ‖² by modality."""
    square_m: Array
    """float64 [2] Σ‖h‖²."""
    nll_3: Array
    """float64 [3]: mean cross-entropy in nats of the caption beside its image, of the caption by itself, and of
    another's beside the image; NaN where it was not measured."""
    record: dict[str, Any]
    resid_td: Tensor | None
    """bf16 [counted tokens, d] of a member of D_s; None of other samples."""
    other: int = -1
    """Index of the row whose caption was read beside the image; −1 where none was."""
    alone: Maxima = NO_MAXIMA
    """Of its text, run without its image; none where that was not run."""


@dataclass(frozen=True)
class Shard:
    """All that its file holds."""

    samples: list[Sample]
    """In the data's order."""
    rejected_rows: list[RejectedRow]
    sums: Array
    """float64 [batches, 2, d]: Σh by modality."""
    place_errors: Array
    """float64 [batches, PLACE_SIDE²]: Σ‖h − ĥ‖² of image tokens by place."""
    accum: acc.Accum


def pair_events(encoded_batch: EncodedBatch, loaded_batch: LoadedBatch) -> Activations:
    """A batch's activations as the accumulators take them in; those of rejected pairs are left out."""
    events, length_b = encoded_batch.events, np.diff(encoded_batch.start_b)
    pair_t = np.repeat(np.arange(len(length_b)), length_b)
    position_t = np.arange(len(pair_t)) - encoded_batch.start_b[pair_t]
    at_tokens = np.flatnonzero(encoded_batch.modality_t <= IMAGE)
    is_good = np.array([reason is None for reason in encoded_batch.reason_b])[pair_t[at_tokens]]

    def by_token(column_t: Array) -> Tensor:
        return torch.from_numpy(column_t[at_tokens][is_good].astype(np.int64)).to(events.count_t.device)

    n_t, feature_e, value_e = events.count_t, events.feature_e, events.value_e
    if not is_good.all():
        good_t = torch.from_numpy(is_good).to(n_t.device)
        good_e = nonzero_indices(good_t.repeat_interleave(n_t))
        n_t, feature_e, value_e = n_t[nonzero_indices(good_t)], feature_e[good_e], value_e[good_e]
    row_s = torch.tensor([row.index for row in loaded_batch.rows], device=n_t.device)
    sample_t, modality_t = by_token(pair_t), by_token(encoded_batch.modality_t)
    cell_t = by_token(cells_of_tokens(encoded_batch, loaded_batch))
    return Activations(row_s, n_t, sample_t, modality_t, by_token(position_t), feature_e, value_e, cell_t)


def cells_of_tokens(encoded_batch: EncodedBatch, loaded_batch: LoadedBatch) -> Array:
    """int64 [t]: the place of each image token in its view, sinks too; PLACE_SIDE² of other tokens."""
    assert loaded_batch.batch is not None
    real_bs = np.arange(loaded_batch.batch.modality_bs.shape[1]) < loaded_batch.batch.length_b[:, None]
    image_t = loaded_batch.batch.modality_bs[real_bs] == IMAGE
    cell_t = np.full(len(image_t), PLACE_SIDE**2)
    grids = [view_cells(view.rows, view.cols) for views in encoded_batch.views for view in views]
    cell_t[image_t] = np.concatenate(grids) if grids else []
    return cell_t


@lru_cache(maxsize=256)
def view_cells(rows: int, cols: int) -> Array:
    """int64 [rows · cols]: the cell of PLACE_SIDE × PLACE_SIDE in which the centre of each patch lies."""
    row, col = ((2 * np.arange(n) + 1) * PLACE_SIDE // (2 * n) for n in (rows, cols))
    return (row[:, None] * PLACE_SIDE + col).ravel()


def maxima(samples: BySample) -> tuple[Array, Array, Array]:
    """Largest value of each feature in each (pair, modality).

    Returns:
        int64 [n, 2] how many, then features (ascending in each) and float16 values.
    """
    group = samples.group[samples.last]
    side = samples.sample[samples.last] * 2 + (group & 1)
    counts = torch.bincount(side, minlength=2 * len(samples.row_s)).reshape(-1, 2)
    return counts.cpu().numpy(), (group >> 1).cpu().numpy(), samples.value[samples.last].cpu().numpy()


def alone_maxima(
    encoded_batch: EncodedBatch, members: list[int], kind: type[np.unsignedinteger[Any]]
) -> dict[int, Maxima]:
    """By place in the batch, the largest value of each feature on a text that was run without its image.

    Args:
        encoded_batch: the texts. members: their places in the batch.
    """
    result: dict[int, Maxima] = {}
    bits_e = encoded_batch.value_e.view(np.uint16).astype(np.int64)
    for i, b in enumerate(members):
        _, e = encoded_batch.slices(i)
        key = np.sort(encoded_batch.feature_e[e] << 16 | bits_e[e])  # a positive float16's bits rise with it
        key = key[np.flatnonzero(np.diff(key >> 16, append=-1))]
        result[b] = Maxima((key >> 16).astype(kind), (key & 0xFFFF).astype(np.uint16).view(np.float16))
    return result


def samples_of(
    encoded_batch: EncodedBatch,
    loaded_batch: LoadedBatch,
    by_sample: BySample,
    ds: set[int],
    n_features: int,
    alone_of: Mapping[int, Maxima] | None = None,
) -> Iterator[Sample]:
    """A batch's samples, the rejected ones left out.

    Args:
        by_sample: the batch's activations. ds: indices of the rows that are members of D_s. alone_of: by place in the
            batch, as of `alone_maxima`.
    """
    count_t = np.diff(encoded_batch.offset_t)
    kind = feature_type(n_features)
    max_bm, max_feature, max_value = maxima(by_sample)
    feature_e, max_feature = encoded_batch.feature_e.astype(kind), max_feature.astype(kind)
    max_start = offsets(max_bm.sum(axis=1))
    for b, (row, images) in enumerate(zip(loaded_batch.rows, loaded_batch.images, strict=True)):
        if encoded_batch.reason_b[b] is not None:
            continue
        t, e = encoded_batch.slices(b)
        m = slice(int(max_start[b]), int(max_start[b + 1]))
        kind_t = encoded_batch.modality_t[t]
        masks = [kind_t == TEXT, kind_t == IMAGE]
        resid_td = None
        if row.index in ds:
            resid_td = encoded_batch.hidden_td[t][torch.from_numpy(kind_t <= IMAGE).to(encoded_batch.hidden_td.device)]
            resid_td = resid_td.to(torch.bfloat16).cpu()
        yield Sample(
            index=row.index,
            token_id_t=encoded_batch.token_id_t[t],
            modality_t=kind_t,
            count_t=count_t[t],
            feature_e=feature_e[e],
            value_e=encoded_batch.value_e[e],
            max_m=max_bm[b],
            max_feature=max_feature[m],
            max_value=max_value[m],
            alone=(alone_of or {}).get(b, NO_MAXIMA),
            error_m=np.array([encoded_batch.error_t[t][mask].sum() for mask in masks]),
            square_m=np.array([np.square(encoded_batch.norm_t[t][mask]).sum() for mask in masks]),
            nll_3=NO_NLL if loaded_batch.nll_b3 is None else loaded_batch.nll_b3[b],
            other=loaded_batch.exchanged[b][0] if b in loaded_batch.exchanged else -1,
            record={
                "index": row.index,
                "images": [image._asdict() for image in images],
                "views": [list(view) for view in encoded_batch.views[b]],
            },
            resid_td=resid_td,
        )


def sums_of(encoded_batch: EncodedBatch, good_b: Array) -> Array:
    """float64 [2, d]: Σh of the tokens counted, by modality."""
    length_b = np.diff(encoded_batch.start_b)
    kind_t = np.where(np.repeat(good_b, length_b), encoded_batch.modality_t, 255)
    sums = []
    for modality in (TEXT, IMAGE):
        at = torch.from_numpy(np.flatnonzero(kind_t == modality)).to(encoded_batch.hidden_td.device)
        hidden_td = on_float64_device(encoded_batch.hidden_td[at].float())
        sums.append(hidden_td.sum(dim=0, dtype=torch.float64).cpu().numpy())
    return np.stack(sums)


def place_errors_of(encoded_batch: EncodedBatch, loaded_batch: LoadedBatch, good_b: Array) -> Array:
    """float64 [PLACE_SIDE²]: Σ‖h − ĥ‖² of the image tokens counted, by place."""
    good_t = np.repeat(good_b, np.diff(encoded_batch.start_b)) & (encoded_batch.modality_t == IMAGE)
    cell_t = cells_of_tokens(encoded_batch, loaded_batch)
    return np.bincount(cell_t[good_t], encoded_batch.error_t[good_t], PLACE_SIDE**2)


def write_shard(part: Path, number: int, shard: Shard, *, n_features: int, d_model: int) -> None:
    """One .npz, and D_s's residuals next to it as .npy; each appears whole or not at all."""
    samples = shard.samples
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
        "max_n": np.array([s.max_m for s in samples], dtype=np.int64).reshape(-1, 2),
        "max_feature": _cat([s.max_feature for s in samples], kind),
        "max_value": _cat([s.max_value for s in samples], np.float16),
        "alone_n": np.array([len(s.alone.feature) for s in samples], dtype=np.int64),
        "alone_feature": _cat([s.alone.feature for s in samples], kind),
        "alone_value": _cat([s.alone.value for s in samples], np.float16),
        "sse": np.array([s.error_m for s in samples]).reshape(-1, 2),
        "sq": np.array([s.square_m for s in samples]).reshape(-1, 2),
        "nll": np.array([s.nll_3 for s in samples], dtype=np.float64).reshape(-1, 3),
        "other": np.array([s.other for s in samples], dtype=np.int64),
        "sums": shard.sums,
        "place_errors": shard.place_errors,
        "resid_index": _cat([np.full(len(h), i) for i, _, h in resid], np.int64),
        "resid_pos": _cat([np.flatnonzero(kinds <= IMAGE) for _, kinds, _ in resid], np.int32),
        "records": as_bytes([s.record for s in samples]),
        "set_aside": as_bytes([astuple(row) for row in shard.rejected_rows]),
        **{f"accum_{name}": array for name, array in acc.save(shard.accum).items()},
    }
    rows_td = torch.cat([h for _, _, h in resid]) if resid else torch.zeros(0, d_model).bfloat16()
    path = shard_path(part, number)
    with atomic_write(resid_path(part, number)) as file:
        np.save(file, rows_td.view(torch.uint16).numpy())
    write_arrays(path, arrays)


def feature_type(n_features: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if n_features <= 65536 else np.uint32


def _cat(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def as_bytes(value: Any) -> Array:
    """uint8: the value as JSON."""
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """A .npz that appears whole or not at all."""
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def shard_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.npz"


def resid_path(part: Path, number: int) -> Path:
    return part / SHARDS / f"{number:06d}.resid.npy"
