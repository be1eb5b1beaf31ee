"""Which features carried a token of the model's answer, and the test of such an explanation."""

from fastapi import APIRouter

from backend.deps import VisitDep
from backend.live.explain import request_explanation, request_test
from backend.schemas.explain import ExplainRequest, ExplainTestRequest, Explanation, ExplanationTest

router = APIRouter(tags=["explaining"])


@router.post("/explain", summary="Ask the model, and attribute a token of its answer to features")
async def post_explain(visit: VisitDep, body: ExplainRequest) -> Explanation:
    """Activation × gradient of the token's log-odds at layer L, summed per feature and kind of token."""
    return await request_explanation(visit, body)


@router.post("/explain/test", summary="Take features or patches away, and see which words of the answer fall")
async def post_explain_test(visit: VisitDep, body: ExplainTestRequest) -> ExplanationTest:
    """Beside as many random features and patches, and beside the prompt without its image."""
    return await request_test(visit, body)
