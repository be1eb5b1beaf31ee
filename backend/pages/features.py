"""The list of features, and the page of one feature."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.controls import get_controls
from backend.api.features import FeatureQuery
from backend.api.stores import get_store_detail
from backend.deps import StateDep, StoreDep
from backend.pages.cards import previews
from backend.params import FormQuery
from backend.schemas.common import FeatureSort, Order
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)

FEATURE_SORTS = {
    "evidence": "evidence",
    "agreement": "agreement",
    "agreement_low": "agreement, lower end",
    "label_score": "name score",
    "pair_lift": "pair lift",
    "pair_lift_low": "pair lift, lower end",
    "pair_lift_alone": "pair lift, text alone",
    "place_share": "share of one place",
    "lift": "lift of ω",
    "omega": "ω",
    "omega_centred": "ω centred",
    "lift_without_self": "lift without self",
    "density_text": "text density",
    "density_image": "image density",
    "max_activation": "largest activation",
    "n_samples": "samples",
    "modality_share": "modality share",
    "same_sample_rate": "same-sample rate",
    "id": "number",
}
FEATURE_COLUMNS = [
    (
        "agreement",
        "Agreement",
        "Share of its strongest images whose caption has one of its top words, beyond the word's base rate",
    ),
    (
        "pair_lift",
        "Pair lift",
        "Pairs with it on both text and image, over their number if captions of one length were exchanged",
    ),
    (
        "omega",
        "ω (baseline)",
        "Cosine of its strongest text and image residual vectors; in brackets the baseline, from random tokens",
    ),
    ("density_text", "Text", "Share of text tokens that activate it"),
    ("density_image", "Image", "Share of image patches that activate it"),
    ("max_activation", "Max", "Largest activation, in the SAE's units"),
    ("n_samples", "Samples", "Number of samples in which any token activates it"),
]
LIST_ROWS = 30


class FeatureList(FormQuery, FeatureQuery):
    """As in the API, but the features with the most evidence first, and one line for each name."""

    sort: FeatureSort = "evidence"
    order: Order = "desc"
    fold: Literal["families", "names", "none"] = "names"  # type: ignore[assignment]


@router.get("/features")
def features(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[FeatureList, Query()]
) -> HTMLResponse:
    """The list of features."""
    fold = None if query.fold == "none" or query.family is not None else query.fold
    page = features_api.get_features(open_store, query.model_copy(update={"limit": LIST_ROWS, "fold": fold}))
    return render_for(
        request,
        "features.html",
        state,
        open_store,
        section="/features",
        page=page,
        api_query=query.model_dump(exclude_none=True, exclude={"limit", "fold"}) | ({"fold": fold} if fold else {}),
        q={**query.model_dump(), "verdict": query.verdict[0] if query.verdict else None},
        sorts=FEATURE_SORTS.items(),
        columns=FEATURE_COLUMNS,
        verdicts=get_store_detail(state, open_store).verdicts,
        controls=get_controls(open_store),
        previews=previews(request, open_store, [f.id for f in page.items]),
    )
