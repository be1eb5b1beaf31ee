"""Whether flags are right: marks of flagged pairs, the precision that follows, and a threshold."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.annotations import marks as m
from backend.api.annotations.writing import WritingDep
from backend.deps import Cached, StoreDep
from backend.links import InQuery, check_sample
from backend.schemas.annotations import FlagMarks, Mark, MarkChange, Precision
from backend.schemas.common import FlagName
from backend.stores import OpenStore
from precompute.store.schema import flag_column
from precompute.store.sql import fetch_of

router = APIRouter(tags=["annotations"])

Threshold = Annotated[
    float | None, Query(allow_inf_nan=False, description="Another than the flag's own, for the precision.")
]


@router.get(
    "/annotations/marks/{flag}", summary="Marked pairs of a flag, its precision, and a threshold", dependencies=[Cached]
)
def get_marks(store: StoreDep, flag: FlagName, threshold: Threshold = None) -> FlagMarks:
    limit = store.reader.quality.flag(flag)["threshold"] if threshold is None else threshold
    entries = [entry for entry in store.annotations.entries("mark") if entry.body and entry.body["flag"] == flag]
    scores = scores_of(store, flag, [entry.body["sample_id"] for entry in entries if entry.body])
    items = [
        Mark(right=entry.body["right"], sample_id=entry.body["sample_id"], score=scores.get(entry.body["sample_id"]),
             author=entry.author, at=entry.at)
        for entry in entries if entry.body
    ]  # fmt: skip
    items.sort(key=lambda item: (item.score is None, -(item.score or 0.0), item.sample_id))
    judgements = [m.Judged(item.score, item.right) for item in items if item.score is not None]
    suggestion = m.suggest(judgements)
    return FlagMarks(
        flag=flag,
        items=items,
        precision=Precision(**m.precision(judgements, limit)._asdict()),
        suggestion=None if suggestion is None else Precision(**suggestion._asdict()),
        target=m.TARGET,
    )


def scores_of(store: OpenStore, flag: str, ids: list[str]) -> dict[str, float]:
    """The score of a flag, by sample id; those without one are left out."""
    query = f"SELECT sample_id, {flag_column(flag)} FROM samples WHERE sample_id IN (?)"
    return {id: value for id, value in fetch_of(store.reader.engine, query, ids) if value is not None}


@router.put("/annotations/marks/{flag}", summary="Mark whether a flag is right about a pair")
def put_mark(writing: WritingDep, flag: FlagName, sample_id: InQuery, change: MarkChange) -> FlagMarks:
    """The last mark counts; earlier ones stay in its history."""
    write_mark(writing.store, flag, sample_id, change.right, writing.author(change))
    return get_marks(writing.store, flag)


@router.delete("/annotations/marks/{flag}", summary="Take a mark back")
def delete_mark(writing: WritingDep, flag: FlagName, sample_id: InQuery) -> FlagMarks:
    write_mark(writing.store, flag, sample_id, None, writing.author())
    return get_marks(writing.store, flag)


def write_mark(store: OpenStore, flag: str, sample_id: str, right: bool | None, author: str) -> None:
    """Mark a pair; None takes the mark back. Raises HTTP 404 where there is no such sample."""
    check_sample(store, sample_id)
    body = None if right is None else {"flag": flag, "sample_id": sample_id, "right": right}
    store.annotations.put("mark", f"{flag}:{sample_id}", body, author=author, version=None)
