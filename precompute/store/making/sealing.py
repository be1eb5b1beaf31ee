"""The end of a store: checksums of all its files, by which `saevx verify` finds every changed bit."""

import hashlib
import json
import shutil
from pathlib import Path

from precompute.store import schema as s
from precompute.store.opening import IMAGES, damaged_error, read_manifest
from precompute.utils.files import TEMPORARY, file_sha256, write_json, write_text
from precompute.utils.types import Item

_UNHASHED = ("manifest.json", "run.json", "plan.json")
_UNSTABLE = ("schema", "created", "files", "sizes", "content_id", "name")


def seal(part: Path, manifest: Item) -> Item:
    """Makes STORE.part a finished store once store.sqlite and the arrays are written; the caller checks and renames it.

    Deletes `collect/` and `steps/` and writes manifest.json with `schema`, `files`, `sizes` and `content_id`. It may be
    stopped and repeated.

    Returns:
        the finished manifest.
    """
    for scratch in ("collect", "steps"):
        shutil.rmtree(part / scratch, ignore_errors=True)
    for path in part.glob(f"*{TEMPORARY}"):  # of a run that was killed
        path.unlink()
    files, manifest = checksums(part), {**manifest, "sealed": True}
    sealed_manifest = {
        "schema": s.SCHEMA_VERSION,
        **manifest,
        "files": files,
        "sizes": [(part / name).stat().st_size for name in files],
        "content_id": content_id(manifest, files),
    }
    write_json(part / "manifest.json", sealed_manifest)
    return sealed_manifest


def seal_run(store: Path) -> None:
    """Lets run.json vouch for itself and for the manifest, whose name and version are in no other checksum."""
    run = store / "run.json"
    facts = json.loads(run.read_text("utf-8")) if run.exists() else {}
    facts.pop("sha256", None)  # of a run that was killed after it
    facts["manifest_sha256"] = _sha256((store / "manifest.json").read_bytes())
    write_text(run, _run_text({**facts, "sha256": _sha256(_run_text(facts).encode())}))


def changed_since_sealed(store: Path, manifest: Item) -> str | None:
    """The one of manifest.json and run.json that was changed; None in a store made before they were sealed, and in one
    without a run.json, which only says how the store was made."""
    path = store / "run.json"
    if not manifest.get("sealed") or not path.exists():
        return None
    try:
        text = path.read_text("utf-8")
        facts = json.loads(text)
        sha256 = facts.pop("sha256")
        is_whole = text == _run_text({**facts, "sha256": sha256}) and sha256 == _sha256(_run_text(facts).encode())
    except (OSError, ValueError, KeyError, AttributeError, RecursionError, TypeError):
        return "run.json"
    if not is_whole:
        return "run.json"
    return None if facts.get("manifest_sha256") == _sha256((store / "manifest.json").read_bytes()) else "manifest.json"


def damage_sentence(store: Path) -> str | None:
    """The sentence for a store with a file, images left out, that is not the one that was sealed; None where all are.

    Raises:
        SaevxError: it is no store.
    """
    for name, sha256 in sorted(read_manifest(store)["files"].items()):
        if not name.startswith(IMAGES):
            try:
                is_whole = file_sha256(store / name) == sha256
            except OSError:
                is_whole = False
            if not is_whole:
                return str(damaged_error(store, f"{name} is not the file that was stored"))
    return None


def _run_text(facts: Item) -> str:
    return json.dumps(facts, indent=1) + "\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by path, but of the manifest and of files about the run."""
    sha256_of = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _UNHASHED:
            sha256_of[name] = file_sha256(path)
    return sha256_of


def content_id(manifest: Item, files: dict[str, str]) -> str:
    """Hash of all files and of the manifest without name and times: annotations and caches are keyed by it."""
    stable = {k: v for k, v in manifest.items() if k not in _UNSTABLE}
    text = json.dumps([stable, files], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
