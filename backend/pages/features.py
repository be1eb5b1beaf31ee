"""The list of features, and one feature."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.features import FeatureSort
from backend.api.stores import get_store_detail
from backend.deps import StateDep, StoreDep
from backend.pages.cards import glimpses
from backend.pages.charts import chart, omega_scale
from backend.pages.heat import drawn_tokens, example_picture
from backend.pages.text import visible
from backend.schemas import Order, Verdict
from backend.templating import Maybe, MaybeFloat, MaybeStr, render_for

router = APIRouter(default_response_class=HTMLResponse)

FEATURE_SORTS = {
    "lift": "lift",
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
        "omega",
        "ω (baseline)",
        "Cosine of its strongest text and image residuals, beside that of random tokens",
    ),
    ("lift", "Lift", "ω minus its baseline"),
    ("density_text", "Text", "Share of text tokens on which it is active"),
    ("density_image", "Image", "Share of image patches on which it is active"),
    ("modality_share", "Share", "0: fires on text only, 1: on image only"),
    ("max_activation", "Max", "Largest activation, in the SAE's units"),
    ("n_samples", "Samples", "Samples in which any token switches it on"),
]
LIST_ROWS = 30
BANDS = {
    -1: ("top", "The samples in which it is strongest, each by its strongest token."),
    0: ("high", "Samples drawn at random from the feature's highest octave of activation."),
    1: ("½", "Samples drawn at random from the octave below the highest."),
    2: ("¼", "Samples drawn at random from the second octave below the highest."),
    3: ("low", "Samples drawn at random from everything weaker: is it still the same feature?"),
}
UNITS = {"text": "tokens", "image": "patches"}
ALIKE = {
    "text": "Further samples with the same words around the token, or with nearly the same image and the same caption",
    "image": "Further samples with the same image file or nearly the same image",
}


@router.get("/features")
def features(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: MaybeStr = None,
    verdict: Annotated[Verdict | None, Maybe] = None,
    min_omega: MaybeFloat = None,
    min_lift: MaybeFloat = None,
    max_density: MaybeFloat = None,
    sort: FeatureSort = "lift",
    order: Order = "desc",
    cursor: MaybeStr = None,
) -> HTMLResponse:
    asked: dict[str, Any] = {
        "q": q,
        "verdict": verdict,
        "min_omega": min_omega,
        "min_lift": min_lift,
        "max_density": max_density,
        "sort": sort,
        "order": order,
        "cursor": cursor,
    }
    given = {**asked, "verdict": [verdict] if verdict else None}
    page = features_api.get_features(served, **given, limit=LIST_ROWS)
    return render_for(
        request,
        "features.html",
        state,
        served,
        section="/features",
        page=page,
        q=asked,
        sorts=FEATURE_SORTS.items(),
        columns=FEATURE_COLUMNS,
        verdicts=get_store_detail(state, served).verdicts,
        glimpses=glimpses(request, served, [f.id for f in page.items]),
    )


@router.get("/features/{id}")
def feature(
    request: Request,
    state: StateDep,
    served: StoreDep,
    id: int,
    modality: Literal["text", "image"] | None = None,
    band: Annotated[int, Query(ge=-1, le=3)] = -1,
) -> HTMLResponse:
    found = features_api.get_feature(served, id)
    side: Literal["text", "image"] = modality or ("image" if found.density_image > 0 else "text")
    shown = features_api.examples(request, served, id, modality=side, band=band, limit=20).items
    tops = {"text": found.max_text, "image": found.max_image}
    cards = []
    for one in shown:
        picture = example_picture(one, tops["image"])
        where = f"“{visible(one.token)}”" if one.token else ""
        if one.patch:
            where = f"row {one.patch.row}, column {one.patch.col}"
        if one.n_active > 1:
            where += f" · {one.n_active:,} {UNITS[one.modality]}"
        cards.append(
            {
                "sample_id": one.sample_id,
                "activation": one.activation,
                "where": where,
                "n_same": one.n_same,
                "peak": one.position if one.modality == "text" else None,
                "pictures": [picture] if picture else [],
                "tokens": drawn_tokens(one.tokens, tops["text"]),
            }
        )
    histograms = []
    for kind, css, name in (("text", "t", "text tokens"), ("image", "p", "image patches")):
        counted = getattr(found.histogram, kind)
        drawn = chart(counted, mark=found.p999, log=True)
        histograms.append(
            {
                "kind": kind,
                "cls": css,
                "name": name,
                "total": sum(counted.counts),
                "bars": drawn.bars,
                "mark": drawn.mark,
                "low": f"{drawn.low:.3g}",
                "high": f"{drawn.high:.3g}",
            }
        )
    partners = found.cooccurring
    return render_for(
        request,
        "feature.html",
        state,
        served,
        section="/features",
        f=found,
        modality=side,
        band=band,
        bands=[{"value": value, "name": name, "help": text} for value, (name, text) in BANDS.items()],
        band_help=BANDS[band][1],
        alike=ALIKE[side],
        bare=served.manifest.get("events", {}).get("kept") == "none",
        examples=cards,
        om=omega_scale(found.omega, found.omega_baseline, found.lift_low, found.lift_high),
        histograms=histograms,
        promoted=[(visible(one.token), one.logit) for one in found.logits.promoted],
        suppressed=[(visible(one.token), one.logit) for one in found.logits.suppressed],
        neighbours=[
            ("by decoder direction", found.neighbours.decoder),
            ("by what they fire on", found.neighbours.profile),
        ],
        cooccurring=[
            ("text → image", partners.text_to_image, "this one in the caption, that one in the picture"),
            ("image → text", partners.image_to_text, "this one in the picture, that one in the caption"),
            ("same side", partners.same, "both in the caption, or both in the picture"),
        ],
    )
