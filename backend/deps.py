"""Dependencies of endpoints: the state, the store that a request names, and the validators of a cached reply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from backend.problems import NotModified
from backend.stores import OpenStore, State

VERSION = version("saevx")


# Coroutines, though they await nothing: FastAPI would run a plain function in a thread, which costs many times more.
async def get_state(request: Request) -> State:
    state: State = request.app.state.saevx
    return state


StateDep = Annotated[State, Depends(get_state)]


async def get_store(
    state: StateDep,
    store: Annotated[
        str | None, Query(description="Name of the store; default: the first.", max_length=200)
    ] = None,
) -> OpenStore:
    """The store as it is on disk now. HTTP 404 if no store has the name, 503 if it cannot be read."""
    name = store or state.default_name
    slot = next((slot for slot in state.slots if slot.name == name), None)
    if slot is None:
        names = ", ".join(one.name for one in state.slots)
        raise HTTPException(404, f"There is no store {name!r}; this server has {names}.")
    opened = await slot.current()
    if opened.annotations.is_stale():
        await run_in_threadpool(opened.annotations.refresh)
    return opened


StoreDep = Annotated[OpenStore, Depends(get_store)]


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
    live = "" if store.store.events.kept_rows is None else f"-{state.live.status(store.name).state}"
    written = f"-{store.annotations.revision}" if store.annotations.revision else ""
    measured = "" if (stamp := store.store.hallucination.stamp) is None else f"-{stamp.modified_ns:x}"
    headers = {
        "ETag": f'W/"{store.content_id[:16]}-{VERSION}{live}{written}{measured}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
    }
    known_tags = request.headers.get("if-none-match", "")
    if headers["ETag"] in (tag.strip() for tag in known_tags.split(",")):
        raise NotModified(headers)
    response.headers.update(headers)


Cached = Depends(revalidate)
