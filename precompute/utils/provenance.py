"""Where a result comes from: what names its sources and tells whether they have changed."""

import hashlib
import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def fingerprint(**parts: Any) -> str:
    """SHA-256 of all that a run depends on. An unfinished run is only continued by one with the same fingerprint.

    Args:
        parts: values that JSON can hold, or iterators of such, which count as lists and are never held whole.
    """
    digest = hashlib.sha256()
    for i, (name, value) in enumerate(sorted(parts.items())):
        digest.update(f"{', ' if i else '{'}{_json(name)}: ".encode())
        if isinstance(value, Iterator):
            digest.update(b"[")
            for j, item in enumerate(value):
                digest.update(f"{', ' if j else ''}{_json(item)}".encode())
            digest.update(b"]")
        else:
            digest.update(_json(value).encode())
    digest.update(b"}")
    return digest.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def plain_name(source: str) -> str:
    """A folder's own name; a hub id as it is."""
    return Path(source).resolve().name if Path(source).exists() else source


def weights(source: str) -> list[Path]:
    """The files of a model's folder; none of a hub id."""
    folder = Path(source)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def machine() -> str:
    """The processor and the number of threads that computed a result, such as `x86_64, 2 threads`."""
    import torch

    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def code_version() -> str:
    try:
        return version("saevx")
    except PackageNotFoundError:
        return "0"
