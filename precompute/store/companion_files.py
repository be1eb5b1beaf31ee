"""`STORE.NAME.json`: what commands measured on a finished store and wrote next to it, because a store never changes.

Each file names the store's content id, so that the figures of another store that had the same name are not shown.
"""

import json
import os
from pathlib import Path
from typing import Any

CONTROLS = "controls"
"""By `saevx controls`: how often features pass the test behind `cross-modal` where there is nothing to find."""
HALLUCINATION = "hallucination"
"""By `saevx experiment hallucination --attach`: features that tell right answers from hallucinated ones."""
COMPANIONS = (CONTROLS, HALLUCINATION)
MAX_BYTES = 8_000_000
"""A larger file was not written by these commands."""


def companion_path(store: Path, name: str) -> Path:
    """Where the figures of this name of a store lie."""
    folder = Path(os.path.abspath(store))  # noqa: PTH100 - without `..`, and of a link its own name
    return folder.with_name(f"{folder.name}.{name}.json")


def read_companion(store: Path, name: str, content_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """The file's content, or None; and why a file that is there is not shown, in a sentence."""
    path = companion_path(store, name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["content_id"] == content_id:
            return content, None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, f"{path.name} cannot be read, so it is not shown."
    return None, f"{path.name} belongs to another store, so it is not shown."
