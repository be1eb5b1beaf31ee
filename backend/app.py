"""The web application: routers, static files, errors and headers around the stores it was given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from backend.deps import VERSION, OpenStore, State
from backend.headers import BodyLimit, RootPath, SecurityHeaders
from backend.live import Live
from backend.problems import MEDIA_TYPE, add_handlers
from backend.recompute import Recomputed
from backend.routers import (
    cooccurrence,
    docs,
    features,
    health,
    pages,
    quality,
    rejected,
    sae,
    samples,
    search,
    steer,
    stores,
)
from backend.routers import map as map_api
from backend.schemas import Problem
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.store.reader import Store

THREADS = 3
"""Requests worked on at once. Python runs one thread at a time: forty, anyio's default, take turns so often that fifty
people's pages need ten times as long, where three leave two to wait for the disk."""
FRONTEND = Path(__file__).resolve().parent.parent / "frontend"
MODULES = ("htm",)
"""What pages may load of frontend/node_modules, under /static/vendor."""

DESCRIPTION = """What a multimodal language model sees, feature by feature.

Every endpoint takes `store=NAME` (default: the first store). Lists are pages `{items, total, next}`: pass
`next` as `cursor`. Every error is an RFC 9457 problem details object."""


def open_stores(paths: list[Path]) -> dict[str, OpenStore]:
    """The stores by the name in their manifest; a second of the same name gets a number."""
    if not paths:
        raise SaevxError(
            "No store was named: give at least one finished store, as in `saevx serve demo/store`."
        )
    stores: dict[str, OpenStore] = {}
    for path in paths:
        store = Store.open(path)
        wanted = name = str(store.manifest["name"])
        number = 1
        while name in stores:
            number += 1
            name = f"{wanted}-{number}"
        stores[name] = OpenStore(name, path, store, Recomputed(store))
    return stores


def create_app(settings: Settings) -> FastAPI:
    """The app over `settings.stores`. Raises SaevxError where one cannot be opened."""
    opened = open_stores(settings.stores)
    state = State(settings, opened, Live(settings, opened))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        state.live.start()
        yield
        state.live.stop()

    app = FastAPI(
        title="SAE-V Explorer",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": "Problem details"}},
    )
    app.state.saevx = state
    add_handlers(app, getattr(pages, "error_page", None))

    api = (stores, rejected, sae, features, map_api, samples, quality, cooccurrence, search, steer)
    for module in api:
        app.include_router(module.router, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(docs.router, include_in_schema=False)
    app.include_router(pages.router, include_in_schema=False)
    mount_static(app)

    app.add_middleware(BodyLimit, most=int(settings.max_upload_mb * 1e6))
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RootPath, root_path=settings.root_path)
    return app


def mount_static(app: FastAPI) -> None:
    """Own files, and the third-party modules where `npm ci` or the wheel put them."""
    if not (FRONTEND / "static" / "vendor").is_dir():
        for module in MODULES:
            folder = FRONTEND / "node_modules" / module
            app.mount(f"/static/vendor/{module}", StaticFiles(directory=folder, check_dir=False))
    app.mount("/static", StaticFiles(directory=FRONTEND / "static"))
