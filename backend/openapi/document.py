"""The OpenAPI document with descriptions and examples."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from backend.openapi.examples import add_examples

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


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document. A field or parameter without a description has that of its name in glossary.json."""
    meanings: dict[str, str] = json.loads(Path(__file__).with_name("glossary.json").read_text(encoding="utf-8"))
    for model in document["components"]["schemas"].values():
        for name, field in model.get("properties", {}).items():
            if name in meanings:
                field.setdefault("description", meanings[name])
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in meanings:
                    parameter.setdefault("description", meanings[parameter["name"]])
    return document
