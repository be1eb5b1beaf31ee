"""Lists of features and samples: `/lists`, one list, and the basket, a list that only its address holds."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api.annotations.common import author_name
from backend.api.annotations.lists import Name
from backend.api.own.matrix import OwnList, OwnResult, read_all
from backend.drawing.figures import with_noun
from backend.links import ImageLinks, check_feature, sample_key, sample_of
from backend.pages.annotations.panel import in_words, signature
from backend.pages.cards import sample_card
from backend.pages.own.on_list import matrix_values, own_of
from backend.pages.previews import previews
from backend.pages.visit import PageDep, PageVisit
from backend.params import FormQuery, parse_numbers
from backend.schemas.annotations import MAX_MEMBERS, ListBody
from backend.schemas.features import Feature
from backend.schemas.samples import Sample
from backend.stores import OpenStore
from precompute.errors import SaevxError

router = APIRouter(default_response_class=HTMLResponse)

DRAWN = 100
"""Features, and samples, that a page of a list draws."""
STEERED = 8
"""Features that a link to Steer carries."""
Item = dict[str, Any]


class BasketQuery(FormQuery):
    features: Annotated[str | None, Query(max_length=60_000)] = None
    """Numbers, separated by commas."""
    sample: Annotated[list[str], Query(max_length=MAX_MEMBERS)] = []  # noqa: RUF012 - pydantic copies it
    """Samples, as addresses name them."""
    feature: Annotated[list[str], Query(max_length=MAX_MEMBERS)] = []  # noqa: RUF012
    """As the list of features selects them for Steer: NUMBER:MODE:STRENGTH."""
    id: Annotated[list[str], Query(max_length=MAX_MEMBERS)] = []  # noqa: RUF012
    """As the list of samples ticks them."""
    ticked: bool = False
    """Sent by the list of samples, whose `feature` is a filter and none of the basket."""
    own: OwnList = []  # noqa: RUF012
    """Pairs of one's own on which its features are looked at."""

    def numbers(self) -> list[int]:
        """The features. Raises HTTP 422."""
        text = ",".join([self.features or "", *(key.partition(":")[0] for key in self.feature if not self.ticked)])
        return list(dict.fromkeys(parse_numbers(text, "features", MAX_MEMBERS)))

    def samples(self) -> list[str]:
        """Ids of the samples."""
        return [sample_of(key) for key in dict.fromkeys([*self.sample, *self.id])]


@router.get("/lists")
def lists(visit: PageDep) -> HTMLResponse:
    """All lists, and a form for a new one."""
    book = visit.store.annotations
    return visit.render(
        "annotations/lists.html",
        section="/lists",
        lists=[{"name": entry.key, **signature(entry), **(entry.body or {})} for entry in book.entries("list")],
        filters=[{"name": entry.key, **signature(entry), **(entry.body or {})} for entry in book.entries("filter")],
        tags={kind: book.tags(kind) for kind in ("feature", "sample")},
        problem=book.why_read_only(),
        author=author_name(visit.request),
    )


@router.get("/lists/{name}")
async def one_list(visit: PageDep, name: Name, own: OwnList = []) -> HTMLResponse:  # noqa: B006
    """One list, with pairs of one's own on which its features are looked at."""
    entry = visit.store.annotations.get("list", name)
    if entry.body is None:
        raise HTTPException(404, f"There is no list {name!r}: the page Lists has them all.")
    body = ListBody.model_validate(entry.body)
    pairs = await read_all(visit, [*own_of(body), *own])
    about = {"name": name, **signature(entry)}
    return await run_in_threadpool(draw, visit, body, about, pairs)


@router.get("/basket")
async def basket(visit: PageDep, query: Annotated[BasketQuery, Query()]) -> Response:
    """What the address holds. The selections of other pages are brought into one form of address first."""
    features, samples = query.numbers(), query.samples()
    if query.feature or query.id:
        return RedirectResponse(visit.links.page("/basket", **basket_params(features, samples)), 303)
    body = ListBody(features=features, samples=samples)
    pairs = await read_all(visit, query.own)
    about: Item = {"name": None, "version": 0, "who": "", "when": ""}
    return await run_in_threadpool(draw, visit, body, about, pairs)


def basket_params(features: list[int], samples: list[str]) -> Item:
    """The query of a basket's address."""
    return {"features": ",".join(map(str, features)), "sample": [sample_key(sample_id) for sample_id in samples]}


def draw(visit: PageVisit, body: ListBody, about: Item, pairs: list[OwnResult]) -> HTMLResponse:
    """The page of a list or basket. Raises HTTP 404 for a feature that the store does not have.

    Args:
        pairs: pairs of one's own, the list's own test pair first.
    """
    for number in body.features:
        check_feature(visit.store, number)
    rows, notes = visit.reader.selection.rows_of(body.samples), visit.store.annotations
    ids = body.features[:DRAWN]
    visible_body, members = body.model_copy(update={"features": ids}), basket_params(body.features, body.samples)
    form_fields = (
        [("name", about["name"])]
        if about["name"]
        else [("features", members["features"]), *(("sample", key) for key in members["sample"])]
    )
    by_id = {row["id"]: row for row in visit.reader.features.list(ids=ids, limit=DRAWN).items} if ids else {}
    features = [Feature.model_validate({**by_id[id], **notes.list_fields("feature", id)}) for id in ids]
    return visit.render(
        "annotations/list.html", section="/lists", about=about, body=body,
        features=features, previews=previews(visit, ids), cards=cards(visit, body.samples, rows),
        missing=[id for id in body.samples if id not in rows][:DRAWN],
        **matrix_values(visit, visible_body, pairs, form_fields), history=history(visit.store, about["name"]),
        steered=[f"{id}:add:1" for id in body.features[:STEERED]],
        basket=members,
        problem=notes.why_read_only(), author=author_name(visit.request),
        others=[(name, title) for name, title in notes.list_titles() if name != about["name"]],
    )  # fmt: skip


def cards(visit: PageVisit, ids: list[str], rows: dict[str, int]) -> list[Item]:
    """The samples as cards, in the order of the list."""
    rows_of_cards = [rows[id] for id in ids if id in rows][:DRAWN]
    items = visit.reader.samples.items(rows_of_cards)
    with_images = ImageLinks(visit.request, visit.store).all_images(items[row] for row in rows_of_cards)
    notes = visit.store.annotations
    return [
        sample_card(Sample.model_validate({**s, **notes.list_fields("sample", s["sample_id"])})) for s in with_images
    ]


def history(store: OpenStore, name: str | None) -> list[Item]:
    """The versions of a list, the newest first."""
    if name is None:
        return []
    try:
        entries = store.annotations.history("list", name)[:20]
    except SaevxError:
        return []
    rows = []
    for entry in entries:
        body: Item = dict(entry.body or {})
        summary = "deleted"
        if entry.body is not None:
            features, samples = with_noun(len(body["features"]), "feature"), with_noun(len(body["samples"]), "sample")
            summary = f"{features}, {samples}; title: {in_words(body['title'])}"
        rows.append({**signature(entry), "what": summary})
    return rows


def new_name(store: OpenStore, title: str) -> str:
    """A name for a list or filter of this title that neither has."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "list"
    used_names = {entry.key for kind in ("list", "filter") for entry in store.annotations.entries(kind)}
    names = [name, *(f"{name}-{number}" for number in range(2, len(used_names) + 3))]
    return next(candidate for candidate in names if candidate not in used_names)
