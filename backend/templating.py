"""How a page is rendered: the Jinja environment, addresses, and the values that every page needs."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote_plus

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import FileSystemLoader, StrictUndefined, select_autoescape
from pydantic import AfterValidator, BeforeValidator

from backend.api.annotations.common import author_name
from backend.api.stores import get_store_detail
from backend.deps import accepts_gzip, page_tag
from backend.drawing import parts
from backend.drawing.environment import PageEnvironment
from backend.drawing.figures import (
    format_count,
    format_figure,
    format_number,
    format_percent,
    format_short,
    format_significant,
    log_share,
    width_of,
)
from backend.drawing.links import Linked
from backend.drawing.text import display_caption, visible
from backend.links import sample_key, sample_of, sample_path
from backend.replies import RenderedPage
from backend.stores import OpenStore, State
from backend.tour import tour_of
from precompute.store.opening import StoreUnreadable
from precompute.store.schema import GOOD_NAME

FRONTEND = Path(__file__).resolve().parents[1] / "frontend"

KEYS = (
    ("j k", "next, previous row of a list; on the page of a feature or sample the next, previous one of its list"),
    ("→ ←", "next, previous feature or sample; next page of a list"),
    ("o", "open the row that has the focus"),
    ("x", "select the row that has the focus"),
    ("e", "on the page of a feature or sample: your label, in the notes"),
    ("y w", "on the page Quality: the flag is right, wrong about the sample that has the focus"),
    ("/", "search field of the page, or the page Search"),
    ("[ ]", "on the page of a feature or sample: the same place in the previous or next layer"),
    ("h", "hide or show activations{on_images}"),
    ("n p Esc", "next, previous step of the tour; leave it"),
    ("Esc", "close a panel that fills the window"),
    ("?", "this list"),
    (
        "↑ ↓ ← →",
        "{on_image}on the map: go to the next feature or sample that way, with Shift move; in the matrix of "
        "families: go from cell to cell",
    ),
    ("+ − 0", "on the map: zoom; show everything"),
    ("l Esc", "on the map: select an area; unpin the feature or sample"),
)
"""The keys of the pages (static/js/keys.js, sample.js, map/input.js), as the dialog Keys lists them (`keys_help`)."""

OF_PAGES = {"tour", "heat", "view"}
"""Parameters of pages that their data do not depend on: the step of the tour, how activations are drawn, and which part
of a map is in view."""

templates = Jinja2Templates(
    env=PageEnvironment(
        loader=FileSystemLoader(FRONTEND / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        auto_reload=False,  # it would look at a dozen files for each page
        trim_blocks=True,
        lstrip_blocks=True,
    )
)
templates.env.globals |= {
    "verdict_help": parts.VERDICT_HELP,
    "page_parts": parts,
    "author_name": author_name,
    "good_name": GOOD_NAME,
}
templates.env.filters |= {
    "log_share": log_share,
    "n": format_number, "figure": format_figure, "short": format_short, "g": format_significant,
    "big": format_count, "pct": format_percent,
    "width": width_of,
    "visible": visible, "caption": display_caption, "sample_path": sample_path, "sample_key": sample_key,
}  # fmt: skip


def keys_help(has_images: bool) -> list[tuple[str, str]]:
    """Keys and what they do; a store of texts has no image."""
    words = {"on_image": "on an image of a sample: choose a patch, which Enter opens; ", "on_images": " on images"}
    return [(keys, help.format_map(words if has_images else dict.fromkeys(words, ""))) for keys, help in KEYS]


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


# Without JavaScript, a form also sends its empty fields.
Maybe = BeforeValidator(_none_if_empty)
MaybeStr = Annotated[str | None, Maybe]
SampleKey = Annotated[str | None, Maybe, AfterValidator(lambda key: key and sample_of(key))]
"""A sample as `sample_key` names it, because form fields change the line breaks of an unencoded id."""


def address(path: str, pairs: list[tuple[str, Any]]) -> str:
    """`path` with those pairs whose value is not None and not empty; a list gives one pair per element."""
    flat: list[tuple[str, str]] = []
    for name, value in pairs:
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None and item != "":
                flat.append((name, f"{item:g}" if isinstance(item, float) else str(item)))
    return f"{path}?{'&'.join([f'{_quote(name)}={_quote(value)}' for name, value in flat])}" if flat else path


def _quote(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote_plus(text, safe=",")  # most are names and numbers


class PageLinks:
    """Addresses of pages, for one request: with the root path and, unless it is the default, the store."""

    def __init__(self, request: Request, store: str) -> None:
        self.base: str = request.scope.get("root_path", "").rstrip("/")
        self.path: str = request.url.path.removeprefix(self.base)
        self.store = store
        self.query = [(k, v) for k, v in request.query_params.multi_items() if k != "store" and v != ""]

    @classmethod
    def of_store(cls, request: Request, state: State, store: OpenStore) -> Self:
        return cls(request, "" if store.name == state.default_name else store.name)

    def page(self, path: str, **params: Any) -> str:
        if not params and not self.store:
            return self.base + path
        return address(self.base + path, [*params.items(), ("store", self.store)])

    def api(self, path: str, **params: Any) -> str:
        return self.page(f"/api/v1{path}", **params)

    def again(self, **changes: Any) -> str:
        """This page with changed parameters; a new filter or order begins at its first page."""
        drop = set(changes) | (set() if "cursor" in changes else {"cursor"})
        parameters = [(k, v) for k, v in self.query if k not in drop]
        return address(self.base + self.path, [*parameters, *changes.items(), ("store", self.store)])

    def api_again(self, path: str) -> str:
        query = [(k, v) for k, v in self.query if k not in OF_PAGES]
        return address(f"{self.base}/api/v1{path}", [*query, ("store", self.store)])

    def static(self, path: str) -> str:
        return f"{self.base}/static/{path}"


def store_titles(stores: list[OpenStore]) -> dict[str, str]:
    """What the menu calls each store: its name, and its folder where several were made under one name."""
    n_of = Counter(str(store.reader.manifest["name"]) for store in stores)
    several = [store for store in stores if n_of[str(store.reader.manifest["name"])] > 1]
    folders = {store.name: f" ({'/'.join(store.path.parts[-2:])})" for store in several}
    return {store.name: store.name + folders.get(store.name, "") for store in stores}


def render(
    request: Request,
    template: str,
    *,
    section: str,
    store: Any,
    state: State | None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """The page `template` in its frame.

    Args:
        store: None if the page shows no store or it cannot be read (error pages).
        state: the server's, for the menu of stores; None without a menu.
    """
    default, stores = (state.default_name, list(state.stores.values())) if state else ("", [])
    links = PageLinks(request, store.name if store and store.name != default else "")
    has_images = not store or store.n_image_tokens > 0
    context: dict[str, Any | Callable[..., str]] = {
        "base": links.base,
        "store_param": links.store,
        "u": links.page,
        "api": links.api,
        "again": links.again,
        "api_again": links.api_again,
        "static": links.static,
        "section": section,
        "store": store,
        "stores": stores,
        "store_titles": store_titles(stores) if len(stores) > 1 else {},
        "tour": None,
        "draw": Linked(links.page, links.again, values.get("own_labels", {}), has_images),
        "keys_help": keys_help(has_images),
        "sample_noun": "pair" if has_images else "text",
    }
    return templates.TemplateResponse(request, template, {**context, **values}, status_code=status)


def render_for(
    request: Request, template: str, state: State, open_store: OpenStore, *, section: str, **values: Any
) -> HTMLResponse:
    """`render` for a page about one open store."""
    store = get_store_detail(state, open_store)
    values["tour"] = tour_of(request, open_store)
    context = {"own_labels": open_store.annotations.labels, **values}
    page = render(request, template, section=section, store=store, state=state, **context)
    tag: str | None = getattr(request.state, "page_tag", None)
    if tag is None or page.status_code != 200:
        return page
    if page_tag(request, state, open_store) != tag:
        return page  # the model's state or an annotation has changed meanwhile, and the tag is of what was before
    rendered_page = RenderedPage.of(bytes(page.body), tag, compressed=accepts_gzip(request))
    open_store.pages.put(tag, rendered_page)
    return rendered_page.reply()


def error_page(request: Request, status: int, title: str, detail: str) -> HTMLResponse:
    """The page of an error, for browsers outside the API; see `problems.add_handlers`."""
    state: State = request.app.state.saevx
    values: dict[str, Any] = {"section": "", "status": status, "code": status, "title": title, "detail": detail}
    name = request.query_params.get("store") or state.default_name
    named_store = state.stores.get(name)
    values["other_stores"] = [store for store in state.stores.values() if store.name != name]
    if status < 500 and named_store is not None:  # otherwise the store itself may be unreadable
        with suppress(StoreUnreadable):
            return render_for(request, "error.html", state, named_store, **values)
    return render(request, "error.html", store=None, state=state, **values)
