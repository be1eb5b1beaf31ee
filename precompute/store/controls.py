"""`STORE.controls.json`: how often features pass the test behind `cross-modal` where there is nothing to find.

`saevx controls` writes it beside the store, because a finished store never changes. It names the store's content id, so
that the figures of another store that had the same name are not shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 1_000_000
"""A larger file was not written by the command."""


def controls_path(store: Path) -> Path:
    """Where the controls of a store lie."""
    folder = store.absolute()
    return folder.with_name(f"{folder.name}.controls.json")


def read_controls(store: Path, content_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """The file's content, or None; and why a file that is there is not shown, in a sentence."""
    path = controls_path(store)
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
