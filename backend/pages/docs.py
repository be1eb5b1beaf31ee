"""/docs: the reference of the API, rendered from the OpenAPI document. /method: docs/method.md."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt
from markupsafe import Markup

from backend.deps import StateDep, StoreDep
from backend.templating import FRONTEND, render, render_for

router = APIRouter()


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per endpoint: method, path, descriptions, parameters, and the names of its bodies."""
    entries = []
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            content = one["responses"].get("200", {}).get("content", {})
            body = one.get("requestBody", {}).get("content", {})
            entries.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "tag": (one.get("tags") or ["other"])[0],
                    "summary": one.get("summary", ""),
                    "description": one.get("description", ""),
                    "parameters": [
                        {**parameter, "type": kind(parameter["schema"])}
                        for parameter in one.get("parameters", [])
                    ],
                    "body": {media: kind(part.get("schema", {})) for media, part in body.items()},
                    "reply": {media: kind(part.get("schema", {})) for media, part in content.items()},
                }
            )
    return entries


def kind(schema: dict[str, Any]) -> str:
    """A short name of a schema: `integer`, `a | b`, `array of X`, or the name of a model."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " | ".join(kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"array of {kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


@router.get("/docs")
def docs(request: Request, state: StateDep) -> HTMLResponse:
    """The reference of the API."""
    document = request.app.openapi()
    return render(
        request,
        "docs.html",
        section="/docs",
        store=None,
        state=None,
        operations=operations(document),
        models=document.get("components", {}).get("schemas", {}),
        kind=kind,
    )


@cache
def method_page() -> tuple[Markup, list[tuple[str, str]]]:
    """docs/method.md as HTML without its title, and its sections as (anchor, title). HTML in it is shown as text; links
    to other files of docs/, which a server does not have, lose their target."""
    packed = FRONTEND / "docs" / "method.md"  # in the wheel
    source = packed if packed.is_file() else FRONTEND.parent / "docs" / "method.md"
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(source.read_text(encoding="utf-8"))[3:]
    sections = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            anchor = re.sub(r"[^\w -]", "", inline.content.lower()).replace(" ", "-")
            opening.attrSet("id", anchor)
            opening.attrSet("class", "section")
            sections.append((anchor, inline.content))
    inner = [child for token in tokens for child in token.children or []]
    links = [child for child in inner if child.type in ("link_open", "link_close")]
    for opening, closing in zip(links[::2], links[1::2], strict=True):
        if ".md" in str(opening.attrGet("href")):
            opening.tag = closing.tag = "span"
            opening.attrs.pop("href")
    return Markup(markdown.renderer.render(tokens, markdown.options, {})), sections


@router.get("/method")
def method(request: Request, state: StateDep, open_store: StoreDep) -> HTMLResponse:
    """What every figure of the pages means."""
    text, sections = method_page()
    return render_for(request, "method.html", state, open_store, section="/method", text=text, sections=sections)
