"""The OpenAPI document with descriptions and examples."""

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

from backend.openapi.examples import add_examples
from backend.openapi.glossary import describe

Document = dict[str, Any]


def openapi_document(of_routes: Callable[[], Document]) -> Callable[[], Document]:
    """A function that makes the document when it is first asked for, once.

    Args:
        of_routes: FastAPI's own `app.openapi`. Two threads in it at once fail with a KeyError, so others wait.
    """
    lock, full_document = Lock(), cache(lambda: add_examples(describe(of_routes())))

    def document() -> Document:
        with lock:
            return full_document()

    return document
