"""How a page is rendered: the Jinja environment, addresses, and what every page's frame needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined
from markupsafe import Markup
from pydantic import AfterValidator, BeforeValidator

from backend.api.stores import get_store_detail
from backend.deps import OpenStore, State, get_state
from backend.pages.heat import Picture
from backend.pages.text import shown_caption, visible
from backend.sample_ids import sample_key, sample_of, sample_path
from precompute.store.opening import StoreUnreadable

FRONTEND = Path(__file__).resolve().parents[1] / "frontend"

VERDICT_HELP = {
    "cross-modal": "Its text and image tokens are more alike than those samples' tokens are anyway.",
    "unaligned": "It fires on both sides, but they are no more alike than chance.",
    "text-only": "In the weighed sample it fires strongly on text alone.",
    "image-only": "In the weighed sample it fires strongly on image patches alone.",
    "too-rare": "Too few samples switch it on strongly for ω to be computed.",
    "dead": "It is active on no token of this data.",
}
"""Every verdict in the order that the pages list them, with what it says."""

templates = Jinja2Templates(directory=FRONTEND / "templates")
templates.env.undefined = StrictUndefined
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.globals["verdict_help"] = VERDICT_HELP


# Numbers stand a hundred times on a page: as filters they cost a tenth of what macros would.
def shown_number(value: float | None, digits: int = 3) -> str:
    if value is None or value != value:
        return "–"
    return "0" if value == 0 else f"{value:.{digits}f}"


def shown_count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def shown_percent(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0 %"
    return f"{value * 100:.2g} %" if value < 0.001 else f"{value * 100:.{digits}f} %"


def width_of(value: float | None) -> str:
    """The length of a bar of 100 for a share of 1."""
    return f"{100 * max(0, min(1, value or 0)):.1f}"


templates.env.filters |= {
    "n": shown_number, "big": shown_count, "pct": shown_percent, "width": width_of,
    "visible": visible, "caption": shown_caption, "sample_path": sample_path, "sample_key": sample_key,
}  # fmt: skip


def drawn_glimpse(pictures: Sequence[Picture], words: Sequence[str]) -> Markup:
    """What a list shows of a feature: its strongest patches or, where no patch activates it, its words."""
    macros: Any = templates.env.get_template("macros.html").module
    drawn: Markup = macros.glimpse(pictures, words)
    return drawn


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


# A form without JavaScript sends its empty fields too.
Maybe = BeforeValidator(_none_if_empty)
MaybeStr = Annotated[str | None, Maybe]
MaybeInt = Annotated[int | None, Maybe]
MaybeFloat = Annotated[float | None, Maybe]
SampleKey = Annotated[str | None, Maybe, AfterValidator(lambda key: key and sample_of(key))]
"""A sample as `sample_key` names it: in a form's field the line breaks of a bare id would be changed."""


def address(path: str, pairs: list[tuple[str, Any]]) -> str:
    """`path` with the pairs whose value is neither None nor empty; a list gives one pair an element."""
    flat: list[tuple[str, str]] = []
    for name, value in pairs:
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None and one != "":
                flat.append((name, f"{one:g}" if isinstance(one, float) else str(one)))
    return f"{path}?{urlencode(flat)}" if flat else path


class Addresses:
    """Links of one request: they carry the root path, and the store unless it is the default one."""

    def __init__(self, request: Request, store: str) -> None:
        self.base: str = request.scope.get("root_path", "").rstrip("/")
        self.path: str = request.url.path.removeprefix(self.base)
        self.store = store
        self.query = [(k, v) for k, v in request.query_params.multi_items() if k != "store" and v != ""]

    def page(self, path: str, **params: Any) -> str:
        if not params and not self.store:
            return self.base + path
        return address(self.base + path, [*params.items(), ("store", self.store)])

    def api(self, path: str, **params: Any) -> str:
        return self.page(f"/api/v1{path}", **params)

    def again(self, **changes: Any) -> str:
        """This page with some parameters changed; a new filter or order starts at its first page."""
        drop = set(changes) | (set() if "cursor" in changes else {"cursor"})
        kept = [(k, v) for k, v in self.query if k not in drop]
        return address(self.base + self.path, [*kept, *changes.items(), ("store", self.store)])

    def api_again(self, path: str) -> str:
        return address(f"{self.base}/api/v1{path}", [*self.query, ("store", self.store)])

    def static(self, path: str) -> str:
        return f"{self.base}/static/{path}"


def render(
    request: Request,
    template: str,
    *,
    section: str,
    store: Any,
    stores: list[Any],
    default: str = "",
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """The page `template` in its frame.

    Args:
        store: None where none is shown or can be read (error pages).
        stores: those of the switcher.
        default: name of the store that addresses without `store=` mean.
    """
    links = Addresses(request, store.name if store and store.name != default else "")
    shared: dict[str, Any | Callable[..., str]] = {
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
    }
    return templates.TemplateResponse(request, template, {**shared, **values}, status_code=status)


def render_for(
    request: Request, template: str, state: State, served: OpenStore, *, section: str, **values: Any
) -> HTMLResponse:
    """`render` for a page about one open store."""
    store = get_store_detail(state, served)
    return render(request, template, section=section, store=store, **frame(state), **values)


def frame(state: State) -> dict[str, Any]:
    """What every page says of the server's stores."""
    return {"stores": list(state.stores.values()), "default": state.default_name}


def error_page(request: Request, status: int, title: str, detail: str) -> HTMLResponse:
    """The designed page of an error; `problems.add_handlers` calls it for browsers outside the API."""
    state = get_state(request)
    values: dict[str, Any] = {"section": "", "status": status, "code": status, "title": title, "detail": detail}
    asked = state.stores.get(request.query_params.get("store") or state.default_name)
    if status >= 500 or asked is None:  # it may be the store that cannot be read
        return render(request, "error.html", store=None, **frame(state), **values)
    try:
        return render_for(request, "error.html", state, asked, **values)
    except StoreUnreadable:
        return render(request, "error.html", store=None, **frame(state), **values)
