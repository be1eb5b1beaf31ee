"""The test of an explanation."""

from __future__ import annotations

from fastapi import APIRouter, Request

from backend.deps import StateDep, StoreDep
from backend.live.explain import request_test
from backend.schemas.explain import ExplainTestRequest, ExplanationTest

router = APIRouter(tags=["explaining"])


@router.post("/explain/test", summary="Take features or patches away, and see which words of the answer fall")
async def post_explain_test(
    request: Request, state: StateDep, store: StoreDep, body: ExplainTestRequest
) -> ExplanationTest:
    """Beside as many random features and patches, and beside the prompt without its image."""
    return await request_test(request, state, store, body)
