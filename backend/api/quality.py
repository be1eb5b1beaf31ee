"""Quality of the data: flags, scores, and the ids that a filter keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.deps import Cached, StoreDep
from backend.schemas.common import FilterName, Page
from backend.schemas.samples import Flag, Score
from precompute.errors import SaevxError
from precompute.scoring.filter import kept_rows, lines_of
from precompute.store.opening import StoreUnreadable
from precompute.store.schema import FLAGS, SELECTIONS

router = APIRouter(tags=["quality"], dependencies=[Cached])


@router.get("/scores", summary="Scores, each with its distribution and calibration")
def get_scores(store: StoreDep) -> Page[Score]:
    return Page[Score].model_validate({"items": store.store.quality.scores, "total": len(store.store.quality.scores)})


@router.get("/flags", summary="Flags, each with its threshold, count and calibration")
def get_flags(store: StoreDep) -> Page[Flag]:
    return Page[Flag].model_validate({"items": store.store.quality.flags, "total": len(store.store.quality.flags)})


MAX_SELECTED = 50_000
"""Samples among which a request may choose a set."""


def flag_names(values: list[str]) -> list[str]:
    """Flags from repeated parameters or lists separated by commas, each as NAME or NAME:THRESHOLD; `all` stands for
    every flag at its own threshold."""
    names = [name.strip() for part in values for name in part.split(",") if name.strip()]
    changed = {name.partition(":")[0] for name in names if ":" in name}
    if "all" in names:
        names += [name for name in FLAGS if name not in changed]
    return [name for name in dict.fromkeys(names) if name != "all"]


@router.get(
    "/filter",
    summary="Ids of the best samples, streamed",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One object per line."}},
)
def get_filter(
    store: StoreDep,
    by: Annotated[FilterName, Query(description="Score that ranks the samples, or a way to look at the whole set.")],
    keep: Annotated[float, Query(ge=0, le=100, description="Percent of the remaining samples.")] = 50,
    flags: Annotated[
        list[str],
        Query(max_length=50, description="Leave out samples with these flags: NAME, NAME:THRESHOLD or `all`."),
    ] = [],  # noqa: B006 - FastAPI copies it
    format: Annotated[
        Literal["jsonl", "ids"], Query(description="`jsonl`: one object per line; `ids`: one id per line.")
    ] = "jsonl",
) -> StreamingResponse:
    if by in SELECTIONS and store.store.n_samples > MAX_SELECTED:
        raise HTTPException(422, f"{by} takes minutes for so many samples: use the command saevx filter.")
    try:
        rows = kept_rows(store.store, by=by, keep=keep, flags=flag_names(flags))
        lines = lines_of(store.store, rows, by, format)
    except StoreUnreadable:
        raise
    except SaevxError as error:
        raise HTTPException(422, str(error)) from error
    suffix = "jsonl" if format == "jsonl" else "txt"
    headers = {
        "X-Total-Count": str(store.store.n_samples),
        "X-Kept-Count": str(len(rows)),
        "Content-Disposition": f'attachment; filename="kept-{by}-{keep:g}.{suffix}"',
    }
    media_type = "application/x-ndjson" if format == "jsonl" else "text/plain; charset=utf-8"
    return StreamingResponse(lines, media_type=media_type, headers=headers)
