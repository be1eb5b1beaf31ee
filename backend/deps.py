"""Dependencies of endpoints: the state, the store that a request names, both as a `Visit`, and the validators of a
cached reply."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from fastapi import Depends, HTTPException, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

from backend.api.annotations.common import author_name
from backend.live.model_worker import Reservation
from backend.live.uploads import UploadedImage, add_upload
from backend.problems import Answered, check_modified
from backend.replies import page_headers
from backend.schemas.common import LiveStatus
from backend.stores import OpenStore, State
from precompute.store.companion_files import COMPANIONS, companion_path
from precompute.store.opening import Stamp
from precompute.store.reader import Store

VERSION = version("saevx")
ROOT = Path(__file__).resolve().parents[1]
CHANGED_NS = max(
    path.stat().st_mtime_ns
    for room, kind in (("backend", "*.py"), ("frontend/templates", "*.html"))
    for path in (ROOT / room).rglob(kind)
)
CODE = f"{VERSION}-{CHANGED_NS:x}"
"""Version and last change of the code that renders pages: after a change, a browser must not keep the old page."""


# Coroutines, though they await nothing: FastAPI would run a plain function in a thread, which costs many times more.
async def get_state(request: Request) -> State:
    return request.app.state.saevx


StateDep = Annotated[State, Depends(get_state)]


async def get_store(
    state: StateDep,
    store: Annotated[str | None, Query(description="Name of the store; default: the first.", max_length=200)] = None,
) -> OpenStore:
    """The store as it is on disk now. HTTP 404 if no store has the name, 503 if it cannot be read."""
    name = store or state.default_name
    slot = next((slot for slot in state.slots if slot.name == name), None)
    if slot is None:
        names = ", ".join(slot.name for slot in state.slots)
        raise HTTPException(404, f"There is no store {name!r}; this server has {names}.")
    current = await slot.current()
    if current.annotations.is_stale():
        await run_in_threadpool(current.annotations.refresh)
    return current


StoreDep = Annotated[OpenStore, Depends(get_store)]


class Visit(NamedTuple):
    """A request, with the server's state and the store that it names."""

    request: Request
    state: State
    store: OpenStore

    def at(self, other: OpenStore) -> Self:
        """The same request, about another store."""
        return self._replace(store=other)

    @property
    def reader(self) -> Store:
        """The finished store itself."""
        return self.store.reader

    @property
    def model(self) -> LiveStatus:
        """State of the store's live model."""
        return self.state.live.status(self.store.name)

    def reserve(self) -> Reservation:
        """A place in the model's queue. Raises as `Live.reserve`."""
        return self.state.live.reserve(self.store.name)

    async def hold(self, image: UploadFile) -> UploadedImage:
        """Hold an image that was sent for the model.

        Raises:
            HTTPException: 413 or 422 for an image that cannot be read, 503 if the model is off.
        """
        model = self.model  # once: its state may change from one look to the next
        if model.state in ("off", "failed"):
            raise HTTPException(503, model.reason)
        return await add_upload(image, self.state.uploads, self.state.settings)


async def get_visit(request: Request, state: StateDep, store: StoreDep) -> Visit:
    return Visit(request, state, store)


VisitDep = Annotated[Visit, Depends(get_visit)]


async def request_stack() -> AsyncIterator[ExitStack]:
    """A stack for context managers that end when the reply has been sent or the request has failed, such as
    `Live.reserve` of a request that was checked first."""
    with ExitStack() as stack:
        yield stack


AnsweredDep = Annotated[ExitStack, Depends(request_stack)]


async def revalidate(request: Request, response: Response, state: StateDep, store: StoreDep) -> None:
    """Set the validators, or answer 304. A finished store never changes, so its content id, the code's version and the
    last change of its annotations and of its hallucination figures validate every reply; so does the state of the
    model, if the store leaves events to it."""
    model_part = "" if store.reader.events.kept_rows is None else f"-{state.live.status(store.name).state}"
    notes_part = f"-{store.annotations.revision}" if store.annotations.revision else ""
    figures_part = "" if (stamp := store.reader.hallucination.stamp) is None else f"-{stamp.modified_ns:x}"
    headers = {
        "ETag": f'W/"{store.content_id[:16]}-{VERSION}{model_part}{notes_part}{figures_part}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
    }
    check_modified(request, headers)
    response.headers.update(headers)


Cached = Depends(revalidate)


async def reuse_page(request: Request, state: StateDep, store: StoreDep) -> None:
    """Answer with the page as it was rendered before, or 304 where the client has it; else have it held (see
    `templating.render_for`).

    Not for a page with what the model reads: the visitor's own pair, a search by more than words; nor, where the store
    leaves events to the model, for the pages of one feature or sample."""
    waits_for_model = bool(request.path_params) and store.reader.events.kept_rows is not None
    if waits_for_model or request.method != "GET" or not OF_MODEL.isdisjoint(request.query_params):
        return
    tag = page_tag(request, state, store)
    check_modified(request, page_headers(tag))
    if (page := store.pages.get(tag)) is not None:
        raise Answered(page.reply())
    request.state.page_tag = tag


OF_MODEL = {"image", "text", "own", "model", "sample", "sample_key"}
"""Parameters of a page that name what the model reads."""
ReusedPage = Depends(reuse_page)


def page_tag(request: Request, state: State, store: OpenStore) -> str:
    """Validator of a page: a hash of all that it shows. That is the store, which never changes, at this address; what
    people wrote about it, and who reads; what was measured on it and lies next to it; and the state of the model."""
    address = [request.scope.get(name) for name in ("root_path", "path", "query_string")]
    parts = (
        store.content_id, CODE, str(request.base_url), address, accepts_gzip(request),
        store.annotations.revision, author_name(request),
        [Stamp.from_file(companion_path(store.path, name)) for name in COMPANIONS],
        state.live.state_of(store.name), state.default_name, state.unavailable,
        [(name, store.content_id) for name, store in state.stores.items()],
    )  # fmt: skip
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def accepts_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
