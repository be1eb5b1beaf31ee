"""/docs: the reference of the API, rendered from the OpenAPI document without files from a CDN."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.deps import StateDep
from backend.templating import render

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
