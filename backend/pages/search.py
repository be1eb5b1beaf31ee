"""Search by words, by an image, or by both through the model."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from backend.api import samples as samples_api
from backend.api import search as search_api
from backend.api.features import number_of
from backend.api.search import SearchInput
from backend.drawing.heat import Heat, HeatImage, finest, heat, patch_path
from backend.links import sample_key, uploaded_url
from backend.live import live_answers
from backend.pages.cards import nearest_cards, sample_card
from backend.pages.features import feature_number
from backend.pages.previews import previews, word_lines
from backend.pages.visit import PageDep, PageVisit
from backend.params import FormQuery, parse_patch
from backend.schemas.live import FeatureHit, LiveSearch
from backend.templating import SampleKey
from precompute.live.feature_search import OUTSIDE

router = APIRouter(default_response_class=HTMLResponse)

NO_RESULTS: dict[str, Any] = {
    "no_feature": None,
    "hits": None, "ranked": None, "words": None, "dense": [], "n_dense": 0, "heats": {}, "groups": [], "mark": None,
}  # fmt: skip
"""The parts of a search result, each empty."""
REGION_LEVEL = 5
"""Step of the colour scale in which a region is drawn."""
N_FEATURES = 24
"""Features of a result."""
TITLES = {"region": "Here: ", "background": "Background: ", "place": "Tied to a place"}
"""What begins the title of a group; the name of its strongest family follows where the group has patches."""


class SearchQuery(FormQuery):
    """What an address searches for."""

    q: str = ""
    model: bool = False
    """Whether the words go through the model."""
    image: str = ""
    """Hash of an uploaded image."""
    sample: str = ""
    """Id of a stored sample, whose image is searched for."""
    sample_key: SampleKey = None
    """The same, as forms name it."""
    patch: str = ""
    """view,row,col of a patch of the image: only features that fire on it."""


@dataclass(frozen=True)
class SearchForm:
    """The same with a file, which an address cannot carry."""

    q: Annotated[str, Form()] = ""
    model: Annotated[bool, Form()] = False
    sample: Annotated[str, Form()] = ""
    sample_key: Annotated[SampleKey, Form()] = None
    image_hash: Annotated[str, Form()] = ""
    image: Annotated[UploadFile | None, File()] = None


@router.get("/search")
async def search(visit: PageDep, query: Annotated[SearchQuery, Query()]) -> Response:
    """By words, through the model if `model` is set; by an uploaded image or that of `sample`. The number of a feature
    opens its page."""
    number = feature_number(visit.store, query.q)
    words_only = not (query.model or query.image or query.sample or query.sample_key)
    if number is not None and words_only:
        return RedirectResponse(visit.links.page(f"/features/{number}"), 303)
    return await answer(visit, query)


@router.post("/search")
async def search_image(visit: PageDep, form: Annotated[SearchForm, Depends()]) -> Response:
    """Hold the uploaded image, and go to the address of the search. An image that cannot be read is dropped."""
    sample = form.sample or form.sample_key or ""
    query = SearchQuery(q=form.q, model=form.model, image=form.image_hash, sample=sample)
    if form.image is not None and form.image.size:
        try:
            upload = await visit.hold(form.image)
        except HTTPException as refusal:
            query = query.model_copy(update={"image": "", "sample": "", "sample_key": None})
            return await answer(visit, query, refusal)
        query = query.model_copy(update={"image": upload.hash, "sample": ""})
    to = visit.links.page(
        "/search",
        q=query.q,
        model="1" if query.model else None,
        image=query.image,
        sample_key=sample_key(query.sample) if query.sample and not query.image else None,
    )
    return RedirectResponse(to, 303)


async def answer(visit: PageVisit, query: SearchQuery, refusal: HTTPException | None = None) -> HTMLResponse:
    """The page with the results of the query, or with the reason of a refusal."""
    results: dict[str, Any] | None = None
    image: ImageQuery | None = None
    q = query.q if query.q.strip() else None
    try:
        if refusal is None and (query.image or query.sample or query.sample_key):
            image = await run_in_threadpool(query_image, visit, query)
        if refusal is None and (image or (q and query.model)):
            results = await live_search(visit, query, image)
    except HTTPException as error:  # shown on the page instead of the results
        refusal = error

    def draw() -> HTMLResponse:
        by_words = word_search(visit, q) if q and results is None and refusal is None else None
        fields = {"q": q or "", "through_model": query.model, "image": image, "results": results or by_words}
        return search_page(visit, fields, refusal)

    return await run_in_threadpool(draw)


def search_page(visit: PageVisit, fields: dict[str, Any], refusal: HTTPException | None) -> HTMLResponse:
    results = fields["results"] or NO_RESULTS
    ids = [f.id for f in [*(results["ranked"] or []), *(results["words"] or [])]]
    ids += [family.features[0].id for group in results["groups"] for family in group["families"]]
    return visit.render(
        "search.html",
        section="/search",
        fault=refusal,
        live=visit.model,
        error=str(refusal.detail) if refusal else None,
        outside=OUTSIDE,
        previews=previews(visit, ids),
        words=word_lines(visit.store, [f.id for f in results["words"] or []]),
        **fields,
    )


def word_search(visit: PageVisit, q: str) -> dict[str, Any]:
    """Features and captions with the words."""
    hits = search_api.get_search(visit.request, visit.store, q)
    number, n = number_of(q), visit.reader.n_features
    texts = "Captions" if visit.store.has_images else "Texts"
    return {
        **NO_RESULTS,
        "no_feature": number is not None and f"There is no feature {number}. This store has features 0 to {n - 1}.",
        "hits": hits,
        "words": hits.features,
        "nearest": [(f"{texts} with these words", [sample_card(sample) for sample in hits.samples])],
        "n": len(hits.features),
    }


class ImageQuery(NamedTuple):
    """The image of a search."""

    size: tuple[int, int]
    """Width and height of the original, in pixels."""
    url: str
    hash: str | None
    """Of an uploaded image."""
    sample_id: str | None


def query_image(visit: PageVisit, query: SearchQuery) -> ImageQuery | None:
    """The uploaded image, else that of the sample, else None. Raises HTTPException: 404 if it is not there."""
    if query.image:
        upload = visit.state.uploads.get(query.image)
        return ImageQuery(upload.size, uploaded_url(visit.request, upload.hash), upload.hash, None)
    if not (sample := query.sample or query.sample_key):
        return None
    images = samples_api.get_sample(visit.request, visit.store, sample, 1).images
    if not images:
        raise HTTPException(422, f"Sample {sample!r} has no image to search with.")
    return ImageQuery((images[0].width, images[0].height), images[0].url, None, sample)


async def live_search(visit: PageVisit, query: SearchQuery, image: ImageQuery | None) -> dict[str, Any]:
    """Results of a search by an image, words or both through the model, each feature with its heat on the image."""
    patch = parse_patch(query.patch) if query.patch and image else None
    search_input = SearchInput(query.q.strip(), None, image and image.hash, image and image.sample_id)
    live_query = await search_api.query_of(visit, search_input)

    def make() -> dict[str, Any]:
        reply = live_answers.search(visit.store, live_query, N_FEATURES, patch)
        return live_results(visit, query, image, search_api.as_live_search(visit.request, visit.store, reply))

    return await run_in_threadpool(make)


def live_results(visit: PageVisit, query: SearchQuery, image: ImageQuery | None, hits: LiveSearch) -> dict[str, Any]:
    """The reply of the model as search.html shows it."""
    q = query.q.strip()
    sides = [name for name, value in (("words", q), ("patch" if query.patch else "image", image)) if value]
    by_words = search_api.get_search(visit.request, visit.store, q) if q else None
    mark = None
    if image and query.patch:
        view, row, col = parse_patch(query.patch)
        mark = patch_path(hits.views[view], row, col)
    return {
        **NO_RESULTS,
        "hits": by_words,
        "ranked": hits.features,
        "heats": {feature_hit.id: heat_on(feature_hit, image) for feature_hit in hits.features} if image else {},
        "groups": group_cards(hits, image) if image else [],
        "dense": hits.dense,
        "n_dense": hits.n_dense,
        "how": f"ranked by activation on the {' and the '.join(sides)} × specificity",
        "words": by_words and by_words.features,
        "nearest": nearest_cards(hits.samples, visit.store.has_images),
        "n": len(hits.features),
        "mark": mark,
        "patch": query.patch,
        "views": [view.model_dump() for view in hits.views],
        "reconstruction": hits.reconstruction,
    }


def group_cards(hits: LiveSearch, image: ImageQuery) -> list[dict[str, Any]]:
    """The groups as search.html shows them, each region over the query's image."""
    cards: list[dict[str, Any]] = []
    for group in hits.groups:
        patches = [patch for patch in group.patches if hits.views[patch.view].image == 0]
        path = "".join(patch_path(hits.views[patch.view], patch.row, patch.col) for patch in patches)
        heat_image = HeatImage(image.url, Heat(*image.size, [(REGION_LEVEL, path)])) if path else None
        n = sum(len(family.features) for family in group.families)
        card = {"kind": group.kind, "title": TITLES[group.kind], "n": n}
        cards.append({**card, "image": heat_image, "families": group.families})
    return cards


def heat_on(feature_hit: FeatureHit, image: ImageQuery) -> HeatImage:
    """The query's image with this feature's activations over it, up to its p99.9, in the finest view where it fires."""
    grid = finest([grid for grid in feature_hit.grids or [] if grid.image == 0])
    if grid is None:
        return HeatImage(image.url, None)
    top = max((value for row in grid.values for value in row), default=0.0) / (feature_hit.strength_image or 1)
    return HeatImage(image.url, heat(grid, grid.values, top=top, size=image.size))
