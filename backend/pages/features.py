"""The list of features, and the page of one feature."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import features as features_api
from backend.api.annotations.lists import get_filters
from backend.api.controls import get_controls
from backend.api.feature_table import get_distributions, get_verdicts, random_feature
from backend.api.features import FeatureQuery, number_of
from backend.drawing.charts import place_map, range_filter
from backend.drawing.figures import FIGURE_TITLES, heading
from backend.pages.previews import previews, word_lines
from backend.pages.visit import PageDep
from backend.params import MAP_STATE, FromMap
from backend.schemas.common import FeatureSort, Order
from backend.stores import OpenStore
from precompute.store.companion_files import HALLUCINATION

router = APIRouter(default_response_class=HTMLResponse)

COLUMN_HELP = {
    "agreement": "Share of its strongest images whose caption has one of its top words, beyond their base rate; "
    "95 % interval",
    "label_score": "Score of its name on samples that it was not chosen on; .5 is chance",
    "pair_lift": "Pairs with it on both text and image, over their number if captions of one length were exchanged",
    "lift": "ω minus its baseline",
    "omega": "Cosine of its strongest text and image residual vectors; in brackets the baseline, from random tokens",
    "density": "Share of text tokens and of image patches that activate it; bars on a logarithmic scale",
    "max_activation": "Largest activation, in the SAE's units",
    "n_samples": "Number of samples in which any token activates it",
    "place_share": "Share of its image activation in the patch, row or column that has most of it",
    "place_map": "Mean activation by place in the image, up to the largest",
    "modality_share": "Firing rate on images, over the sum of both rates: 0 is text, 1 is images",
    "same_sample_rate": "Samples with it on both sides, over those with it on either",
    "evidence": "Lower end of agreement × name score",
    "hallucination": "P(active | right answer) − P(active | hallucinated), on questions about objects",
}
"""The columns of the table in their order, each with what it means."""
SHORT_TITLES = {
    "omega": "ω (baseline)", "density": "Density", "max_activation": "Max", "place_share": "One place",
    "place_map": "Place map", "same_sample_rate": "Same sample", "hallucination": "Separation",
}  # fmt: skip
"""Of columns with little room, and of those that are no figure to sort by."""
FEATURE_COLUMNS = {name: (SHORT_TITLES.get(name) or heading(name), text) for name, text in COLUMN_HELP.items()}
"""name → title, meaning."""
SHOWN_COLUMNS = ("agreement", "pair_lift", "omega", "density", "n_samples")
PLACE_COLUMNS = ("agreement", "density", "n_samples", "place_share", "place_map")
OF_IMAGES = frozenset((
    "agreement", "agreement_low", "pair_lift", "pair_lift_low", "pair_lift_alone", "place_share", "place_map", "lift",
    "omega", "omega_centred", "lift_without_self", "density_image", "modality_share", "same_sample_rate", "evidence",
))  # fmt: skip
"""Figures that take images: a store of texts alone has none of them."""
TEXT_DENSITY = "Share of text tokens that activate it; bars on a logarithmic scale"
TEXT_COLUMNS = ("label_score", "density", "max_activation", "n_samples")
LIST_ROWS = 30


class FeatureList(FromMap, FeatureQuery):
    """As in the API, but the best match and the most evidence first; without words one line for each name."""

    sort: FeatureSort = "match"
    order: Order = "desc"
    fold: Literal["families", "names", "none"] | None = None  # type: ignore[assignment]
    cols: Annotated[str | None, Query(max_length=400)] = None
    """Columns of the table, separated by commas."""

    @property
    def lines(self) -> str:
        """What has a line: unless the visitor chose, each name, and each feature where words look for one."""
        return self.fold or ("none" if self.q else "names")

    def of_api(self) -> FeatureQuery:
        """The same list as the API knows it."""
        fold = None if self.lines == "none" or self.family is not None else self.lines
        return self.model_copy(update={"limit": LIST_ROWS, "fold": fold})

    def in_address(self) -> dict[str, Any]:
        """Order and filters in an address of the API; without a cursor."""
        unset = {"limit", "cursor", "cols", *MAP_STATE}
        return self.of_api().model_dump(exclude_none=True, exclude=unset)

    def on_map(self) -> dict[str, str]:
        """The address of the map that has what this list has, or had it before; empty where the map has nothing to do
        with it."""
        parameters = self.of_map() | {name: value for name, value in (("q", self.q), ("area", self.area)) if value}
        return {name: value for name, value in parameters.items() if value}

    def of_store(self, has_images: bool) -> FeatureList:
        """Without evidence, which takes images, the features with the best names come first."""
        best_names = not has_images and self.sort == "match" and not self.q
        return self.model_copy(update={"sort": "label_score"}) if best_names else self

    def columns(self, has_images: bool) -> list[str]:
        """The columns to show, in the order of `FEATURE_COLUMNS`; unknown names are left out. Without a choice also the
        one that the list is ordered by, and those about places where it is about them."""
        about_place = self.sort == "place_share" or self.place not in (None, "", "none")
        usual_columns = (
            TEXT_COLUMNS if not has_images else PLACE_COLUMNS if about_place else (*SHOWN_COLUMNS, self.sort)
        )
        columns = usual_columns if self.cols is None else [name.strip() for name in self.cols.split(",")]
        return [name for name in FEATURE_COLUMNS if name in columns]


@router.get("/features")
def features(visit: PageDep, query: Annotated[FeatureList, Query()]) -> HTMLResponse:
    """The list of features."""
    query = query.of_store(visit.store.has_images)
    page = features_api.get_features(visit.store, query.of_api())
    list_verdicts = get_verdicts(visit.store, query.of_api()).verdicts
    ids = [f.id for f in page.items]
    missing_figures = set() if visit.reader.hallucination.separation else {HALLUCINATION}
    if not visit.store.has_images:
        missing_figures |= OF_IMAGES
    column_names = [name for name in query.columns(visit.store.has_images) if name not in missing_figures]
    return visit.render(
        "features.html",
        section="/features",
        page=page,
        api_query=query.in_address(),
        q={**query.model_dump(), "lines": query.lines, "verdict": query.verdict[0] if query.verdict else None},
        on_map=query.on_map(),
        number=feature_number(visit.store, query.q),
        ranges=[
            (heading(d.name), range_filter(d, getattr(query, f"min_{d.name}"), getattr(query, f"max_{d.name}")))
            for d in get_distributions(visit.store).items
            if d.name not in missing_figures
        ],
        sorts=[(name, title) for name, title in FIGURE_TITLES.items() if name not in missing_figures],
        columns={name: column for name, column in FEATURE_COLUMNS.items() if name not in missing_figures}
        | ({} if visit.store.has_images else {"density": ("Density", TEXT_DENSITY)}),
        column_names=column_names,
        verdicts={name: n for name, n in list_verdicts.items() if n or name in (query.verdict or ())},
        controls=get_controls(visit.store),
        tags=visit.store.annotations.tags("feature"),
        saved=get_filters(visit.store, "/features").items,
        can_write=visit.store.annotations.why_read_only() is None,
        lists=visit.store.annotations.list_titles(),
        previews=previews(visit, ids),
        words=word_lines(visit.store, ids),
        places={id: place_map(place) for id, place in visit.reader.features.place_maps(ids).items()}
        if "place_map" in column_names
        else {},
    )


@router.get("/features/random")
def random(visit: PageDep, query: Annotated[FeatureList, Query()]) -> Response:
    """Leads to a random feature of the list."""
    address = visit.links.page(f"/features/{random_feature(visit.store, query.of_api())}")
    return RedirectResponse(address, 303, {"Cache-Control": "no-store"})


def feature_number(open_store: OpenStore, words: str | None) -> int | None:
    """The feature that `4167` or `#4167` names, if the store has it."""
    number = number_of(words or "")
    return number if number is not None and number < open_store.reader.n_features else None
