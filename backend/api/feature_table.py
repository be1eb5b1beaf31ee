"""Whole lists of features: as a file, a random one of them, and how their figures are distributed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.api.features import FeatureQuery, filters_of
from backend.deps import Cached, StoreDep
from backend.schemas.common import FeatureDistribution, Page
from backend.schemas.features import Feature
from backend.stores import OpenStore
from precompute.store.features import LISTED
from precompute.store.lists.whole import Rows
from precompute.store.schema import features

router = APIRouter(tags=["features"], dependencies=[Cached])

MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@router.get(
    "/features.{format}",
    summary="All features that the filters leave, as a file",
    response_class=StreamingResponse,
    responses={200: {"content": {media.partition(";")[0]: {} for media in MEDIA.values()}, "description": "A table."}},
)
def get_table(
    store: StoreDep, format: Literal["csv", "parquet"], query: Annotated[FeatureQuery, Query()]
) -> StreamingResponse:
    """Filters and order as of `GET /features`; `limit` and `cursor` mean nothing here."""
    chunks = store.store.features.whole_list(sort=query.sort, order=query.order, **filters_of(store, query))
    whole = chain([next(chunks, [])], chunks)  # a request that cannot be answered fails before the reply begins
    body = csv_lines(whole) if format == "csv" else parquet(whole)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in store.name)
    headers = {"Content-Disposition": f'attachment; filename="{name}-features.{format}"'}
    return StreamingResponse(body, media_type=MEDIA[format], headers=headers)


@router.get("/features/distributions", summary="How the figures that filters limit are distributed")
def get_distributions(store: StoreDep) -> Page[FeatureDistribution]:
    items = store.store.features.distributions
    return Page[FeatureDistribution].model_validate({"items": items, "total": len(items)})


@router.get("/features/random", summary="A random feature of those that the filters leave")
def get_random(store: StoreDep, query: Annotated[FeatureQuery, Query()]) -> Feature:
    """Filters as of `GET /features`."""
    feature = random_feature(store, query)
    return Feature.model_validate(store.store.features.list(ids=[feature]).items[0])


def random_feature(store: OpenStore, query: FeatureQuery) -> int:
    """Its number. Raises HTTP 404."""
    feature = store.store.features.random(**filters_of(store, query))
    if feature is None:
        raise HTTPException(404, "No feature passes these filters: relax one.")
    return feature


def csv_lines(chunks: Iterator[Rows]) -> Iterator[str]:
    """The table as text, a chunk at a time."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(LISTED)
    for rows in chunks:
        writer.writerows(rows)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()  # of a table without rows, its header


class Parts(io.RawIOBase):
    """A file that is sent while it is written."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        self.length += len(self.parts[-1])
        return len(self.parts[-1])

    def tell(self) -> int:
        return self.length

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self.parts = b"".join(self.parts), []
        return data


def parquet(chunks: Iterator[Rows]) -> Iterator[bytes]:
    """The table as a Parquet file, a row group a chunk."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    types = {"INTEGER": pa.int64(), "FLOAT": pa.float64(), "TEXT": pa.string()}
    columns = features.c
    schema = pa.schema([
        (name, types[str(columns[name].type)] if name in columns else pa.int64()) for name in LISTED
    ])  # fmt: skip
    file = Parts()
    with pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for rows in chunks:
            writer.write_table(pa.Table.from_pylist([dict(row._mapping) for row in rows], schema))
            yield file.take()
    yield file.take()
