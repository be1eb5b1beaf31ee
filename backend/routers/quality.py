"""What is bad in the data: flags, scores, and the ids worth keeping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.deps import Cached, StoreDep
from backend.schemas import Flag, Page, Score, ScoreName
from precompute.store.schema import FLAGS

router = APIRouter(tags=["quality"], dependencies=[Cached])


@router.get("/scores", summary="Each score with its distribution and calibration")
def get_scores(store: StoreDep) -> Page[Score]:
    return Page[Score].model_validate({"items": store.store.scores, "total": len(store.store.scores)})


@router.get("/flags", summary="Each flag with its threshold, count and calibration")
def get_flags(store: StoreDep) -> Page[Flag]:
    return Page[Flag].model_validate({"items": store.store.flags, "total": len(store.store.flags)})
