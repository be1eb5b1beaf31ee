"""What endpoints ask for: the store a request names, the live model, and the validators of a cached reply."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, HTTPException, Query, Request, Response

from backend.live.model_worker import Live
from backend.problems import NotModified
from backend.settings import Settings
from backend.stores import OpenStore, StoreSlot

__all__ = [
    "VERSION", "AnsweredDep", "Cached", "OpenStore", "State", "StateDep", "StoreDep", "base_path", "get_state",
    "get_store",
]  # fmt: skip

VERSION = version("saevx")


@dataclass(frozen=True)
class State:
    """What lives as long as the server; `app.state.saevx`."""

    settings: Settings
    slots: list[StoreSlot]
    live: Live
    default_name: str
    """Of the store that a request without `store=` asks for: the first that could be opened when the server started."""

    @property
    def default(self) -> OpenStore:
        return self.stores[self.default_name]

    @property
    def stores(self) -> dict[str, OpenStore]:
        """The stores that could be opened when they were last asked for, by name."""
        return {slot.name: slot.opened for slot in self.slots if slot.opened and not slot.reason}

    @property
    def unavailable(self) -> dict[str, str]:
        """The others, each with one sentence why."""
        return {slot.name: slot.reason for slot in self.slots if slot.reason}

    async def look(self) -> None:
        """Look at every store now, so that both say what is true."""
        for slot in self.slots:
            with contextlib.suppress(HTTPException):
                await slot.current()


def get_state(request: Request) -> State:
    state: State = request.app.state.saevx
    return state


# Coroutines, though they await nothing: FastAPI would hand a plain function to a thread, at many times its own cost.
async def asked_state(request: Request) -> State:
    return get_state(request)


StateDep = Annotated[State, Depends(asked_state)]


async def get_store(
    state: StateDep,
    store: Annotated[
        str | None, Query(description="Name of the store; default the first.", max_length=200)
    ] = None,
) -> OpenStore:
    """The store as it lies there now. HTTP 404 where no store has the name, 503 where it cannot be read."""
    name = store or state.default_name
    slot = next((slot for slot in state.slots if slot.name == name), None)
    if slot is None:
        names = ", ".join(one.name for one in state.slots)
        raise HTTPException(404, f"No store is called {name!r}; there are {names}.")
    return await slot.current()


StoreDep = Annotated[OpenStore, Depends(get_store)]


async def until_answered() -> AsyncIterator[ExitStack]:
    """What is entered here is left when the reply has been sent, or there will be none: `Live.reserve`, once a request
    has turned out to be well formed."""
    with ExitStack() as stack:
        yield stack


AnsweredDep = Annotated[ExitStack, Depends(until_answered)]


def base_path(request: Request) -> str:
    """Prefix of every link: the path under which a proxy shows the server."""
    return str(request.scope.get("root_path", "")).rstrip("/")


async def revalidate(request: Request, response: Response, state: StateDep, store: StoreDep) -> None:
    """A finished store never changes, so its content id and the code's version validate every reply; and whether the
    model is there, where a store leaves something to it."""
    live = "" if store.store.events.kept_rows is None else f"-{state.live.status(store.name).state}"
    headers = {
        "ETag": f'W/"{store.content_id[:16]}-{VERSION}{live}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
    }
    asked = request.headers.get("if-none-match", "")
    if headers["ETag"] in (tag.strip() for tag in asked.split(",")):
        raise NotModified(headers)
    response.headers.update(headers)


Cached = Depends(revalidate)
