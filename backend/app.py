"""The web application: routers, static files, errors and headers around the stores."""

import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from backend.annotations.database import Database, default_url
from backend.api import (
    controls,
    cooccurrence,
    families,
    feature_table,
    features,
    health,
    quality,
    rejected,
    sae,
    samples,
    search,
    steer,
    stores,
)
from backend.api import explain as explain_api
from backend.api import map as map_api
from backend.api.annotations import exchange, lists, marks, notes
from backend.api.compare import features as compare_features
from backend.api.compare import layers as compare_layers
from backend.api.compare import stores as compare_stores
from backend.api.own import images, matrix, pairs
from backend.api.sample import explained, list_file
from backend.deps import VERSION, ReusedPage
from backend.live.model_worker import Live
from backend.live.uploads import UploadedImages
from backend.middleware.frame import BodyLimit, HeadLimit, RootPath, SecurityHeaders
from backend.middleware.hosts import HostCheck
from backend.middleware.login import Login
from backend.middleware.metrics import Metrics
from backend.middleware.observe import Observe
from backend.openapi.document import openapi_document
from backend.pages import docs as docs_page
from backend.pages import features as features_page
from backend.pages import front as front_page
from backend.pages import quality as quality_page
from backend.pages import rejected as rejected_page
from backend.pages import sae as sae_page
from backend.pages import samples as samples_page
from backend.pages import search as search_page
from backend.pages import steer as steer_page
from backend.pages.annotations import lists as lists_page
from backend.pages.annotations import write as write_page
from backend.pages.annotations import write_lists as write_lists_page
from backend.pages.compare import layer as layer_page
from backend.pages.compare import page as compare_page
from backend.pages.cooccurrence import page as cooccurrence_page
from backend.pages.cooccurrence import pair as pair_page
from backend.pages.explain import page as explain_page
from backend.pages.feature import effect as effect_page
from backend.pages.feature import factsheet as factsheet_page
from backend.pages.feature import page as feature_page
from backend.pages.feature import partners as partners_page
from backend.pages.map import page as map_page
from backend.pages.map import samples as sample_map_page
from backend.pages.own import page as try_page
from backend.pages.sample import page as sample_page
from backend.problems import MEDIA_TYPE, add_handlers
from backend.schemas.common import Problem
from backend.settings import Settings
from backend.stores import OpenStore, State, open_stores
from backend.templating import error_page
from backend.workers.forward import Forward, FromWorker
from backend.workers.place import ModelState, SharedModelState, SharedWrites, Worker
from backend.workers.remote import RemoteLive, RemoteUploads

THREADS = 3
"""Requests processed at once. Python runs one thread at a time; with 40 threads, the default of anyio, they take turns
so often that pages for fifty users take ten times as long. With three, two can wait for the disk."""
FRONTEND = Path(__file__).resolve().parent.parent / "frontend"
MODULES = ("htm",)
"""Packages in frontend/node_modules that pages may load, under /static/vendor."""

API = (
    stores, controls, rejected, sae, feature_table, features, families, map_api, explained, list_file, samples, quality,
    cooccurrence, compare_features, compare_stores, compare_layers, images, pairs, matrix, search, steer, explain_api,
    notes, lists, marks, exchange,
)  # fmt: skip
FREQUENT_PAGES = features_page, feature_page, sample_page, search_page
"""Those of `STORE_PAGES` that are asked for most: before all others, since each address is compared with the routes one
after the other."""
STORE_PAGES = (
    front_page, factsheet_page, partners_page, samples_page, sample_map_page, map_page, cooccurrence_page, pair_page,
    quality_page, rejected_page, docs_page,
)  # fmt: skip
"""Pages that show one store and what was written about it, nothing else: rendered once, then reused."""
PAGES = (
    effect_page, try_page, compare_page, layer_page, sae_page, steer_page, explain_page, write_page,
    write_lists_page, lists_page,
)  # fmt: skip

DESCRIPTION = """Features of a multimodal language model, and where they fire in texts and images.

Every endpoint takes `store=NAME` (default: the first store). Lists are pages `{items, total, next}`: pass
`next` as `cursor` to get the next page. Every error is an RFC 9457 problem details object."""


def create_app(settings: Settings, names: Iterable[str] = (), worker: Worker | None = None) -> FastAPI:
    """The app over `settings.stores`.

    Args:
        names: names of this server besides `localhost`, the machine's name, IP addresses and `settings.allowed_host`;
            a request with any other `Host` is refused.
        worker: which of several processes over these stores this one is; None where it is alone.

    Raises:
        SaevxError: no store can be opened, or not the database of annotations. If only some stores cannot,
            `app.state.saevx.unavailable` names them.
    """
    writes = SharedWrites(worker) if worker else None
    database = Database(settings.annotations, settings.read_only, writes) if settings.annotations else None
    if database is not None:
        database.check()
    slots = open_stores(
        settings.stores, lambda path: database or Database(default_url(path), settings.read_only, writes)
    )
    stores = [slot.store for slot in slots if slot.store]
    state = State(settings, slots, live_of(settings, stores, worker), stores[0].name, uploads_of(settings, worker))
    for slot in slots:
        slot.on_change = state.live.replace

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS  # once, before the first request
        state.live.start()
        yield
        state.live.stop()

    app = app_of_routes(lifespan)
    app.state.saevx, app.state.metrics, app.state.worker = state, Metrics(state), worker
    app.openapi = shared_document()  # type: ignore[method-assign]
    add_handlers(app, error_page)
    mount_static(app)

    if worker is not None and not worker.has_model:
        app.add_middleware(Forward, worker=worker)
    app.add_middleware(BodyLimit, max_bytes=int(settings.max_upload_mb * 1e6))
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.add_middleware(Login, token=settings.secret_token(), proxy_header=settings.trust_proxy_auth)
    app.add_middleware(HostCheck, names=[socket.gethostname().lower(), *names], allowed_names=settings.allowed_host)
    app.add_middleware(HeadLimit)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Observe, metrics=app.state.metrics, proxy_header=settings.trust_proxy_auth)
    app.add_middleware(RootPath, root_path=settings.root_path)
    if worker is not None:
        app.add_middleware(FromWorker, worker=worker)
    return app


def live_of(settings: Settings, stores: list[OpenStore], worker: Worker | None) -> Live:
    """The model, in the one process that has it; in the others what leads to it."""
    if worker is None:
        return Live(settings, stores)
    if not worker.has_model:
        return RemoteLive(settings, stores, worker)
    live, model_state = Live(settings, stores), SharedModelState(worker)
    live.on_change = lambda: model_state.write(ModelState(states=dict(live.states), waiting=live.waiting))
    live.on_change()
    return live


def uploads_of(settings: Settings, worker: Worker | None) -> UploadedImages:
    """Uploaded images, likewise."""
    if worker is None or worker.has_model:
        return UploadedImages(int(settings.max_uploads_mb * 1e6))
    return RemoteUploads()


@cache
def all_routes() -> tuple[BaseRoute, ...]:
    """Every endpoint and page; shared by the apps of a process, as FastAPI reads their parameters for half a second."""
    router = APIRouter(
        responses={"4XX": {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": "Problem details"}}
    )
    for module in FREQUENT_PAGES:
        router.include_router(module.router, include_in_schema=False, dependencies=[ReusedPage])
    for module in API:
        router.include_router(module.router, prefix="/api/v1")
    router.include_router(health.router)
    for module in STORE_PAGES:
        router.include_router(module.router, include_in_schema=False, dependencies=[ReusedPage])
    for module in PAGES:
        router.include_router(module.router, include_in_schema=False)
    return tuple(router.routes)


def app_of_routes(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """FastAPI with every endpoint and page, and nothing around them."""
    return FastAPI(
        title="SAE-V Explorer",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        routes=[*all_routes()],
    )


@cache
def shared_document() -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, the same in all apps of a process."""
    return openapi_document(app_of_routes().openapi)


def mount_static(app: FastAPI) -> None:
    """Serve our static files, and the third-party modules from where `npm ci` or the wheel has put them."""
    if not (FRONTEND / "static" / "vendor").is_dir():
        for module in MODULES:
            folder = FRONTEND / "node_modules" / module
            app.mount(f"/static/vendor/{module}", StaticFiles(directory=folder, check_dir=False))
    app.mount("/static", StaticFiles(directory=FRONTEND / "static"))
