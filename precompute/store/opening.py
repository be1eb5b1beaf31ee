"""Looks at a store before it is opened: is it whole, is it of this version, and is it still the same one later?

Of all files only `manifest.json` and `run.json` are read here; `saevx verify` reads the others.
"""

import datetime as dt
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.utils.ownership import DATABASE as DATABASE
from precompute.utils.ownership import MANIFEST as MANIFEST
from precompute.utils.types import Item

IMAGES = "images/"
CHECKED_IMAGES = 2000
"""Images whose files are looked at, evenly spread over the store: a million of them would take seconds to minutes."""
MAX_SCALE_LOG2 = 200
"""A power of two that brings any float32 into the range of float16."""
SHAPE: Item = {
    "name": str,
    "content_id": str,
    "code_version": str,
    "scale_log2": int,
    "files": dict,
    "delta": dict,
    "quality": dict,
    "options": dict,
    "model": {"name": str, "layer": int, "d_model": int},
    "sae": {"name": str, "sha256": str, "architecture": str, "n_features": int},
    "data": {"name": str, "n_samples": int, "n_quarantined": int},
    "tokens": dict.fromkeys(s.TOKEN_KINDS, int),
    "cooccurrence": {"n_samples": int},
}
"""What every reader relies on in a manifest."""


COPY_OR_MAKE = "copy it again from where it is whole, or run `saevx precompute` again."
"""What helps a damaged store."""


class StoreUnreadable(SaevxError):  # noqa: N818 - named for what it is about
    """A file of a store cannot be read: it is damaged, or was moved, deleted or replaced since the store was opened."""


def damaged_error(store: Path, fault: str) -> StoreUnreadable:
    """`fault` is a clause such as "store.sqlite is missing"."""
    return StoreUnreadable(f"The store {store} is damaged ({fault}): {COPY_OR_MAKE}")


class Stamp(NamedTuple):
    """By what a file is known again without reading it."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def from_file(cls, path: Path | str) -> Self | None:
        """None where there is no such file, or it cannot be looked at."""
        try:
            status = os.stat(path)  # noqa: PTH116 - each request asks, and making a Path takes longer than looking
        except (OSError, ValueError):
            return None
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def read_manifest(store: Path) -> Item:
    """The manifest of a finished store, whole.

    Raises:
        SaevxError: not a store, unfinished, damaged, or made by another version.
    """
    try:
        has_files = (store / MANIFEST).is_file() and (store / DATABASE).is_file()
        content = (store / MANIFEST).read_text("utf-8") if has_files else ""
    except UnicodeDecodeError as error:
        raise damaged_error(store, f"{MANIFEST} is not text") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SaevxError(f"The store {store} cannot be read ({reason}): check its path and your rights.") from error
    part = store.name.endswith(".part")
    advice = "it is unfinished, so run `saevx precompute` again" if part else "give the folder of a finished one"
    if not has_files:
        raise SaevxError(f"{store} is not a store (no {MANIFEST} and {DATABASE}): {advice}.")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged_error(store, f"{MANIFEST} is {'cut off or not JSON' if content.strip() else 'empty'}") from error
    if not isinstance(manifest, dict):
        raise damaged_error(store, f"{MANIFEST} is no JSON object")
    if part and "content_id" not in manifest:
        raise SaevxError(f"{store} is not a store: {advice}.")
    _check_version(store, manifest.get("schema"))
    wrong = _wrong_key(manifest, SHAPE) or (None if abs(manifest["scale_log2"]) <= MAX_SCALE_LOG2 else "scale_log2")
    if wrong is not None:
        raise damaged_error(store, f"{MANIFEST} has no usable {wrong!r}")
    return manifest


def _check_version(store: Path, version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise damaged_error(store, f"{MANIFEST} does not say its schema")
    if version == s.SCHEMA_VERSION:
        return
    newer = version > s.SCHEMA_VERSION
    way = "install a newer saevx" if newer else "run `saevx precompute` again"
    raise SaevxError(
        f"The store {store} was made by {'a newer' if newer else 'an older'} version of saevx (it has store schema "
        f"{version}, this version reads {s.SCHEMA_VERSION}): {way}."
    )


def _wrong_key(values: Mapping[str, Any], shape: Item) -> str | None:
    """The first name whose value is missing or of another kind."""
    for name, kind in shape.items():
        value = values.get(name)
        if not isinstance(value, dict if isinstance(kind, dict) else kind) or isinstance(value, bool):
            return name
        if isinstance(kind, dict) and (inner_path := _wrong_key(value, kind)):
            return f"{name}.{inner_path}"
    return None


def check_files(store: Path, manifest: Item) -> dict[str, Stamp]:
    """Every file of the manifest is there, with its size where the manifest tells it; of more than `CHECKED_IMAGES`
    images only so many.

    Returns:
        the stamp of each file but the images.

    Raises:
        StoreUnreadable: naming the first file that is missing or of another size.
    """
    names: Sequence[str] = list(manifest["files"])
    sizes: Sequence[int | None] = manifest.get("sizes") or [None] * len(names)
    if not isinstance(sizes, list) or len(sizes) != len(names):
        raise damaged_error(store, f"{MANIFEST} does not tell the size of each of its files")
    images = [i for i, name in enumerate(names) if name.startswith(IMAGES)]
    other_indices = [i for i, name in enumerate(names) if not name.startswith(IMAGES)]
    step = -(-len(images) // CHECKED_IMAGES) or 1
    stamps: dict[str, Stamp] = {}
    wrong: list[str] = []
    for i in [*other_indices, *images[::step], *images[-1:]]:
        stamp = Stamp.from_file(store / names[i])
        if stamp is None:
            wrong.append(f"{names[i]} is missing")
        elif sizes[i] is not None and stamp.size != sizes[i]:
            wrong.append(f"{names[i]} has {stamp.size:,} bytes, not {sizes[i]:,}")
        elif not names[i].startswith(IMAGES):
            stamps[names[i]] = stamp
    if DATABASE not in manifest["files"]:
        raise damaged_error(store, f"{MANIFEST} does not list {DATABASE}")
    if wrong:
        more_files = f", and {len(wrong) - 1} more files are missing or have another size" if len(wrong) > 1 else ""
        raise damaged_error(store, wrong[0] + more_files)
    return stamps


def without_images(manifest: Item) -> Item:
    """The manifest for keeping in memory and showing: for its many images, how many there are and their bytes.

    `files` and `sizes` lose the images, and `images` is {n, bytes}; `bytes` is null where the manifest has no sizes."""
    names = list(manifest["files"])
    sizes = manifest.get("sizes")
    is_other = [not name.startswith(IMAGES) for name in names]
    bare_manifest = {
        **manifest,
        "files": {name: sha256 for name, sha256 in manifest["files"].items() if not name.startswith(IMAGES)},
        "images": {"n": len(names) - sum(is_other), "bytes": None},
    }
    if sizes is not None:
        bare_manifest["sizes"] = [size for size, stays in zip(sizes, is_other, strict=True) if stays]
        bare_manifest["images"]["bytes"] = sum(sizes) - sum(bare_manifest["sizes"])
    return bare_manifest


def read_run(store: Path) -> dict[str, Any]:
    """The content of `run.json`: when, where and of what a store was made. No value depends on it; it may be missing.

    Empty where the file is missing, cut off or no JSON object.
    """
    try:
        run = json.loads((store / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return run if isinstance(run, dict) else {}


def run_path(store: Path, name: str) -> str | None:
    """A path or name that `run.json` gives, such as `data` and `image_folder`; None where it gives none."""
    value = read_run(store).get(name)
    return value if isinstance(value, str) and value else None


def creation_time(manifest: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
    """When the store was made, in ISO 8601; None where neither says so readably."""
    time = manifest.get("created") or run.get("created")
    try:
        dt.datetime.fromisoformat(time)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return str(time)


def source_of(store: Path, manifest: Mapping[str, Any], kind: str) -> str:
    """From where to load a store's model or SAE: the path in run.json if it still exists, else the
    folder next to the store (so that a demo can be moved), else the manifest's name, which may be that of a hub.

    Args:
        kind: `model` or `sae`.
    """
    path = run_path(store, kind)
    if path and Path(path).exists():
        return path
    sibling = store.resolve().parent / kind
    return str(sibling) if sibling.is_dir() else str(manifest[kind]["name"])
