"""Every error as RFC 9457 problem details; a browser that opens a page gets the same sentence as HTML."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from backend.annotations.book import ConflictError
from backend.annotations.database import Entry, ReadOnlyError, UnavailableError
from backend.live.model_worker import ClientLeft
from backend.schemas.common import Problem
from backend.stores import OpenStore, State
from precompute.errors import ModelError, PairError, SaevxError
from precompute.store.events import EventsNotStored
from precompute.store.making.sealing import damage_sentence
from precompute.store.opening import StoreUnreadable
from precompute.store.reader import Store

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger(__name__)

NUMBERS = {"int_parsing": "a whole number", "int_from_float": "a whole number", "float_parsing": "a number"}
"""What to give where a value cannot be read as a number, by the type of pydantic's error."""
STATUS: dict[type[SaevxError], int] = {
    ReadOnlyError: 403,
    UnavailableError: 503,
    StoreUnreadable: 503,
    PairError: 422,
    ModelError: 500,
}
"""Of a SaevxError that is not 400."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PAGE_TITLES = {404: "Not found", 422: "Invalid value", 500: "The server failed", 503: "Not available at the moment"}
"""Where the phrase of HTTP is not plain."""
FAILED = (
    "The server failed with an internal error; its log has the details. If it fails again, check the store with "
    "`saevx verify`."
)
CHECKSUMS_S = 10.0
"""Longest wait for the checksums of a store; a large one takes longer, and the next failure has their result."""
ErrorPage = Callable[[Request, int, str, str], Response]


class Answered(Exception):  # noqa: N818 - no error
    """A dependency has the reply already, and the endpoint need not run."""

    def __init__(self, reply: Response) -> None:
        self.reply = reply


class NotModified(Answered):
    """The client's copy is current: answered 304 with the same validators."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(Response(status_code=304, headers=dict(headers)))


def check_modified(request: Request, headers: Mapping[str, str]) -> None:
    """Raises NotModified where the client has the reply with this `ETag`, which a proxy may have marked as weak."""
    held_tags = request.headers.get("if-none-match", "").split(",")
    if headers["ETag"].removeprefix("W/") in (tag.strip().removeprefix("W/") for tag in held_tags):
        raise NotModified(headers)


@contextlib.contextmanager
def http_status(status: int) -> Iterator[None]:
    """Turns a SaevxError of the block into this HTTP status, except what has an answer of its own everywhere: a store
    that cannot be read, events that it does not hold, and a model that fails."""
    try:
        yield
    except (StoreUnreadable, EventsNotStored, ModelError):
        raise
    except SaevxError as error:
        raise HTTPException(status, str(error)) from error


def status_of(error: SaevxError) -> int:
    """The HTTP status of an error outside such a block."""
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)


def problem(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None, **fields: Any
) -> JSONResponse:
    """An error as problem details, with further `fields`."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=request.url.path)
    return JSONResponse(body.model_dump(exclude_none=True) | fields, status, headers, media_type=MEDIA_TYPE)


def conflict_problem(request: Request, error: ConflictError) -> JSONResponse:
    """A conflict with both versions (schemas.annotations.ConflictProblem)."""
    entry: Entry = error.current
    current = {"kind": entry.kind, "key": entry.key, "version": entry.version, "author": entry.author, "at": entry.at,
               "deleted": entry.body is None, "body": entry.body}  # fmt: skip
    tag = {"ETag": f'"{entry.version}"'}
    return problem(request, 409, str(error), tag, current=current, yours=error.yours)


def _reasons(error: RequestValidationError) -> list[dict[str, Any]]:
    """What is wrong with which parameter. A value that is in none of several lists of choices gives one error, not one
    for each list."""
    reasons: list[dict[str, Any]] = []
    choices: dict[str, list[str]] = {}
    for fault in error.errors():
        place = [str(part) for part in fault["loc"][1:]]
        chosen_from = fault["type"] == "literal_error"
        where = ".".join(part for part in place if not (chosen_from and part.startswith("literal["))) or "body"
        if not chosen_from:
            number = NUMBERS.get(fault["type"])
            reason = f"give {number} instead of {fault['input']!r}" if number else fault["msg"]
            reasons.append({"where": where, "reason": reason})
            continue
        if where not in choices:
            choices[where] = []
            reasons.append({"where": where})
        choices[where] += fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return [{**f, "reason": f.get("reason") or f"choose {_join_or(choices[f['where']])}"} for f in reasons]


def _join_or(choices: list[str]) -> str:
    return " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)


def _sentence(errors: list[dict[str, Any]]) -> str:
    return "; ".join(f"{error['where']}: {error['reason']}" for error in errors)


def detail_of(request: Request, error: StarletteHTTPException) -> str:
    """What is wrong; of an address without a page or endpoint the router says no more than "Not Found"."""
    phrase, path = HTTPStatus(error.status_code).phrase, request.url.path
    if str(error.detail) != phrase:
        return str(error.detail)
    if error.status_code == 404:
        return f"There is nothing at {path}: check the address, or see what there is at /docs."
    return f"{phrase}: {request.method} {path}"


def headers_of(request: Request, error: StarletteHTTPException) -> Mapping[str, str] | None:
    """Those of the error; of 405 `Allow` with all methods of the address, where the router names its first route's."""
    if error.status_code != 405:
        return error.headers
    routes, scope = request.app.routes, request.scope
    methods = (m for m in METHODS if any(r.matches({**scope, "method": m})[0] is Match.FULL for r in routes))
    return {"Allow": ", ".join(methods)}


class DamageCheck:
    """Checks the files of a store, except its images, once: when a request first failed over it."""

    def __init__(self) -> None:
        self._results: WeakKeyDictionary[Store, asyncio.Future[str | None]] = WeakKeyDictionary()

    async def sentence(self, request: Request) -> str | None:
        """What is damaged in the store of a request that failed; None where nothing is, or it is not known yet."""
        store = self._store_of(request)
        if store is None:
            return None
        result = self._results.get(store.reader)
        if result is None:
            loop = asyncio.get_running_loop()
            result = self._results[store.reader] = loop.run_in_executor(None, damage_of, store.path)
        finished_tasks, _ = await asyncio.wait([result], timeout=CHECKSUMS_S)
        return result.result() if finished_tasks else None

    def _store_of(self, request: Request) -> OpenStore | None:
        state: State | None = getattr(request.app.state, "saevx", None)
        if state is None:
            return None
        name = request.query_params.get("store") or state.default_name
        return next((slot.store for slot in state.slots if slot.name == name), None)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page: outside /api, with HTML among what it accepts."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return "text/html" in request.headers.get("accept", "") and not path.startswith("/api/")


def damage_of(store: Path) -> str | None:
    """`damage_sentence`; None too for a store that was moved away."""
    with contextlib.suppress(SaevxError):
        return damage_sentence(store)
    return None


def add_handlers(app: FastAPI, error_page: ErrorPage) -> None:
    """Turn every exception of `app` into problem details, or into `error_page` for a browser outside /api."""
    damage_check = DamageCheck()

    async def answer(
        request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Response:
        if wants_page(request):
            title = PAGE_TITLES.get(status, HTTPStatus(status).phrase)
            page = await run_in_threadpool(error_page, request, status, title, detail)
            page.headers.update(headers or {})
            return page
        return problem(request, status, detail, headers, **fields)

    @app.exception_handler(Answered)
    async def answered(request: Request, error: Answered) -> Response:
        return error.reply

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> Response:
        return await answer(request, error.status_code, detail_of(request, error), headers_of(request, error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = _reasons(error)
        return await answer(request, 422, _sentence(errors), errors=errors)

    @app.exception_handler(SaevxError)
    async def user_error(request: Request, error: SaevxError) -> Response:
        if isinstance(error, StoreUnreadable | ModelError):
            cause = error.__cause__ if isinstance(error, ModelError) else None
            log.warning("%s %s: %s", request.method, request.url.path, error, exc_info=cause)
        return await answer(request, status_of(error), str(error))

    @app.exception_handler(ConflictError)
    async def conflict(request: Request, error: ConflictError) -> Response:
        reply = await answer(request, 409, f"{error} Go back: the page has what you typed.")
        return conflict_problem(request, error) if isinstance(reply, JSONResponse) else reply

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return Response(status_code=499)  # as nginx logs it; nobody reads it

    @app.exception_handler(OverflowError)
    async def too_big(request: Request, error: OverflowError) -> Response:
        return await answer(request, 422, "A number in the address is too large.")

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.exception("%s %s", request.method, request.url.path, exc_info=error)
        damage = await damage_check.sentence(request)
        return await answer(request, 500, FAILED) if damage is None else await answer(request, 503, damage)
