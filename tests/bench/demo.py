"""`saevx demo` from nothing to a page that can be browsed, and again when everything is there."""

import json
import time
from pathlib import Path
from typing import Any

from tests.bench.common import ENVIRONMENT, Figure, Setup, begin, free_port, until_ready


def seconds(folder: Path, cache: Path, *more: str) -> float:
    """Until the front page answers.

    Args:
        cache: where the converted language model is kept."""
    port = free_port()
    start = time.perf_counter()
    environment = {**ENVIRONMENT, "SAEVX_CACHE": str(cache)}
    server = begin("demo", "--dir", folder, "--port", port, *more, environment=environment)
    try:
        until_ready(server, f"http://127.0.0.1:{port}", "/", 900)
        return time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()


def run(setup: Setup) -> dict[str, Any]:
    folder, more = (setup.demo, ["--samples", str(n_rows(setup.demo))]) if setup.small else (setup.scratch / "demo", [])
    cache = setup.scratch / "cache"
    first = None if setup.small else seconds(folder, cache, *more)
    second = seconds(folder, cache, *more)
    figures: list[Figure] = [
        {
            "what": "`make demo`, start to a page", "value": first, "unit": "s", "goal": 180.0, "sense": "≤",
            "note": "everything installed, nothing made before; model, data, pass and server",
        },
        {
            "what": "`make demo` again", "value": second, "unit": "s", "goal": 10.0, "sense": "≤",
            "note": "everything made before",
        },
    ]  # fmt: skip
    run = json.loads((folder / "store" / "run.json").read_text())
    return {"options": {"samples": n_rows(folder)}, "figures": figures, "steps": run["seconds"]}


def n_rows(folder: Path) -> int:
    return json.loads((folder / "store" / "manifest.json").read_text())["data"]["n_rows"]
