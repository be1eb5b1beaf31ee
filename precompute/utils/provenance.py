"""Where a result comes from: what names its sources and tells whether they have changed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def plain_name(source: str) -> str:
    """A folder's own name; a hub id as it is."""
    return Path(source).resolve().name if Path(source).exists() else source


def weights(source: str) -> list[Path]:
    folder = Path(source)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def code_version() -> str:
    try:
        return version("saevx")
    except PackageNotFoundError:
        return "0"
