"""The page of one feature."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.features import ExampleQuery
from backend.api.own.pairs import OwnText, read_or_refuse
from backend.drawing.charts import omega_scale
from backend.drawing.heat import SideScale, tops
from backend.links import check_feature
from backend.live.query import OwnPair
from backend.pages.annotations.panel import panel
from backend.pages.compare.layer import layer_links, layer_note
from backend.pages.feature.examples import BANDS, COUNTER, COUNTER_ALONE, FOLDED_HELP, as_drawn, as_examples
from backend.pages.feature.panels import family_panel, histogram, lens_panel, place_cells
from backend.pages.feature.partners import partner_groups
from backend.pages.feature.summary import pair_sentences, snippet, summary
from backend.pages.own.on_feature import Tried, panel_values
from backend.pages.visit import PageDep, PageVisit
from backend.params import CameFrom, FormQuery, Missing, parse_numbers
from backend.schemas.common import Band
from backend.stores import OpenStore

router = APIRouter(default_response_class=HTMLResponse)


MODALITIES: dict[Literal["text", "image"], str] = {"text": "text tokens", "image": "image patches"}


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
    effect: bool = False
    """Measure what ablating it does to the next tokens, by the live model."""
    image: Annotated[str | None, Query(max_length=64)] = None
    """Hash of an uploaded image on which it is tried."""
    text: OwnText = ""
    """Its caption, or words alone."""
    from_: CameFrom = None
    missing: Missing = None
    """Name of a store of another layer in which it has no match."""
    list: Annotated[str | None, Query(max_length=6000)] = None
    """Numbers of the features of a list, separated by commas: previous and next follow it."""


@router.get("/features/{id}")
async def feature(visit: PageDep, id: int, query: Annotated[FeatureView, Query()]) -> HTMLResponse:
    """The page of one feature; it opens on the side where it fires more strongly."""
    check_feature(visit.store, id)
    own_pair = OwnPair(query.text, query.image)
    trial = Tried(own_pair, await read_or_refuse(visit, own_pair))
    return await run_in_threadpool(draw, visit, id, query, trial)


def draw(visit: PageVisit, id: int, query: FeatureView, trial: Tried) -> HTMLResponse:
    detail = features_api.get_feature(visit.store, id)
    side: Literal["text", "image"] = query.modality or ("image" if detail.max_image > detail.max_text else "text")
    band = query.band
    items = features_api.example_items(visit.request, visit.store, id, ExampleQuery(modality=side, band=band))
    examples = as_examples(items)
    top, why = tops(detail, query.scale), COUNTER if visit.store.has_images else COUNTER_ALONE
    own_values = panel_values(visit, detail, trial, top)
    result = own_values["own_result"]
    return visit.render(
        "feature.html",
        section="/features",
        f=detail,
        notes=panel(visit, "feature", id),
        summary=summary(detail, visit.reader.top_words.held, visit.store.has_images),
        around=neighbours_of(id, query.list, visit.store),
        view=query.model_dump(exclude_none=True, exclude_defaults=True),
        modality=side,
        band=band,
        bands=[{"value": value, "name": name, "help": text} for value, (name, text) in BANDS.items()],
        band_help=BANDS[band][1],
        folded_help=FOLDED_HELP[side if visit.store.has_images else "alone"],
        has_no_events=visit.store.manifest.get("events", {}).get("kept") == "none",
        groups=[
            as_drawn(kind and why[kind].format(side=side), [e for e in examples if e.counter == kind], top)
            for kind in (("off", "unnamed") if band == "counter" else (None,))
        ],
        snippet=snippet(id, side, band),
        evidence=pair_sentences(detail, visit.store.manifest.get("pair_evidence", {})),
        place_cells=place_cells(detail.place_map),
        scale=query.scale,
        tops=dict(zip(("text", "image"), top, strict=True)),
        om=omega_scale(detail.omega, detail.omega_baseline, detail.lift_low, detail.lift_high),
        histograms=[
            histogram(detail, kind, name, result and result.value(kind))
            for kind, name in MODALITIES.items()
            if kind == "text" or visit.store.has_images
        ],
        **own_values,
        layers=layer_links(visit, feature=id),
        layer_notes=layer_note(visit, query.from_, query.missing, [id]),
        effect=None,
        refusal=None,
        model_loads=False,  # of effect.html alone
        auto_effect=query.effect,
        model_off=visit.model.reason if visit.model.state in ("off", "failed") else None,
        lens=lens_panel(detail, query.lens, visit.store),
        family=family_panel(detail, visit.store),
        neighbours=[
            ("by decoder direction", detail.neighbours.decoder),
            ("by the tokens that activate them", detail.neighbours.profile),
        ],
        cooccurring=partner_groups(detail, lambda _: None),
        drawn=False,
    )


def neighbours_of(id: int, numbers: str | None, store: OpenStore) -> dict[str, Any]:
    """The features before and after this one: in the list of these numbers, where it is one of them, else by number.

    Raises:
        HTTPException: 422 for a list that is none.
    """
    ids = [] if numbers is None else parse_numbers(numbers, "list")
    if id not in ids:
        last = store.reader.n_features - 1
        return {"prev": id - 1 if id else None, "next": id + 1 if id < last else None, "of": ""}
    at = ids.index(id)
    next_id = ids[at + 1] if at + 1 < len(ids) else None
    return {"prev": ids[at - 1] if at else None, "next": next_id, "of": f"{at + 1} of {len(ids)} in the list"}
