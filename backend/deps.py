"""What endpoints ask for: the store a request names, the live model, and the validators of a cached reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query, Request, Response

from backend.live import Live
from backend.problems import NotModified
from backend.recompute import Recomputed
from backend.settings import Settings
from precompute.store.reader import Store

VERSION = version("saevx")


@dataclass(frozen=True)
class OpenStore:
    """A store under the name that `store=` takes."""

    name: str
    path: Path
    store: Store
    recomputed: Recomputed
    """What the live model has computed anew of samples whose events the store has not kept."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.store.manifest

    @property
    def content_id(self) -> str:
        return str(self.manifest["content_id"])


@dataclass(frozen=True)
class State:
    """What lives as long as the server; `app.state.saevx`."""

    settings: Settings
    stores: dict[str, OpenStore]
    live: Live

    @property
    def default(self) -> OpenStore:
        return next(iter(self.stores.values()))


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
    if not store:
        return state.default
    if store not in state.stores:
        raise HTTPException(404, f"No store is called {store!r}; there are {', '.join(state.stores)}.")
    return state.stores[store]


StoreDep = Annotated[OpenStore, Depends(get_store)]


def base_path(request: Request) -> str:
    """Prefix of every link: the path under which a proxy shows the server."""
    return str(request.scope.get("root_path", "")).rstrip("/")


async def revalidate(request: Request, response: Response, state: StateDep, store: StoreDep) -> None:
    """A finished store never changes, so its content id and the code's version validate every reply; and whether the
    model is there, where a store leaves something to it."""
    live = "" if store.store.events.kept is None else f"-{state.live.status(store.name).state}"
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
