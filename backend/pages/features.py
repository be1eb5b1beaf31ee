"""The list of features, and the page of one feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.controls import get_controls
from backend.api.features import ExampleQuery, FeatureQuery
from backend.api.stores import get_store_detail
from backend.deps import StateDep, StoreDep
from backend.pages.cards import previews
from backend.pages.charts import chart, omega_scale
from backend.pages.heat import SideScale, example_image, token_runs, tops
from backend.pages.text import visible
from backend.params import FormQuery
from backend.schemas.common import Band, FeatureSort, Histogram, Order
from backend.schemas.features import Example, FeatureDetail, PlaceMap
from backend.stores import OpenStore
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
LIST_ROWS, FAMILY_ROWS = 30, 12
BANDS: dict[Band, tuple[str, str]] = {
    "-1": ("top", "The samples with the highest activations, one token each."),
    "0": ("high", "Random samples from the highest octave of its activations."),
    "1": ("½", "Random samples from one octave below the highest."),
    "2": ("¼", "Random samples from two octaves below the highest."),
    "3": ("low", "Random samples from all weaker activations, to check whether they show the same thing."),
    "counter": ("counter-examples", "Where the feature and its name part ways."),
}
COUNTER = {
    "off": "The caption has a word of the name, but the feature is off (at most a tenth of its p99.9). Captions that "
    "fit their image best come first.",
    "unnamed": "The feature is above half of its p99.9, but the caption has no word of the name.",
}
UNITS = {"text": "tokens", "image": "patches"}
FOLDED_HELP = {
    "text": "Further samples with the same words around the token, or with a near-duplicate image and the same caption",
    "image": "Further samples with the same image file or a near-duplicate image",
}


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


class FeatureView(FormQuery):
    """Which of its examples and logits the page of a feature shows."""

    modality: Literal["text", "image"] | None = None
    """Default: where it fires more strongly."""
    band: Band = "-1"
    """As in the API."""
    lens: Literal["centred", "raw"] = "centred"
    """Kind of logits."""
    scale: SideScale | None = None
    """Colour scale of its own for each modality."""


@router.get("/features/{id}")
def feature(
    request: Request, state: StateDep, open_store: StoreDep, id: int, query: Annotated[FeatureView, Query()]
) -> HTMLResponse:
    """The page of one feature; it opens on the side where it fires more strongly."""
    detail = features_api.get_feature(open_store, id)
    side: Literal["text", "image"] = query.modality or ("image" if detail.max_image > detail.max_text else "text")
    band = query.band
    examples = features_api.examples(request, open_store, id, ExampleQuery(modality=side, band=band)).items
    partners, top = detail.cooccurring, tops(detail, query.scale)
    return render_for(
        request,
        "feature.html",
        state,
        open_store,
        section="/features",
        f=detail,
        modality=side,
        band=band,
        bands=[{"value": value, "name": name, "help": text} for value, (name, text) in BANDS.items()],
        band_help=BANDS[band][1],
        folded_help=FOLDED_HELP[side],
        has_no_events=open_store.manifest.get("events", {}).get("kept") == "none",
        groups=[
            (COUNTER.get(kind or ""), [example_card(one, top) for one in examples if one.counter == kind])
            for kind in (("off", "unnamed") if band == "counter" else (None,))
        ],
        evidence=pair_sentences(detail, open_store.manifest.get("pair_evidence", {})),
        place_cells=place_cells(detail.place_map),
        scale=query.scale,
        tops=dict(zip(("text", "image"), top, strict=True)),
        om=omega_scale(detail.omega, detail.omega_baseline, detail.lift_low, detail.lift_high),
        histograms=[
            histogram(detail.histogram.text, detail.p999, "text", "text tokens"),
            histogram(detail.histogram.image, detail.p999, "image", "image patches"),
        ],
        lens=lens_panel(detail, query.lens, open_store),
        family=family_panel(detail, open_store),
        neighbours=[
            ("by decoder direction", detail.neighbours.decoder),
            ("by the tokens that activate them", detail.neighbours.profile),
        ],
        cooccurring=[
            ("text → image", partners.text_to_image, "this feature on the text, the other on the image"),
            ("image → text", partners.image_to_text, "this feature on the image, the other on the text"),
            ("same modality", partners.same, "both on the text, or both on the image"),
        ],
    )


def lens_panel(detail: FeatureDetail, kind: Literal["centred", "raw"], store: OpenStore) -> dict[str, Any]:
    """The logit lens as feature.html draws it; `limit` is what chance gives among `n_tokens` tokens."""
    sides = {"centred": detail.logits.centred, "raw": detail.logits.raw}[kind]
    tokens = {
        side: [(visible(one.token), one.logit) for one in getattr(sides, side)] for side in ("promoted", "suppressed")
    }
    centred = detail.logits.centred
    largest = max((abs(side[0].logit) for side in (centred.promoted, centred.suppressed) if side), default=None)
    return {
        "kind": kind, "sides": tokens, "largest": largest, "informative": detail.logits.informative,
        "limit": store.manifest.get("lens"),
    }  # fmt: skip


def family_panel(detail: FeatureDetail, store: OpenStore) -> list[dict[str, Any]]:
    """The first members of a feature's family; empty for a feature alone."""
    if detail.family is None:
        return []
    members: list[dict[str, Any]] = store.store.families.get(detail.family)["members"]
    return members[:FAMILY_ROWS]


def pair_sentences(f: FeatureDetail, tested: Mapping[str, Any]) -> list[str]:
    """What was tested, against what, and what came out.

    Args:
        tested: the manifest's `pair_evidence`.
    """
    if f.pair_p is None:
        both = f"{f.n_both or 0:,} have both"
        return [f"Not tested: that takes 16 pairs with it on the text and 16 with it on the image. {both}."]
    sentences = [
        f"Of {tested.get('n_samples', 0):,} pairs {f.n_both or 0:,} have it on both text and image, "
        f"{times(f.pair_lift)} as by chance, with captions of one length exchanged "
        f"(95 % {f.pair_lift_low or 0:.1f} to {f.pair_lift_high or 0:.1f}; {probability(f.pair_p)})."
    ]
    if f.pair_p_alone is not None:
        sentences.append(
            f"With each text read without its image: {times(f.pair_lift_alone)} ({probability(f.pair_p_alone)})."
        )
    if f.agreement is None:
        return [*sentences, "Whether both sides mean the same was not measured: it has too few images, or no words."]
    low, high = f.agreement_low or 0, f.agreement_high or 0
    return [
        *sentences,
        f"Agreement {f.agreement:.2f} (95 % {low:.2f} to {high:.2f}): whether the captions of its 16 strongest images "
        "have its top words. 1 is always, 0 no more often than any caption.",
    ]


def times(lift: float | None) -> str:
    return "on none" if lift is None else f"{lift:.1f} times as many"


def probability(p: float) -> str:
    return f"p = {p:.1g}" if p > 1e-300 else "p < 1e-300"


def place_cells(places: PlaceMap | None) -> list[dict[str, Any]]:
    """The map of places as squares of an SVG, with the mean activation and its share of the largest."""
    if places is None:
        return []
    largest = max(places.mean)
    return [
        {"x": i % places.columns, "y": i // places.columns, "mean": mean, "share": round(mean / largest, 3)}
        for i, mean in enumerate(places.mean)
    ]


def example_card(example: Example, top: tuple[float, float]) -> dict[str, Any]:
    """An example as feature.html draws it; `top` is the last step of the scale of text and of images."""
    image = example_image(example, top[1])
    where = f"“{visible(example.token)}”" if example.token else ""
    if example.patch:
        where = f"row {example.patch.row}, column {example.patch.col}"
    if example.n_active > 1:
        where += f" · {example.n_active:,} {UNITS[example.modality]}"
    return {
        "sample_id": example.sample_id,
        "activation": example.activation,
        "where": where,
        "n_same": example.n_same,
        "peak": example.position if example.modality == "text" else None,
        "images": [image] if image else [],
        "tokens": token_runs(example.tokens, top[0]),
    }


def histogram(counts: Histogram, p999: float, modality: str, name: str) -> dict[str, Any]:
    """Activations in one modality as feature.html draws them, with a mark at the 99.9th percentile."""
    bars = chart(counts, mark=p999, log=True)
    return {
        "kind": modality,
        "cls": {"text": "t", "image": "p"}[modality],
        "name": name,
        "total": sum(counts.counts),
        "bars": bars.bars,
        "mark": bars.mark,
        "low": f"{bars.low:.3g}",
        "high": f"{bars.high:.3g}",
    }
