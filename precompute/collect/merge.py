"""End of `collect`: the shards put together, samples in the data's order, as the later steps read them.

Rows are numbered here, when it is known which samples are rejected; the layout is in docs/store.md.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from precompute.collect import accumulators as acc
from precompute.collect.captions import row_of
from precompute.collect.collector import CALIBRATION_FILE, THUMBS, Collector
from precompute.collect.sample_records import SampleHeaders, shards, write_records
from precompute.collect.shard import SHARDS, feature_type, resid_path, shard_path, write_arrays
from precompute.data.records import RejectedRow
from precompute.data.rejections import all_rejected_message
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, SINK, SPECIAL, TEXT
from precompute.sae.reconstruction import QualitySums
from precompute.store.schema import PLACE_SIDE, TOKEN_KINDS
from precompute.utils import memory
from precompute.utils.files import new_array, write_text
from precompute.utils.ragged import expand, offsets
from precompute.utils.types import Array

FAN_IN = 8
"""Files of accumulators that are merged into one."""
TOKENS = 1 << 20
"""Tokens in memory at a time."""
KINDS = {"n_text": TEXT, "n_image": IMAGE, "n_special": SPECIAL, "n_sink": SINK}


def read_headers(job: Collector) -> SampleHeaders:
    """Row order of the store, from all shards.

    Raises:
        SaevxError: every sample was rejected.
    """
    parts: dict[str, list[Array]] = {name: [] for name in ("index", "n_token", "n_event", "max_n", "alone_n")}
    rejected_rows = list(job.data.rejected_rows)
    for _, file in shards(job):
        token_start = offsets(file["n_token"])
        event_start = offsets(file["token_count"])
        parts["index"].append(file["index"])
        parts["n_token"].append(file["n_token"])
        parts["n_event"].append(np.diff(event_start[token_start]))
        parts["max_n"].append(file["max_n"])
        parts["alone_n"].append(file["alone_n"])
        rejected_rows += [RejectedRow(*row) for row in json.loads(file["set_aside"].tobytes())]
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    if not len(columns["index"]):
        raise SaevxError(all_rejected_message("No sample could be used", rejected_rows))
    order = np.argsort(columns["index"])
    index_n, n_token, n_event, max_n2, alone_n = (column[order] for column in columns.values())
    return SampleHeaders(index_n, n_token, n_event, max_n2, alone_n, order, sorted(rejected_rows))


def merge(job: Collector, ds: int) -> dict[str, Any]:
    """Writes events/, images/ and collect/; repeatable, so a killed merge is done again.

    Args:
        ds: members of D_s.

    Returns:
        the manifest's `tokens`, `quality`, and counts of `data`.
    """
    for folder in ("events", "collect", "images"):
        shutil.rmtree(job.part / folder, ignore_errors=True)
        (job.part / folder).mkdir(parents=True)
    head = read_headers(job)
    write_events(job, head)
    write_maxima(job, head)
    write_residuals(job, head, ds)
    write_accum(job, head)
    digest, size_n2 = write_records(job, head)
    totals = write_samples(job, head, size_n2)
    vocabulary = json.dumps(job.mllm.vocabulary(), ensure_ascii=False)
    write_text(job.part / "collect" / "vocabulary.json", vocabulary.encode("utf-8", "replace").decode())
    return {
        **totals,
        "data": {
            "name": job.data.name,
            "sha256": digest,
            "n_rows": job.data.n_rows,
            "n_samples": len(head.index_n),
            "n_quarantined": len(head.rejected_rows),
        },
    }


def write_events(job: Collector, head: SampleHeaders) -> None:
    """events/: tokens and their features."""
    folder = job.part / "events"
    token_start, event_start = offsets(head.n_token), offsets(head.n_event)
    n_tokens, n_events = int(token_start[-1]), int(event_start[-1])
    np.save(folder / "sample_token.npy", token_start)
    arrays = {
        "token_id": (np.int32, n_tokens),
        "token_modality": (np.uint8, n_tokens),
        "event_feature": (feature_type(job.sae.n_features), n_events),
        "event_value": (np.float16, n_events),
    }
    files = {name: new_array(folder / f"{name}.npy", kind, (n,)) for name, (kind, n) in arrays.items()}
    token_event = new_array(folder / "token_event.npy", np.int64, (n_tokens + 1,))
    for _, file in shards(job):
        row_n = np.searchsorted(head.index_n, file["index"])
        at_t = expand(token_start[row_n], head.n_token[row_n])
        at_e = expand(event_start[row_n], head.n_event[row_n])
        token_event[at_t + 1] = file["token_count"]
        for name, target in files.items():
            target[at_t if name.startswith("token") else at_e] = file[name]
        memory.release(token_event, *files.values())
    for low in range(0, n_tokens, TOKENS):  # counts become offsets
        piece = token_event[low : low + TOKENS + 1]
        np.cumsum(piece, out=piece)
        memory.release(token_event)
    for target in (token_event, *files.values()):
        target.flush()


def write_maxima(job: Collector, head: SampleHeaders) -> None:
    """collect/max_full_*: every feature's largest value in every (row, modality). collect/alone_*: the same in every
    row's text without its image, where that was run."""
    start = offsets(head.max_n2.reshape(-1))
    np.save(job.part / "collect" / "max_full_offset.npy", start)
    gather(job, head, ("max", "max_full"), start[::2])  # a row's two modalities lie side by side
    if job.text_alone:
        start = offsets(head.alone_n)
        np.save(job.part / "collect" / "alone_offset.npy", start)
        gather(job, head, ("alone", "alone"), start)


def gather(job: Collector, head: SampleHeaders, names: tuple[str, str], start: Array) -> None:
    """Features and values of which every row has a run, from all shards.

    Args:
        names: in a shard's file, and in collect/. start: int64 [N + 1]: where each row's run begins.
    """
    source, target = names
    n, length_n = (int(start[-1]),), np.diff(start)
    feature = new_array(job.part / "collect" / f"{target}_feature.npy", feature_type(job.sae.n_features), n)
    value = new_array(job.part / "collect" / f"{target}_value.npy", np.float16, n)
    for _, file in shards(job):
        row_n = np.searchsorted(head.index_n, file["index"])
        at = expand(start[row_n], length_n[row_n])
        feature[at], value[at] = file[f"{source}_feature"], file[f"{source}_value"]
        memory.release(feature, value)
    feature.flush()
    value.flush()


def write_residuals(job: Collector, head: SampleHeaders, ds: int) -> None:
    """collect/resid*: h of D_s's counted tokens as bf16 bits, by row and position."""
    folder = job.part / "collect"
    index_n = np.array([job.data.rows[i].index for i in job.plan.ds], dtype=np.int64)
    members = np.sort(index_n[np.isin(index_n, head.index_n)][:ds])
    np.save(folder / "ds_rows.npy", np.searchsorted(head.index_n, members))
    blocks = []
    for number, file in shards(job):
        at = np.flatnonzero(np.isin(file["resid_index"], members))
        blocks.append((number, at, file["resid_index"][at], file["resid_pos"][at]))
    index = np.concatenate([part[2] for part in blocks])
    position = np.concatenate([part[3] for part in blocks])
    order = np.lexsort((position, index))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    np.save(folder / "resid_row.npy", np.searchsorted(head.index_n, index[order]))
    np.save(folder / "resid_pos.npy", position[order])
    target = new_array(folder / "resid.npy", np.uint16, (len(order), job.mllm.d_model))
    begin = 0
    for number, at, *_ in blocks:
        source = np.load(resid_path(job.part, number), mmap_mode="r", allow_pickle=False)
        target[place[begin : begin + len(at)]] = source[at]
        begin += len(at)
        memory.release(target)
    target.flush()


def write_accum(job: Collector, head: SampleHeaders) -> None:
    """collect/accum.npz: the accumulators of all data, with the store's own row numbers."""
    widths = merge_tree(len(job.plan.shards))
    top = [accum_path(job.part, len(widths) - 1, i) for i in range(widths[-1])]
    if not all(path.exists() for path in top):  # no workers to merge them beforehand
        top = [accum_path(job.part, 0, i) for i in range(widths[0])]
    tables = acc.tables(accum_of(job, top))
    for name in ("top_row", "band_row"):
        index = tables[name]
        tables[name] = np.where(index >= 0, np.searchsorted(head.index_n, index), -1)
    np.savez(job.part / "collect" / "accum.npz", **tables)  # type: ignore[arg-type]


def merge_tree(n: int) -> list[int]:
    """Files in each level of the tree over n shards, from the shards themselves to the FAN_IN or fewer that
    `write_accum` reads. Workers merge the levels in parallel, so that the command need not read every shard's file."""
    widths = [n]
    while widths[-1] > FAN_IN:
        widths.append(-(-widths[-1] // FAN_IN))
    return widths


def merge_node(job: Collector, level: int, number: int) -> None:
    """The accumulators of a node's FAN_IN or fewer children, as one file. As merging is associative to the bit, the
    tree changes no byte of the store."""
    path, n = accum_path(job.part, level, number), merge_tree(len(job.plan.shards))[level - 1]
    if not path.exists():
        children = range(number * FAN_IN, min((number + 1) * FAN_IN, n))
        accum = accum_of(job, [accum_path(job.part, level - 1, i) for i in children])
        write_arrays(path, {f"accum_{name}": array for name, array in acc.save(accum).items()})


def accum_of(job: Collector, paths: Sequence[Path]) -> acc.Accum:
    """The accumulators of several files as one."""
    accumulator = acc.Accumulator(job.sae.n_features, job.seed)
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            names = [name for name in file.files if name.startswith("accum_")]
            accumulator.merge(acc.load({name.removeprefix("accum_"): file[name] for name in names}))
    return accumulator.accum()


def accum_path(part: Path, level: int, number: int) -> Path:
    """A node's file; at level 0 the shard's own."""
    return shard_path(part, number).with_suffix(f".level{level}.npz") if level else shard_path(part, number)


def write_samples(job: Collector, head: SampleHeaders, size_n2: Array) -> dict[str, Any]:
    """collect/sample.npz: per-sample figures. Returns the manifest's `tokens` and `quality`.

    Args:
        size_n2: of `write_records`.
    """
    n, d = len(head.index_n), job.mllm.d_model
    sums = {name: np.zeros((n, 2)) for name in ("sse", "sq")}
    nll_n3, other_n, kinds = np.full((n, 3), np.nan), np.full(n, -1), np.zeros((n, 4), np.int64)
    sum_md, error_c, count = np.zeros((2, d)), np.zeros(PLACE_SIDE**2), np.zeros(2, np.int64)
    for _, file in shards(job):
        row_n = np.searchsorted(head.index_n, file["index"])
        for name, target in sums.items():
            target[row_n] = file[name]
        nll_n3[row_n], other_n[row_n] = file["nll"], file["other"]
        sample_t = np.repeat(np.arange(len(row_n)), file["n_token"])
        kinds[row_n] = np.bincount(sample_t * 4 + file["token_modality"], minlength=4 * len(row_n)).reshape(-1, 4)
        count += np.bincount(np.repeat(file["token_modality"], file["token_count"]), minlength=2)[:2]
        for batch_md, batch_c in zip(file["sums"], file["place_errors"], strict=True):
            sum_md += batch_md  # batch by batch: the order of a float sum must not hang on the shards
            error_c += batch_c
    columns: dict[str, Any] = {name: kinds[:, kind] for name, kind in KINDS.items()}
    columns |= {"width": size_n2[:, 0], "height": size_n2[:, 1], "other_row": row_of(other_n, head.index_n)}
    columns |= {name: nll_n3[:, i] for i, name in enumerate(("caption_nll", "caption_nll_alone", "other_nll"))}
    for i, m in enumerate(("text", "image")):
        columns |= {f"{name}_{m}": per_sample[:, i] for name, per_sample in sums.items()}
        columns[f"sum_{m}_d"] = sum_md[i]
    np.savez(job.part / "collect" / "sample.npz", sse_place=error_c.reshape(PLACE_SIDE, PLACE_SIDE), **columns)
    tokens = kinds.sum(axis=0)
    return {
        "tokens": dict(zip(TOKEN_KINDS, tokens.tolist(), strict=True)),
        "quality": QualitySums(tokens[:2], count, sums["sse"].sum(axis=0), sums["sq"].sum(axis=0), sum_md).figures(),
    }


def remove_temporary(part: Path) -> None:
    """Remove what only an interrupted pass needs."""
    for folder in (SHARDS, THUMBS):
        shutil.rmtree(part / folder, ignore_errors=True)
    (part / CALIBRATION_FILE).unlink(missing_ok=True)
