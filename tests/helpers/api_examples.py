"""Records an example of every reply and field of the API from the demo, for the OpenAPI document and the page /docs.

    python -m tests.helpers.api_examples --store demo/store

Writes backend/openapi/examples.json. It serves two copies of the store with the live model, sends each request of the
page /docs and some more, and shortens what comes back.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from backend.openapi.examples import BODIES, PARAMETERS, of_model
from precompute.utils.files import atomic_write
from tests.helpers.servers import Server

OUT = Path(__file__).parents[2] / "backend" / "openapi" / "examples.json"
PREFIX = "/api/v1"
NAMES = {"name": "dogs", "flag": "unsupported"}
"""Of what is written."""
ITEMS, NUMBERS, CHARACTERS = 2, 4, 160
"""How many items of a list, numbers of a list of numbers and characters of a text an example keeps. Lists inside of
lists keep one item."""


def shorten(value: Any, items: int = ITEMS) -> Any:
    """The value with short lists and texts, and numbers of five digits."""
    if isinstance(value, dict):
        return {key: shorten(item, items) for key, item in value.items()}
    if isinstance(value, list):
        numbers = all(isinstance(item, int | float) for item in value)
        return [shorten(item, 1) for item in value[: NUMBERS if numbers else items]]
    if isinstance(value, str) and len(value) > CHARACTERS:
        return value[:CHARACTERS] + "…"
    return float(f"{value:.5g}") if isinstance(value, float) else value


class FieldExamples:
    """An example of each field, by "MODEL.FIELD", from values of the models."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.models: dict[str, Any] = document["components"]["schemas"]
        self.examples: dict[str, Any] = {}

    def see(self, schema: dict[str, Any], value: Any) -> None:
        """Take what is new from a value of this schema."""
        for model in self.models_of(schema, value):
            properties = self.models[model].get("properties", {})
            for name, part in properties.items():
                if isinstance(value, dict) and value.get(name) is not None:
                    if not of_model(part):
                        self.take(f"{model}.{name}", value[name])
                    self.see(part, value[name])
        for option in (schema, *schema.get("anyOf", []), *schema.get("oneOf", [])):
            if isinstance(value, list) and "items" in option:
                for item in value:
                    self.see(option["items"], item)
            if isinstance(value, dict) and isinstance(option.get("additionalProperties"), dict):
                for item in value.values():
                    self.see(option["additionalProperties"], item)

    def take(self, name: str, value: Any) -> None:
        """The first value that says something: an empty list is replaced."""
        if self.examples.get(name) in (None, [], {}, ""):
            self.examples[name] = shorten(value)

    def models_of(self, schema: dict[str, Any], value: Any) -> Iterator[str]:
        """The models that the schema names and the value has the fields of."""
        for option in (schema, *schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])):
            model = str(option.get("$ref", "")).rsplit("/", 1)[-1]
            required_names = set(self.models.get(model, {}).get("required", []))
            if model in self.models and isinstance(value, dict) and value.keys() >= required_names:
                yield model


class Recorder:
    """Sends requests to a server, and keeps what an example needs of the replies."""

    def __init__(self, client: httpx.Client, document: dict[str, Any]) -> None:
        self.client, self.paths = client, document["paths"]
        self.fields = FieldExamples(document)
        self.replies: dict[str, Any] = {}

    def send(self, method: str, path: str, values: dict[str, Any], *, status: int = 200, **request: Any) -> Any:
        """The reply of an endpoint, whose parameters are `values`; it must have this status."""
        operation = self.paths[path][method.lower()]
        address, query = path, {}
        for name, value in values.items():
            if "{" + name + "}" in path:
                address = address.replace("{" + name + "}", str(value))
            else:
                query[name] = value
        reply = self.client.request(method, address, params=query, **request)
        if reply.status_code != status:
            raise SystemExit(f"{method} {reply.url}: {reply.status_code} {reply.text[:300]}")
        if status >= 400:
            model = "ConflictProblem" if "current" in reply.json() else "Problem"
            self.fields.see({"$ref": f"#/components/schemas/{model}"}, reply.json())
            return reply.json()
        if not reply.headers["content-type"].startswith("application/json"):
            return reply.content
        body = reply.json()
        self.replies.setdefault(f"{method} {path}", shorten(body))
        content = operation["responses"]["200"]["content"].get("application/json", {})
        self.fields.see(content.get("schema", {}), body)
        if "json" in request:
            request_schema = operation["requestBody"]["content"]["application/json"]["schema"]
            self.fields.see(request_schema, request["json"])
        return body


def record(client: httpx.Client, other_store: str) -> Recorder:
    """Every request of the API.

    Args:
        client: of a server with the live model.
        other_store: name of its second store.
    """
    recorder = Recorder(client, client.get("/openapi.json").json())

    def get(path: str, **values: Any) -> Any:
        return recorder.send("GET", PREFIX + path, values)

    features = get("/features", q="dog", sort="match", limit=4)["items"]
    a, b = features[0]["id"], features[1]["id"]
    flagged_id = get("/samples", flag="unsupported")["items"][0]["sample_id"]
    sample = get("/samples", feature=a)["items"][0]["sample_id"]
    picture = recorder.send("GET", f"{PREFIX}/sample/image", {"id": sample})
    image_hash = recorder.send("POST", f"{PREFIX}/images", {}, files={"image": ("photo.webp", picture)})["hash"]
    write(recorder, a, b, sample)
    pair = {"image": image_hash, "text": "a red dog"}
    values_of = {
        f"{PREFIX}/features/{{feature}}/examples": {"feature": a, "band": -1},
        f"{PREFIX}/families/{{family}}": {"family": get("/families")["items"][0]["id"]},
        f"{PREFIX}/compare": {"a": a, "b": b},
        **{f"{PREFIX}/compare/stores{part}": {"with": other_store} for part in ("", "/only", "/points")},
        f"{PREFIX}/try/matrix": {"own": f"{image_hash}:a red dog", "feature": [a, b]},
        f"{PREFIX}/search/live": {"sample": sample},
        f"{PREFIX}/samples/{{sample_id}}/features": {"sample_id": sample, "patch": "0,3,3"},
        f"{PREFIX}/sample/features": {"id": sample, "position": 3},
        f"{PREFIX}/try/features": {**pair, "position": 1},
        f"{PREFIX}/cooccurrence/graph": {"feature": a},
    }
    for path, methods in recorder.paths.items():
        operation = methods.get("get")
        if operation is None or "application/json" not in operation["responses"]["200"].get("content", {}):
            continue
        values: dict[str, Any] = {"feature": a, "family": a, "sample_id": sample, "id": sample, "a": a, "b": b,
                                  "hash": image_hash, **(pair if path.startswith(f"{PREFIX}/try") else {})}  # fmt: skip
        needs = [parameter["name"] for parameter in operation.get("parameters", []) if parameter.get("required")]
        own_needed = [name for name in pair if path.startswith(f"{PREFIX}/try") and name not in needs]
        arguments = {name: values.get(name, PARAMETERS.get(name)) for name in (*needs, *own_needed)}
        recorder.send("GET", path, values_of.get(path, arguments))
    for name in {f["id"]: f for f in features}:
        get("/features/{feature}", feature=name)
    get("/samples/{sample_id}", sample_id=flagged_id)
    get("/samples/{sample_id}", sample_id=sample)
    for band in ("counter", 1):
        get("/features/{feature}/examples", feature=a, band=band)
    ask(recorder, a, sample, picture)
    recorder.send("GET", f"{PREFIX}/features", {"min_lift": "high"}, status=422)
    remove(recorder, {"feature": a, "id": sample, "hash": image_hash, **NAMES})
    return recorder


def write(recorder: Recorder, a: int, b: int, sample: str) -> None:
    """Notes, a list, a filter and marks."""
    for path, body in BODIES.items():
        if path.startswith("/annotations"):
            edit = {**body, **({"features": [a, b], "samples": [sample]} if "lists" in path else {})}
            values = required(recorder.paths[PREFIX + path]["put"], {"feature": a, "id": sample, **NAMES})
            headers = {"If-Match": '"0"'}
            recorder.send("PUT", PREFIX + path, values, json=edit, headers=headers)
            if path.startswith("/annotations/features"):
                stale_edit = {**edit, "label": "puppies"}
                recorder.send("PUT", PREFIX + path, values, json=stale_edit, headers=headers, status=409)
    exported_file = recorder.send("GET", f"{PREFIX}/annotations/export", {})
    recorder.send("PUT", f"{PREFIX}/annotations/import", {}, json=exported_file)


def remove(recorder: Recorder, values: dict[str, Any]) -> None:
    """Everything that was written, and the upload."""
    for path, methods in recorder.paths.items():
        if "delete" in methods:
            arguments = required(methods["delete"], values)
            version = {} if "hash" in arguments else {"If-Match": '"1"'}
            recorder.send("DELETE", path, arguments, headers=version)


def required(operation: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values of the parameters that the operation needs."""
    return {p["name"]: values[p["name"]] for p in operation.get("parameters", []) if p.get("required")}


def ask(recorder: Recorder, feature: int, sample: str, picture: bytes) -> None:
    """What takes the model: search, scores, steering, explanations."""
    image = {"image": ("photo.webp", picture)}
    recorder.send("POST", f"{PREFIX}/search", {}, files=image, data={"text": "a red dog"})
    recorder.send("POST", f"{PREFIX}/score", {}, files=image, data={"text": "a red dog"})
    steer = {"sample_id": sample, "prompt": "What is in the image?", "max_tokens": 8, "target": "dog"}
    edits = [{"features": [{"id": feature, "strength": strength}]} for strength in (1, 2)]
    recorder.send("POST", f"{PREFIX}/steer", {}, json={**steer, "candidates": edits})
    question = {"sample_id": sample, "prompt": "What is in the image?", "max_tokens": 8, "token": 0}
    recorder.send("POST", f"{PREFIX}/explain", {}, json=question)
    recorder.send("POST", f"{PREFIX}/explain/test", {}, json={**question, "ablate": [feature], "patches": [[0, 3, 3]]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("demo/store"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder) / name for name in ("demo", "other")]
        for store in stores:
            shutil.copytree(args.store, store)
            for companion in args.store.parent.glob(f"{args.store.name}.*.json"):
                shutil.copy(companion, store.with_name(companion.name.replace(args.store.name, store.name, 1)))
        model = args.store.parent / "model"
        with Server(*stores, "--model", model, log=Path(folder) / "log.txt") as server:
            server.wait("/readyz", 180)
            with httpx.Client(base_url=server.url, timeout=300) as client:
                recorder = record(client, client.get(f"{PREFIX}/stores").json()["items"][1]["name"])
    text = json.dumps(
        {"replies": recorder.replies, "fields": recorder.fields.examples}, indent=1, sort_keys=True, ensure_ascii=False
    )
    with atomic_write(OUT, "w") as file:
        file.write(text.replace(folder, "/data") + "\n")


if __name__ == "__main__":
    main()
