"""`run.json` of a store: when, where and of what it was made. No value depends on it: it may be missing or damaged."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_run(store: Path) -> dict[str, Any]:
    """What it says; nothing where it is missing, cut off or no JSON object."""
    try:
        told = json.loads((store / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def run_path(store: Path, name: str) -> str | None:
    """A path or name that it gives, such as those of `data` and `image_folder`."""
    told = read_run(store).get(name)
    return told if isinstance(told, str) and told else None


def created(manifest: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
    """When the store was made, in ISO 8601; None where neither says so readably."""
    told = manifest.get("created") or run.get("created")
    try:
        dt.datetime.fromisoformat(told)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return str(told)


def located(store: Path, manifest: Mapping[str, Any], kind: str) -> str:
    """Where a store's model or SAE lies: the path in run.json if it still exists, the folder beside the
    store (so that a demo can be moved), else the manifest's name, which may be a hub's.

    Args:
        kind: `model` or `sae`.
    """
    told = run_path(store, kind)
    if told and Path(told).exists():
        return told
    beside = store.resolve().parent / kind
    return str(beside) if beside.is_dir() else str(manifest[kind]["name"])
