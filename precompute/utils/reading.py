"""Files that others wrote: whatever a library raises over them becomes one sentence with the true cause."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from precompute.errors import SaevxError
from precompute.utils.failures import sentence
from precompute.utils.files import is_special

POINTER = b"version https://git-lfs"
"""How the file begins that git leaves in the place of a large one where git-lfs is missing."""
POINTER_ADVICE = "is a git-lfs pointer and not the file itself: run `git lfs pull` in its folder, or download it again"
OWN_CODE = "it brings Python code of its own, which is never run here: choose a model that transformers itself knows"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_MODEL_FILES = frozenset((".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".jinja"))
_MIN_CHARACTERS, _MAX_CHARACTERS = 40, 240


def is_pointer(path: Path) -> bool:
    """Whether a file is a git-lfs pointer."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def refuse_pointers(paths: Iterable[Path]) -> None:
    """Raises SaevxError where one of the files is a git-lfs pointer."""
    for path in paths:
        if path.is_file() and is_pointer(path):
            raise SaevxError(f"{path} {POINTER_ADVICE}.")


def refuse_endless(place: Path) -> None:
    """Raises SaevxError where a file, or one in a folder, is a pipe, a socket or a device: reading it may never end."""
    for path in (place, *(sorted(place.iterdir()) if place.is_dir() else ())):
        if is_special(path):
            raise SaevxError(f"{path} is a pipe or a device, where a file is expected: put a file there.")


def read_regular(path: Path) -> bytes:
    """What a file holds. Raises SaevxError where it cannot be read, or may never end."""
    refuse_endless(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SaevxError(sentence(error, path) or f"{path} cannot be read ({error}): name another file.") from error


def read_result(path: Path) -> Any:
    """What a JSON file holds that a command wrote. Raises SaevxError."""
    try:
        return json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise SaevxError(f"{path} cannot be read as JSON: name a file that a command wrote.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        SaevxError: it is a pointer, cannot be read, or holds something else.
    """
    refuse_pointers([path])
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except (OSError, ValueError, RecursionError) as error:
        raise SaevxError(f"{path} cannot be loaded: it is no JSON ({cause(error)}); download it again.") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise SaevxError(f"{path} cannot be loaded: it holds a JSON {kind} and no object, so it is no configuration.")
    return content


def read_tensors(path: Path) -> dict[str, Any]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        SaevxError: it is a pointer, cut, or something else.
    """
    from safetensors.torch import load_file

    refuse_pointers([path])
    try:
        return dict(load_file(path))
    except Exception as error:  # safetensors has an exception of its own, which is not an OSError
        raise SaevxError(f"{path} cannot be loaded: it {_damage_of(error)}.") from error


@contextmanager
def reading(subject: str, folder: str | Path, advice: str = "") -> Iterator[None]:
    """Turns every exception of the block, whichever library raises it, into one SaevxError.

    Args:
        subject: what is read, as the sentence begins, such as `The model llava`.
        folder: where its files lie, looked through for the cause; a name of the hub is no folder.
        advice: what to do where no cause is known here that says so itself.

    Raises:
        SaevxError: always in place of another Exception; the block's own SaevxErrors pass. Before the block, where a
            file of the folder may never end.
    """
    refuse_endless(Path(folder))
    try:
        yield
    except SaevxError:
        raise
    except Exception as error:
        reason = _known_cause(error, Path(folder))
        if isinstance(error, ImportError):
            advice = ""  # it names the package that is missing
        reason = reason or "; ".join(part for part in (cause(error).rstrip("."), advice) if part)
        raise SaevxError(f"{subject} cannot be loaded: {reason.rstrip('.')}.") from error


def cause(error: BaseException) -> str:
    """What an exception says, on one line and short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines.pop(0)
    while lines and (text.endswith(":") or len(text) < _MIN_CHARACTERS):  # it only announces what is wrong
        text = f"{text} {lines.pop(0)}"
    if isinstance(error, KeyError):
        text = f"it lacks {text}"
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _known_cause(error: BaseException, folder: Path) -> str | None:
    """The cause where it can be told better than by the exception: code of its own, pointers, cut files, files that
    are missing."""
    if "trust_remote_code" in str(error):
        return OWN_CODE
    if "ignore_mismatched_sizes" in str(error):  # transformers' option, and its report is silenced
        return "its weights have other shapes than its config.json describes; download both again from one place"
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.suffix in _MODEL_FILES and path.is_file() and is_pointer(path):
            return f"{path.name} {POINTER_ADVICE}"
    for path in sorted(folder.glob("*.safetensors")):
        if (damage := _broken_weights(path)) is not None:
            return f"{path.name} {damage}"
    for path in sorted(folder.glob("*.jinja")):
        try:
            path.read_text(encoding="utf-8")
        except (OSError, ValueError) as wrong:
            return f"{path.name} is no text ({cause(wrong)}); download it again"
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as wrong:
            return f"{path.name} is no JSON ({cause(wrong)}); download it again"
        if not isinstance(content, dict):
            return f"{path.name} holds a JSON {type(content).__name__} and no object; download it again"
    if "tokenizer" in str(error).lower() and not any((folder / name).is_file() for name in _TOKENIZERS):
        return f"it holds no tokenizer: put {_TOKENIZERS[0]} and what belongs to it beside its weights"
    return None


def _broken_weights(path: Path) -> str | None:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt"):
            return None
    except Exception as error:
        return _damage_of(error)


def _damage_of(error: BaseException) -> str:
    return f"is cut or no safetensors file ({cause(error)}); download it again"
