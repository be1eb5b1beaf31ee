"""Where a result comes from: what names its sources and tells whether they have changed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from precompute.data import Source


def plain_name(source: str) -> str:
    """A folder's own name; a hub id as it is."""
    return Path(source).resolve().name if Path(source).exists() else source


def weights(source: str) -> list[Path]:
    folder = Path(source)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def stamps(images: Iterable[Source]) -> list[list[str | int]]:
    """Tell whether files, or images inside files, have changed, without reading them."""
    found: list[list[str | int]] = []
    for image in images:
        if isinstance(image, Path):
            stat = image.stat()
            found.append([image.name, stat.st_size, stat.st_mtime_ns])
        else:
            found.append(image.stamp())
    return found


def code_version() -> str:
    try:
        return version("saevx")
    except PackageNotFoundError:
        return "0"
