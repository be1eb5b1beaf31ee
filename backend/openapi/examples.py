"""Examples in the OpenAPI document: of each parameter and body written here, of each reply and field recorded from the
demo by `python -m tests.helpers.api_examples`."""

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from backend.schemas.explain import EXAMPLE

PARAMETERS: dict[str, Any] = {
    "a": 3, "area": "0-0_65534-0_65534-65534", "author": "Kim", "b": 4, "by": "agreement", "crop": "0,0,0.5,0.5",
    "cursor": "`next` of the previous page", "family": 3, "feature": 3, "flag": "mismatch", "format": "csv",
    "has_label": True, "hash": "HASH", "id": "scene-00017", "ids": "3,17,40", "image": "HASH", "keep": 70, "key": "3",
    "kind": "feature", "like": "3,17", "max_agreement": 1, "max_density": 0.1, "max_density_image": 0.1,
    "max_density_text": 0.1, "max_label_score": 1, "max_length": 200, "max_lift": 1, "max_n_samples": 500,
    "max_omega": 1, "max_pair_lift": 100, "max_place_share": 0.5, "max_score": 0.9, "min_agreement": 0.5,
    "min_density_image": 0.001, "min_density_text": 0.001, "min_label_score": 0.7, "min_length": 3, "min_lift": 0.1,
    "min_n_samples": 20, "min_omega": 0.5, "min_pair_lift": 3, "min_place_share": 0.5, "min_score": 0.5,
    "name": "dogs", "patch": "0,2,3", "place": "row 0", "position": 0, "q": "dog", "reviewed": True,
    "rows": "3,17,40",
    "sample": "scene-00017", "sample_id": "scene-00017", "size": 256, "store": "demo", "tag": "animal",
    "threshold": 0.99, "verdict": "cross-modal", "v": "35cf5be04cd4", "with": "OTHER",
}  # fmt: skip
"""By name; a parameter with a default or a list of choices takes its example from there."""
BODIES: dict[str, dict[str, Any]] = {
    "/steer": {"prompt": "What is this?", "features": [{"id": 3, "strength": 4}], "max_tokens": 24},
    "/explain": EXAMPLE,
    "/explain/test": {**EXAMPLE, "ablate": [3], "patches": [[0, 2, 3]]},
    "/annotations/features/{feature}": {"label": "dogs", "tags": ["animal"], "author": "Kim"},
    "/annotations/sample": {"note": "The caption is wrong.", "author": "Kim"},
    "/annotations/lists/{name}": {"title": "Dogs", "features": [3, 4], "author": "Kim"},
    "/annotations/filters/{name}": {"title": "Dogs", "page": "/features", "query": "q=dog", "author": "Kim"},
    "/annotations/marks/{flag}": {"right": True, "author": "Kim"},
}
"""An example of the body of each endpoint that takes JSON."""
FORMS = {
    "/search": {"text": "a red dog"},
    "/score": {"text": "a red dog", "image": "@photo.jpg"},
    "/images": {"image": "@photo.jpg"},
}
"""Likewise of forms; @ begins the name of a file."""
FIELDS: dict[str, Any] = {
    "add_features": [3, 4], "add_samples": ["scene-00017"], "add_tags": ["animal"],
    "advice": "Name the folder with --image-folder.", "control": 1, "current": True, "cut": 0.62, "draws": 4,
    "errors": [{"loc": ["query", "min_lift"], "msg": "a number"}], "image": "iVBORw0KGgo…",
    "image_hash": "HASH", "id": "scene-00017",
    "kind": "image-missing", "mask": [[0, 2, 3]], "n_compared": 1488, "n_shared": 1500,
    "needs": "--store STORE",
    "next": "WzIsIDMuNV0", "note": "Not measured yet.", "other_logprob": -0.7,
    "pair": {"text": "a red dog"}, "reason": "The model is off.", "remove_features": [4],
    "remove_samples": ["scene-00017"], "remove_tags": ["animal"], "restore": 2, "row": 17,
    "sentence": "The image file does not exist.", "sides": ["text", "image"], "suggestion": 0.97, "support": 12,
    "text": "a red dog", "unread": 3, "warning": "The edit is larger than half of ‖h‖.",
}  # fmt: skip
"""By name, of fields that no reply of the demo has. Others take their example from a field of another model."""

TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
}  # fmt: skip
"""Of JSON, and what they are in Python."""


@cache
def read_examples() -> dict[str, dict[str, Any]]:
    """What the command recorded: `replies`, by "METHOD /path", shortened; `fields`, by "MODEL.FIELD"."""
    text = Path(__file__).with_name("examples.json").read_text(encoding="utf-8")
    return json.loads(text)


def add_examples(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document, with an example of every parameter, reply in JSON and field that has one."""
    fields = read_examples()["fields"]
    of_name = defaultdict(list, {name: [value] for name, value in FIELDS.items()})
    for key, value in fields.items():
        of_name[key.rpartition(".")[2]].append(value)
    for model, schema in document["components"]["schemas"].items():
        for name, field in schema.get("properties", {}).items():
            candidates = [fields.get(f"{model}.{name}"), first_choice(field), *of_name[name]]
            example = next((c for c in candidates if c is not None and fits(c, field)), None)
            if example is not None and not of_model(field):
                field.setdefault("examples", [example])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                example = parameter_example(parameter)
                if example is not None:
                    parameter.setdefault("example", example)
            short_path = path.removeprefix("/api/v1")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None and short_path in BODIES:
                body.setdefault("example", BODIES[short_path])
            reply = operation["responses"].get("200", {}).get("content", {}).get("application/json")
            example = read_examples()["replies"].get(f"{method.upper()} {path}")
            if reply is not None and example is not None:
                reply.setdefault("example", example)
    return document


def of_model(field: dict[str, Any]) -> bool:
    """Whether its values are other models, whose own fields have the examples."""
    return "$ref" in json.dumps(field)


def fits(example: Any, field: dict[str, Any]) -> bool:
    """Whether the example is of a type that the field names."""
    types = {option["type"] for option in (field, *field.get("anyOf", [])) if "type" in option} - {"null"}
    return not types or any(isinstance(example, TYPES[name]) for name in types)


def parameter_example(parameter: dict[str, Any]) -> Any:
    """Its default, its first choice, or what is written here for its name; a list of one where it takes a list."""
    example = first_choice(parameter["schema"])
    if example is not None:
        return example
    example = PARAMETERS.get(parameter["name"])
    return [example] if parameter["schema"].get("type") == "array" and example is not None else example


def first_choice(schema: dict[str, Any]) -> Any:
    """The default of a schema, or the first value that it allows; None where it names none."""
    if schema.get("default") is not None:
        return schema["default"]
    for option in (schema, *schema.get("anyOf", [])):
        if "const" in option or "enum" in option:
            return option.get("const", option.get("enum", [None])[0])
    return None
