"""Which features carried a token of the model's answer."""

from __future__ import annotations

from fastapi import APIRouter, Request

from backend.deps import StateDep, StoreDep
from backend.live.explain import request_explanation
from backend.schemas.explain import ExplainRequest, Explanation

router = APIRouter(tags=["explaining"])


@router.post("/explain", summary="Ask the model, and attribute a token of its answer to features")
async def post_explain(request: Request, state: StateDep, store: StoreDep, body: ExplainRequest) -> Explanation:
    """Activation × gradient of the token's log-odds at layer L, summed per feature and kind of token."""
    return await request_explanation(request, state, store, body)
