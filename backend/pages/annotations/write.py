"""Forms that write, as a page sends them with and without JavaScript: each answers with the page that it came from."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Form, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from backend.annotations.book import ConflictError
from backend.annotations.database import Entry
from backend.api.annotations.common import COOKIE, version_body
from backend.links import check_feature, check_sample, sample_of, sample_path
from backend.pages.annotations.panel import panel
from backend.pages.visit import PageDep, PageVisit
from backend.params import parse_numbers
from backend.schemas.annotations import MAX_MEMBERS, Author, NoteBody
from backend.stores import OpenStore
from backend.templating import address

router = APIRouter(default_response_class=HTMLResponse)

YEAR_S = 31_536_000
B = TypeVar("B", bound=BaseModel)


class SignedForm(BaseModel):
    """A form that writes, with the name of who fills it in."""

    model_config = ConfigDict(extra="ignore")

    author: Author = ""


class About(SignedForm):
    """What a form is about, and where it came from."""

    kind: Literal["feature", "sample"]
    key: str
    """Number of the feature; the sample as addresses name it."""
    back: str = ""
    """Query of the page."""

    def thing(self, store: OpenStore) -> tuple[str, str]:
        """(kind, key) as annotations have them. Raises HTTP 404."""
        if self.kind == "sample":
            check_sample(store, sample_of(self.key))
            return "sample", sample_of(self.key)
        number = int(self.key) if self.key.isascii() and self.key.isdigit() and len(self.key) < 10 else -1
        check_feature(store, number)
        return "feature", str(number)

    def page(self) -> str:
        """The path of its page."""
        return f"/features/{self.key}" if self.kind == "feature" else sample_path(sample_of(self.key))


class NoteForm(About):
    """The panel of a feature or sample."""

    version: int = 0
    do: Literal["save", "undo", "delete"] = "save"
    undo: int = 0
    """The version that *Undo* takes again."""
    label: str = ""
    note: str = ""
    tags: str = ""
    """Separated by commas."""
    reviewed: bool = False

    def body(self) -> NoteBody:
        """What is to be written. Raises HTTP 422."""
        tags = [tag for tag in self.tags.split(",") if tag.strip()]
        return read_body(NoteBody, {**self.model_dump(include={"label", "note", "reviewed"}), "tags": tags})


def read_body(model: type[B], values: Mapping[str, Any]) -> B:
    """The values of a form as a body of the API. Raises HTTP 422."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise HTTPException(422, f"{wrong['loc'][0]}: {wrong['msg']}") from error


@router.post("/annotate")
def annotate(visit: PageDep, form: Annotated[NoteForm, Form()]) -> Response:
    """Write what the panel of a feature or sample holds, undo the last change, or delete everything."""
    kind, key = form.thing(visit.store)
    book = visit.store.annotations
    body: Mapping[str, Any] | None
    if form.do == "save":
        body = form.body().model_dump(mode="json")
    else:
        body = version_body(book, kind, key, form.undo) if form.do == "undo" else None
    try:
        book.put(kind, key, body, author=form.author, version=form.version)
    except ConflictError as error:
        values = panel(visit, kind, key, body or {})
        return visit.render(
            "annotations/conflict.html", section="", status=409, notes=values,
            sentence=str(error), page_path=form.page(), key=key, back=form.back,
        )  # fmt: skip
    return lead_to(visit, form, f"{form.page()}#notes", form.back)


class TagForm(SignedForm):
    """Tags for the selected features of a list."""

    features: str = ""
    """Numbers, separated by commas."""
    tags: str = ""
    """Separated by commas."""
    back: str = ""
    """Query of the list."""


@router.post("/annotate/tags")
def tag_features(visit: PageDep, form: Annotated[TagForm, Form()]) -> Response:
    """Give several features the same tags, beside those that they have."""
    features = parse_numbers(form.features, "features", MAX_MEMBERS)
    if not features or not form.tags.strip(" ,"):
        raise HTTPException(422, "Select at least one feature, and give at least one tag.")
    for feature in features:
        check_feature(visit.store, feature)

    def make(current: Entry) -> Mapping[str, Any]:
        body = current.body or {}
        tags = [*body.get("tags", ()), *(tag for tag in form.tags.split(",") if tag.strip())]
        return read_body(NoteBody, {**body, "tags": tags}).model_dump(mode="json")

    for feature in features:
        visit.store.annotations.change("feature", feature, make, author=form.author)
    return lead_to(visit, form, "/features", form.back)


def lead_to(visit: PageVisit, form: SignedForm, path: str, query: str = "") -> RedirectResponse:
    """Lead to a page of this store, and keep the writer's name in a cookie.

    Args:
        path: of the page, with `#` and the id of one of its elements where the reader is to look.
    """
    links = visit.links
    pairs = [(name, value) for name, value in parse_qsl(query[:8000]) if name != "store"]
    page, hash, element = path.partition("#")
    reply = RedirectResponse(address(links.base + page, [*pairs, ("store", links.store)]) + hash + element, 303)
    reply.set_cookie(COOKIE, quote(form.author), max_age=YEAR_S, path=links.base or "/", httponly=True, samesite="lax")
    return reply
