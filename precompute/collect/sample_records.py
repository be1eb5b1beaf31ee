"""The records of all samples at the end of `collect`, put into the data's order without one list of them in memory."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.collect.collector import Collector, thumb_path
from precompute.collect.shard import shard_path
from precompute.data.disk.json_table import JsonTable, JsonTableWriter
from precompute.data.disk.row_table import indices
from precompute.data.records import RejectedRow
from precompute.utils.files import atomic_write, hardlink
from precompute.utils.types import Array


class SampleHeaders(NamedTuple):
    """The small columns of all shards; n counts the store's rows, which lie in the data's order."""

    index_n: Array
    """int64 [N], rising: the data's row number of each row of the store."""
    n_token: Array
    """int64 [N]: tokens of each row."""
    n_event: Array
    """int64 [N]: events of each row."""
    max_n2: Array
    """int64 [N, 2]: features active on each row's text and image."""
    alone_n: Array
    """int64 [N]: features active on each row's text where it is run without its image."""
    order_n: Array
    """int64 [N]: the place of each row's record among those of all shards, one shard behind the other."""
    rejected_rows: list[RejectedRow]


def shards(job: Collector) -> Iterator[tuple[int, Any]]:
    """Number and open .npz file of every shard (shard.py writes them)."""
    for number in range(len(job.plan.shards)):
        with np.load(shard_path(job.part, number), allow_pickle=False) as file:
            yield number, file


def read_records(job: Collector) -> JsonTable:
    """Of each sample `index` of the data, `images` and `views`, in the order of the shards."""
    writer = JsonTableWriter(job.part)
    for _, file in shards(job):
        for record in json.loads(file["records"].tobytes()):
            writer.append(record)
    return writer.table()


def places_of(index_r: Array, index_n: Array) -> Array:
    """int64 [N], where each index is among those of the rows (int64 [R]), which may stand in any order: the rows of a
    trial run are drawn by chance."""
    order_r = np.argsort(index_r, kind="stable")
    return order_r[np.searchsorted(index_r, index_n, sorter=order_r)]


def write_records(job: Collector, head: SampleHeaders) -> tuple[str, Array]:
    """samples.jsonl, quarantine.jsonl and the thumbnails under their row numbers.

    Returns:
        the data's SHA-256; and int64 [N, 2], width and height of each sample's first image, 0 where it has none.
    """
    records, row_n = read_records(job), places_of(indices(job.data.rows), head.index_n)
    size_n2 = np.zeros((len(row_n), 2), np.int64)
    digest = hashlib.sha256()
    folder = job.part / "collect"
    with atomic_write(folder / "samples.jsonl", "w") as file:
        for number, (at, row_at) in enumerate(zip(head.order_n, row_n, strict=True)):
            record, row = records[at], job.data.rows[row_at]
            if record["images"]:
                size_n2[number] = record["images"][0]["width"], record["images"][0]["height"]
            images = []
            for i, image in enumerate(record["images"]):
                thumb = Path("images") / str(number // 1000) / f"{number}_{i}.webp"
                (job.part / thumb).parent.mkdir(exist_ok=True)
                hardlink(thumb_path(job.part, row.index, i), job.part / thumb)
                images.append({**image, "thumb": thumb.as_posix()})
            meaning = [
                row.sample_id,
                row.text,
                [image["sha256"] for image in record["images"]],
                row.extra,
            ]
            digest.update(json.dumps(meaning, sort_keys=True, ensure_ascii=False).encode() + b"\n")
            line = {
                "row": number, "index": row.index, "sample_id": row.sample_id, "text": row.text, "images": images,
                "views": record["views"], "extra": row.extra, "source": row.source,
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with atomic_write(folder / "quarantine.jsonl", "w") as file:
        for rejection in head.rejected_rows:
            file.write(json.dumps(asdict(rejection), ensure_ascii=False) + "\n")
    return digest.hexdigest(), size_n2
