"""The samples of a list, or some of them, as lines."""

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.api.samples import SampleQuery
from backend.deps import StoreDep
from backend.links import check_feature, check_sample, sample_of
from backend.params import FormQuery
from precompute.scoring.filter import lines_of
from precompute.utils.text import ascii_name

router = APIRouter(tags=["samples"])


class SampleFileQuery(FormQuery, SampleQuery):
    """The filters of the list of samples, or some samples by their ids."""

    id: Annotated[list[str], Query(max_length=500)] = []  # noqa: RUF012 - pydantic copies it
    """Only these samples, whatever the filters say: ids as addresses name them."""
    leave_out: bool = False
    """All samples of the list but those of `id`, instead of them alone."""
    ticked: bool = False
    """Refuse an export without `id`."""
    format: Literal["jsonl", "ids"] = "jsonl"
    """`jsonl`: one object per line; `ids`: one id per line."""


@router.get(
    "/export",
    summary="All samples of a list, streamed",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One object per line."}},
)
def get_export(store: StoreDep, query: Annotated[SampleFileQuery, Query()]) -> StreamingResponse:
    if query.ticked and not query.id:
        raise HTTPException(422, "No sample is ticked: tick at least one, or export the whole list.")
    if query.feature is not None:
        check_feature(store, query.feature)
    rows = np.array([check_sample(store, sample_of(key)) for key in query.id], np.int64)
    if query.leave_out or not query.id:
        rows = np.setdiff1d(store.reader.selection.ordered_rows(**query.selection(store)), rows)
    rows = np.unique(rows)
    suffix, media_type = ("jsonl", "application/x-ndjson") if query.format == "jsonl" else ("txt", "text/plain")
    name = f"{ascii_name(store.name)}-{len(rows)}-samples.{suffix}"
    headers = {"X-Kept-Count": str(len(rows)), "Content-Disposition": f'attachment; filename="{name}"'}
    lines = lines_of(store.reader, rows, query.by or query.sort, query.format)
    return StreamingResponse(lines, media_type=f"{media_type}; charset=utf-8", headers=headers)
