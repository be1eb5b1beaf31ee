"""/docs: the reference of the API, rendered from the OpenAPI document. /method: docs/method.md."""

import json
import re
from functools import cache
from itertools import pairwise
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt
from markupsafe import Markup

from backend.openapi.examples import BODIES, FORMS, PARAMETERS
from backend.pages.visit import PageDep
from backend.templating import FRONTEND

router = APIRouter()


def operations(document: dict[str, Any], base: str, sample: str) -> list[dict[str, Any]]:
    """One entry per endpoint: method, path, descriptions, parameters, the names of its bodies, and examples.

    Args:
        base: address of the server.
        sample: id of a sample for examples.
    """
    entries = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation["responses"].get("200", {}).get("content", {})
            body = operation.get("requestBody", {}).get("content", {})
            entries.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "tag": (operation.get("tags") or ["other"])[0],
                    "summary": operation.get("summary", ""),
                    "description": operation.get("description", ""),
                    "parameters": [
                        {**parameter, "type": kind(parameter["schema"])}
                        for parameter in operation.get("parameters", [])
                    ],
                    "snippets": snippets(method, path, operation, base, sample),
                    "body": {media: kind(part.get("schema", {})) for media, part in body.items()},
                    "reply": {media: kind(part.get("schema", {})) for media, part in content.items()},
                    "example": indent(content.get("application/json", {}).get("example")),
                }
            )
    return entries


def snippets(method: str, path: str, operation: dict[str, Any], base: str, sample: str) -> dict[str, str]:
    """A request as a command for the shell and in Python."""
    values = {**PARAMETERS, "sample_id": sample, "id": sample}
    required_parameters = [parameter for parameter in operation.get("parameters", []) if parameter.get("required")]
    address, query = base.rstrip("/") + path, {}
    if path.startswith("/api/v1/sample") and path.endswith("/features"):
        query["position"] = "0"  # or a patch
    if path == "/api/v1/search/live":
        query["sample"] = sample  # or an image, or words
    if path.startswith("/api/v1/try"):
        query |= {"own": "HASH:a red dog"} if path.endswith("/matrix") else {"image": "HASH", "text": "a red dog"}
    if path == "/api/v1/try/features":
        query["position"] = "0"
    for parameter in required_parameters:
        name = parameter["name"]
        if parameter["in"] == "path":
            address = address.replace(f"{{{name}}}", quote(str(values[name])))
        else:
            query[name] = values[name]
    url = f"{address}?{urlencode(query)}" if query else address
    short_path = path.removeprefix("/api/v1")
    curl, python = [f"curl '{url}'"], [repr(url)]
    if method != "get":
        curl.append(f"-X {method.upper()}")
    if "/annotations/" in path and method in ("put", "delete") and short_path != "/annotations/import":
        curl.append("-H 'If-Match: \"0\"'")
        python.append("headers={'If-Match': '\"0\"'}")
    if method in ("put", "post") and short_path in BODIES:
        curl += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(BODIES[short_path])}'"]
        python.append(f"json={BODIES[short_path]!r}")
    if method == "post" and short_path in FORMS:
        curl += [f"-F '{name}={value}'" for name, value in FORMS[short_path].items()]
        files = {name: value[1:] for name, value in FORMS[short_path].items() if value.startswith("@")}
        data = {name: value for name, value in FORMS[short_path].items() if name not in files}
        python += [f"data={data!r}"] if data else []
        file_arguments = ", ".join(f"{name!r}: open({file!r}, 'rb')" for name, file in files.items())
        python += [f"files={{{file_arguments}}}"] if files else []
    reply = operation["responses"].get("200", {}).get("content", {})
    result = "reply.json()" if "application/json" in reply else "reply.content"
    call = f"requests.{method}({', '.join(python)})"
    lines = ["import requests", "", f"reply = {call}", "reply.raise_for_status()", f"print({result})"]
    return {"curl": " ".join(curl), "python": "\n".join(lines)}


def indent(example: Any) -> str | None:
    """JSON to read; None where there is none."""
    return None if example is None else json.dumps(example, indent=2, ensure_ascii=False)


def matches(entry: dict[str, Any], words: str) -> bool:
    """Whether an endpoint has all the words."""
    text = " ".join([entry["method"], entry["path"], entry["tag"], entry["summary"], entry["description"],
                     *(parameter["name"] for parameter in entry["parameters"])]).lower()  # fmt: skip
    return all(word in text for word in words.lower().split())


def kind(schema: dict[str, Any]) -> str:
    """A short name of a schema: `integer`, `a | b`, `array of X`, or the name of a model."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " | ".join(kind(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"array of {kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


@router.get("/docs")
def docs(visit: PageDep, q: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """The reference of the API, or the endpoints that have the words `q`."""
    document = visit.request.app.openapi()
    sample = visit.reader.samples.sample_id(0)
    entries = operations(document, str(visit.request.base_url), sample)
    models = document.get("components", {}).get("schemas", {})
    return visit.render(
        "docs.html",
        section="/docs",
        q=q,
        operations=[entry for entry in entries if matches(entry, q)],
        models=models,
        listed=models if not q.strip() else {},
        kind=kind,
    )


@cache
def method_page() -> tuple[Markup, list[tuple[str, str]]]:
    """docs/method.md as HTML without its title, and its sections as (anchor, title). HTML in it is shown as text; links
    to other files of docs/, which a server does not have, lose their target."""
    packed_path = FRONTEND / "docs" / "method.md"  # in the wheel
    source = packed_path if packed_path.is_file() else FRONTEND.parent / "docs" / "method.md"
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(source.read_text(encoding="utf-8"))[3:]
    sections = []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            anchor = re.sub(r"[^\w -]", "", inline.content.lower()).replace(" ", "-")
            heading.attrSet("id", anchor)
            heading.attrSet("class", "section")
            sections.append((anchor, inline.content))
    inline_tokens = [child for token in tokens for child in token.children or []]
    links = [child for child in inline_tokens if child.type in ("link_open", "link_close")]
    for link_start, link_end in zip(links[::2], links[1::2], strict=True):
        if ".md" in str(link_start.attrGet("href")):
            link_start.tag = link_end.tag = "span"
            link_start.attrs.pop("href")
    return Markup(parser.renderer.render(tokens, parser.options, {})), sections


@router.get("/method")
def method(visit: PageDep) -> HTMLResponse:
    """What every figure of the pages means."""
    text, sections = method_page()
    return visit.render("method.html", section="/method", text=text, sections=sections)
