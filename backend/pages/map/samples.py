"""The map of samples, at `/map?of=samples`: those that pass the filters of the list are marked, those inside an area
are listed, and the chosen one is shown."""

from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from backend.api import samples as samples_api
from backend.api.samples import SampleQuery, has_sample_map
from backend.drawing.figures import with_minus
from backend.links import ImageLinks
from backend.pages.cards import sample_card
from backend.pages.samples import SIDES
from backend.pages.scores_and_flags import colour_help, list_flags, list_scores
from backend.pages.visit import PageDep, PageVisit
from backend.params import FormQuery, split_names
from backend.schemas.samples import Sample
from precompute.store import mapfile
from precompute.store.schema import SCORES

N_LISTED, N_NEAR = 24, 6
FLAGS_HELP = "How many flags the sample has. High values are worse."


class OfSamples(APIRoute):
    """A route of addresses with `of=samples` alone: the others are the map of features'."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        kinds = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("of", [""])
        return super().matches(scope) if kinds[-1] == "samples" else (Match.NONE, {})


router = APIRouter(default_response_class=HTMLResponse, route_class=OfSamples)


class SampleMapQuery(FormQuery, SampleQuery):
    """What the map shows, with the filters of the list of samples."""

    of: Literal["samples"] = "samples"
    colour: Annotated[str, Query(max_length=60)] = "flags"
    row: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """The chosen sample."""
    view: Annotated[str, Query(max_length=100)] = ""
    """x,y,zoom, which only the map's JavaScript reads."""


@router.get("/map")
def sample_map(visit: PageDep, query: Annotated[SampleMapQuery, Query()]) -> HTMLResponse:
    has_map = has_sample_map(visit.store)
    scores = [score for score in list_scores(visit.store) if score.mean is not None]
    flags = [flag for flag in list_flags(visit.store) if flag.count or flag.name == query.colour]
    colours = [*(flag.name for flag in flags), *(score.name for score in scores)]
    query = query.model_copy(update={"colour": colour_or_flags(query.colour, colours)})
    filters = {name: value for name, value in query.filters().items() if name != "area"}
    matches, page = None, None
    if filters:
        matches = samples_in(visit, query.model_copy(update={"area": None}))
    if query.area and has_map:
        page = samples_in(visit, query)
    return visit.render(
        "sample_map.html",
        section="/map",
        there=has_map,
        absent=mapfile.NO_SAMPLES,
        summary=visit.store.manifest.get("sample_map"),
        version=ImageLinks(visit.request, visit.store).version,
        q=query,
        filters=filters,
        other_filters={name: value for name, value in filters.items() if name not in ("q", "flags", "match")},
        other_words=other_words(query),
        flags=flags,
        flags_on={option.partition(":")[0]: option for option in split_names(query.flags)},
        scores=[(score.name, *visit.reader.quality.score_ends(score.name)) for score in scores],
        colour_help={"flags": (FLAGS_HELP, ""), **colour_help(visit.store)},
        matches=matches,
        area=page,
        chosen=chosen_sample(visit, query),
    )


def colour_or_flags(colour: str, names: list[str]) -> str:
    """The colour, or "flags" for a score that no sample of this store has. HTTP 422 for what is neither."""
    choices = ["flags", *names]
    if colour not in choices and colour not in SCORES:
        raise HTTPException(422, f"colour: choose {', '.join(choices[:-1])} or {choices[-1]}.")
    return colour if colour in choices else "flags"


def other_words(query: SampleMapQuery) -> list[str]:
    """The filters that the form beside the map does not have, in words."""

    def bounds(low: float | None, high: float | None, unit: str = "") -> str:
        ends = [f"{word} {value:g}" for word, value in (("from", low), ("to", high)) if value is not None]
        return with_minus(" ".join([*ends, unit] if unit and ends else ends))

    words = [f"tag {query.tag}"] if query.tag else []
    if query.reviewed is not None:
        words.append("reviewed" if query.reviewed else "not reviewed")
    if query.flag:
        words.append(f"flag {query.flag}" + (f" above {query.threshold:g}" if query.threshold is not None else ""))
    if query.feature is not None:
        words.append(f"feature {query.feature} {SIDES[query.side or 'image']}")
    if query.by:
        words.append(f"{query.by} {bounds(query.min_score, query.max_score)}".rstrip())
    if length := bounds(query.min_length, query.max_length, "tokens"):
        words.append(f"captions {length}")
    return words


def samples_in(visit: PageVisit, query: SampleMapQuery) -> dict[str, Any]:
    """The first samples of a list as cards with their rows, and how many there are."""
    page = samples_api.get_samples(visit.request, visit.store, query.model_copy(update={"limit": N_LISTED}))
    return {"items": [{**sample_card(sample), "row": sample.row} for sample in page.items], "total": page.total}


def chosen_sample(visit: PageVisit, query: SampleMapQuery) -> dict[str, Any] | None:
    """The chosen sample as a card with the score that colours the map, and the nearest ones; None without one or where
    the store does not have it, so that old addresses still open."""
    row = query.row
    if row is None or row >= visit.reader.n_samples:
        return None
    links, store = ImageLinks(visit.request, visit.store), visit.reader
    cosine_of = store.nearest.of_both(row, N_NEAR)
    items = store.samples.items([row, *cosine_of])
    samples = {at: Sample.model_validate(links.images(item)) for at, item in items.items()}
    cards = {at: sample_card(sample) for at, sample in samples.items()}
    value = next((value for name, value in samples[row].scores.items() if name == query.colour), None)
    near_samples = [{**cards[near_row], "row": near_row, "cosine": cosine} for near_row, cosine in cosine_of.items()]
    return {**cards[row], "value": value, "row": row, "near": near_samples}
