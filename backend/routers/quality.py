"""What is bad in the data: flags, scores, and the ids worth keeping."""

from __future__ import annotations

from fastapi import APIRouter

from backend.deps import Cached, StoreDep
from backend.schemas import Flag, Page, Score

router = APIRouter(tags=["quality"], dependencies=[Cached])


@router.get("/scores", summary="Each score with its distribution and calibration")
def get_scores(store: StoreDep) -> Page[Score]:
    return Page[Score].model_validate({"items": store.store.scores, "total": len(store.store.scores)})


@router.get("/flags", summary="Each flag with its threshold, count and calibration")
def get_flags(store: StoreDep) -> Page[Flag]:
    return Page[Flag].model_validate({"items": store.store.flags, "total": len(store.store.flags)})
