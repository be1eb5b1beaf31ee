"""Forms that write lists, saved filters and marks; each leads back to the page that it came from."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import Field

from backend.annotations.database import Entry
from backend.api.annotations.lists import check_members
from backend.api.annotations.marks import write_mark
from backend.links import sample_of
from backend.pages.annotations.lists import new_name
from backend.pages.annotations.write import About, SignedForm, lead_to, read_body
from backend.pages.visit import PageDep
from backend.params import parse_numbers
from backend.schemas.annotations import MAX_MEMBERS, NAME_PATTERN, FilterBody, FilterPage, ListBody
from backend.schemas.common import FlagName

router = APIRouter(default_response_class=HTMLResponse)

NameField = Annotated[str, Field(pattern=f"^({NAME_PATTERN})?$")]


class ListForm(SignedForm):
    """A new list, or a change of one."""

    name: NameField = ""
    """Empty for a new list."""
    version: int = 0
    do: Literal["save", "add", "delete", "undo"] = "save"
    title: str = ""
    note: str = ""
    pair: str = ""
    """Sample of the test pair."""
    pair_text: str = ""
    features: str = ""
    """Numbers to add, or of a new list, separated by commas."""
    sample: list[str] = Field(default_factory=list, max_length=MAX_MEMBERS)
    """Samples to add, or of a new list, as addresses name them."""
    drop: list[str] = Field(default_factory=list, max_length=MAX_MEMBERS)
    """Members to leave out: `f12`, or `s` and the sample as addresses name it."""

    def members(self) -> tuple[list[int], list[str]]:
        """Features and samples to add. Raises HTTP 422."""
        return parse_numbers(self.features, "features", MAX_MEMBERS), [sample_of(key) for key in self.sample]

    def change_list(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The list with what the form changes. Raises HTTP 422."""
        features, samples = self.members()
        drop_features = {int(key[1:]) for key in self.drop if key[:1] == "f" and key[1:].isdigit()}
        drop_samples = {sample_of(key[1:]) for key in self.drop if key[:1] == "s"}
        form_values: dict[str, Any] = {}
        if self.do == "save" or not body:  # members may come with a new list
            pair = {"sample_id": self.pair.strip() or None, "text": self.pair_text.strip() or None}
            form_values = {"title": self.title, "note": self.note, "pair": pair if any(pair.values()) else None}
        return read_body(ListBody, {
            **body, **form_values,
            "features": [n for n in dict.fromkeys([*body.get("features", ()), *features]) if n not in drop_features],
            "samples": [id for id in dict.fromkeys([*body.get("samples", ()), *samples]) if id not in drop_samples],
        }).model_dump(mode="json")  # fmt: skip


@router.post("/lists")
def write_list(visit: PageDep, form: Annotated[ListForm, Form()]) -> Response:
    """Make a list, change, undo or delete it. A conflict is the page of an error: nothing was written."""
    features, samples = form.members()
    check_members(visit.store, features, [*samples, *([form.pair.strip()] if form.pair.strip() else [])])
    book = visit.store.annotations
    is_new = not form.name or (form.do == "add" and form.title.strip())  # who gives a title wants a list of that title
    name = new_name(visit.store, form.title) if is_new else form.name
    if form.do == "delete":
        book.put("list", name, None, author=form.author, version=form.version)
        return lead_to(visit, form, "/lists")
    if form.do == "undo":
        versions = book.history("list", name)
        old_body = versions[1].body if len(versions) > 1 else None
        book.put("list", name, old_body, author=form.author, version=form.version)
        return lead_to(visit, form, f"/lists/{name}" if old_body else "/lists")

    def make(current: Entry) -> Mapping[str, Any]:
        return form.change_list(current.body or {})

    only_members = form.do == "add"  # overwrites nothing that another may have written
    version = None if only_members else form.version
    book.change("list", name, make, author=form.author, version=version)
    return lead_to(visit, form, f"/lists/{name}")


class AddForm(About):
    """A feature or sample for a list."""

    list: NameField = ""
    title: str = ""
    """Of a new list, whatever `list` is."""


@router.post("/lists/add")
def add_to_list(visit: PageDep, form: Annotated[AddForm, Form()]) -> Response:
    """Add one feature or sample to a list."""
    kind, key = form.thing(visit.store)
    if not form.list and not form.title.strip():
        raise HTTPException(422, "Choose a list, or give the title of a new one.")
    name = new_name(visit.store, form.title) if form.title.strip() else form.list
    member: Any = int(key) if kind == "feature" else key
    field = "features" if kind == "feature" else "samples"

    def make(current: Entry) -> Mapping[str, Any]:
        body = {**ListBody(title=form.title[:200]).model_dump(mode="json"), **(current.body or {})}
        return {**body, field: [*dict.fromkeys([*body[field], member])]}

    visit.store.annotations.change("list", name, make, author=form.author)
    return lead_to(visit, form, f"{form.page()}#notes", form.back)


class FilterForm(SignedForm):
    """The filters of a page, to be saved under a name, or a saved one to delete."""

    page: FilterPage
    query: Annotated[str, Field(max_length=4000)] = ""
    title: Annotated[str, Field(max_length=200)] = ""
    name: NameField = ""
    version: int = 0
    do: Literal["save", "delete"] = "save"


@router.post("/filters")
def write_filter(visit: PageDep, form: Annotated[FilterForm, Form()]) -> Response:
    """Save the filters of a page, or delete saved ones."""
    book = visit.store.annotations
    if form.do == "delete":
        book.put("filter", form.name, None, author=form.author, version=form.version)
        return lead_to(visit, form, "/lists")
    if not form.title.strip():
        raise HTTPException(422, "Give the filters a name.")
    pairs = [(name, value) for name, value in parse_qsl(form.query) if name not in ("store", "cursor")]
    body = read_body(FilterBody, {"title": form.title, "page": form.page, "query": urlencode(pairs, safe=",")})
    book.put("filter", new_name(visit.store, form.title), body.model_dump(), author=form.author, version=0)
    return lead_to(visit, form, body.page, body.query)


class MarkForm(SignedForm):
    """Whether a flag is right about a pair."""

    flag: FlagName
    sample: str
    """As addresses name it."""
    right: Literal["yes", "no", ""] = ""
    """Empty takes the mark back."""
    back: str = ""


@router.post("/quality/mark")
def mark(visit: PageDep, form: Annotated[MarkForm, Form()]) -> Response:
    """Mark a pair, and lead back to the page Quality."""
    right = {"yes": True, "no": False}.get(form.right)
    write_mark(visit.store, form.flag, sample_of(form.sample), right, form.author)
    return lead_to(visit, form, "/quality#flagged", form.back)
