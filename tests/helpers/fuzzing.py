"""Schemathesis over a running server: requests made from its OpenAPI, each reply checked against it."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import machine

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "allow_header_conformance",
)  # fmt: skip
"""What must hold of each reply: no 5xx, a status, media type, headers and body as described, and 405 for the rest."""
N_IDS = 5
LONGEST = 2000
"""Signs of a text."""
LONGEST_ADDRESS = 65_000
"""Bytes. Beyond, the HTTP parser answers by itself, with 400 in plain text (docs/api.md): such replies are left out."""


class Fuzzed(NamedTuple):
    """What came of it."""

    requests: int
    """That were answered."""
    wrong: int
    """Of these, replies that break a check."""
    failures: list[str]
    """One line for each operation and check."""


def fuzz(url: str, folder: Path, *, examples: int, phases: str, seed: int = 0) -> Fuzzed:
    """Requests of every operation of the API at `url`, from its OpenAPI with names that the server has.

    Args:
        folder: for the schema and the report.
        examples: requests of the phase `fuzzing`, for each operation, with valid and with invalid data.
        phases: `fuzzing` (random), `coverage` (the borders of every parameter), with commas.
    """
    schema, events = folder / "openapi.json", folder / "events.ndjson"
    schema.write_text(json.dumps(with_names(read(f"{url}/openapi.json"), url)))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(schema), "--url", url, "--seed", str(seed),
        "--max-examples", str(examples), "--phases", phases, "--checks", ",".join(CHECKS), "--continue-on-failure",
        "--no-shrink", "--suppress-health-check", "all", "--generation-database", "none", "--workers", "2",
        "--warnings", "off", "--request-timeout", "120", "--report", "ndjson", "--report-ndjson-path", str(events),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=machine.environment(NO_COLOR="1"))
    if result.returncode not in (0, 1) or not events.exists():
        raise RuntimeError(f"{result.stdout[-1500:]}\n{result.stderr[-1500:]}")
    return summed(events)


def summed(events: Path) -> Fuzzed:
    """From the events that Schemathesis reports."""
    requests = wrong = 0
    failures: dict[tuple[str, str], str] = {}
    with events.open(encoding="utf-8") as lines:
        for event in map(json.loads, lines):
            if error := event.get("NonFatalError"):
                raise RuntimeError(json.dumps(error)[:1500])
            recorder = event.get("ScenarioFinished", {}).get("recorder", {})
            for case, interaction in recorder.get("interactions", {}).items():
                if not interaction.get("response") or len(interaction["request"]["uri"]) > LONGEST_ADDRESS:
                    continue
                faults = [check for check in recorder.get("checks", {}).get(case, []) if check["status"] != "success"]
                requests, wrong = requests + 1, wrong + bool(faults)
                for check in faults:
                    failure, request = check.get("failure_info", {}).get("failure", check), interaction["request"]
                    problem = f"{recorder['label']}: {check['name']}: {failure.get('title')}: {failure.get('message')}"
                    request_line = f"{request.get('method')} {request.get('uri')} {request.get('body')}"
                    failures.setdefault((recorder["label"], check["name"]), f"{problem[:600]} [{request_line[:600]}]")
    return Fuzzed(requests, wrong, list(failures.values()))


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.load(reply)


def with_names(schema: dict[str, Any], url: str) -> dict[str, Any]:
    """The OpenAPI, in which most features, samples, stores and images are such as the server has: else nearly every
    request would end with 404."""
    api = f"{url}/api/v1"
    stores = [s["name"] for s in read(f"{api}/stores")["items"]]
    samples = [item["sample_id"] for item in read(f"{api}/samples?limit={N_IDS}")["items"]]
    n_beyond = read(f"{api}/store")["n_features"] + 2
    names: dict[str, list[Any]] = {
        "store": [*stores, None], "with": stores, "sample_id": samples, "id": samples, "sample": samples,
        "key": [*samples, "3"],
    }  # fmt: skip
    replies = set(refs(schema, [item["responses"] for item in operations(schema)]))
    bodies = set(refs(schema, [item.get("requestBody") for item in operations(schema)])) - replies
    parts = [[item.get("parameters"), item.get("requestBody")] for item in operations(schema)]
    for item, name in described([*parts, *(schema["components"]["schemas"][name] for name in bodies)]):
        if item.get("maximum") == 2**31 - 1:
            item["maximum"] = n_beyond
        if item.get("type") == "string" and item.get("maxLength", LONGEST) >= LONGEST:
            item["maxLength"] = LONGEST
        if name in names and item.get("type") == "string":
            item.clear()
            item["enum"] = [value for value in names[name] if value is not None]
    return schema


def operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in schema["paths"].values() for operation in methods.values()]


def refs(schema: dict[str, Any], part: Any, names: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of the components that a part of the OpenAPI leads to."""
    if isinstance(part, list):
        for item in part:
            yield from refs(schema, item, names)
    elif isinstance(part, dict):
        name = part["$ref"].rpartition("/")[2] if "$ref" in part else None
        if name is not None and name not in names:
            yield name
            yield from refs(schema, schema["components"]["schemas"][name], names | {name})
        for item in part.values():
            yield from refs(schema, item, names)


def described(part: Any, name: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Every schema in a part of the OpenAPI, with the name of the parameter or field that it describes."""
    if isinstance(part, list):
        for item in part:
            yield from described(item, name)
    elif isinstance(part, dict):
        own_name = part["name"] if "in" in part and "schema" in part else name
        fields = part.get("properties", {})
        for field, item in fields.items():
            yield from described(item, field)
        for key, item in part.items():
            if key != "properties":
                yield from described(item, own_name)
        if isinstance(part.get("type"), str):
            yield part, own_name
