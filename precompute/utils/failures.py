"""What a failure means, in one sentence that says what to do; and the log file with the details.

Libraries raise errors of many classes. Here they are told apart by cause: the file system, memory, or neither.
"""

import contextlib
import errno
import os
import platform
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Container, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from precompute.errors import PlaceError, SaevxError, causes

DISK_FULL = re.compile(r"no space left on device|disk is full|os error 28|not enough disk space", re.IGNORECASE)
"""How libraries say it that raise no OSError with its number: SQLite, safetensors, datasets."""
SHORT_WRITE = re.compile(
    r"\d+ requested and \d+ written|disk I/O error|unexpected pos \d+ vs \d+|PytorchStreamWriter failed", re.IGNORECASE
)
"""Likewise of those that do not say why not all was written: NumPy, SQLite, torch."""
OUT_OF_MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory|bad_alloc|unable to allocate|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
LESS_MEMORY = {
    "batch_tokens": "lower --batch-tokens",
    "batch_size": "lower --batch-size",
    "buffer_tokens": "lower --buffer-tokens",
    "dtype": "choose a smaller --dtype (bfloat16)",
    "quantize": "give --quantize 8bit",
    "device": "choose another --device",
}
"""Which of a command's options need less memory, the best first."""
RUN_AGAIN = "make room and run the same command again"
NEARLY_FULL = 1 << 26
"""Free bytes below which a disk is taken to be the one that is full."""
LIBRARIES = ("saevx", "torch", "transformers", "sae-lens", "datasets", "numpy", "faiss-cpu", "sqlalchemy", "ray")
MAX_LOGS = 50
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SECRETS = (
    (re.compile(r"(://)[^/\s@'\"]+@"), r"\1***@"),
    (re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{8,}"), r"\1***"),
    (re.compile(r"([?&][\w-]*(?:key|token|secret|password)[\w-]*=)[^&\s'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(Bearer\s+)\S+", re.IGNORECASE), r"\1***"),
)


# ---- sentences


def sentence(error: BaseException, place: Path | None = None, options: Container[str] = ()) -> str | None:
    """What happened and what to do; None where only a traceback tells.

    Args:
        place: where the command writes, for an error that names no path.
        options: of the command, such as `batch_tokens`, of which one might help.
    """
    if (text := memory_sentence(error, options)) is not None:
        return text
    if (text := disk_sentence(error, place)) is not None:
        return text
    for cause in causes(error, explicit=True):
        if isinstance(cause, OSError) and (text := _file_sentence(cause, place)) is not None:
            return text
    return None


def sentence_of_cause(error: SaevxError, options: Container[str] = ()) -> str | None:
    """Of an error that was made of a library's: the sentence for a memory that was too small, a cache or a disk that
    cannot be written, which it may have mistaken for something else; None where there was no such cause."""
    cause = error.__cause__
    if cause is None or isinstance(error, PlaceError):
        return None
    return memory_sentence(cause, options) or _cache_sentence(cause) or disk_sentence(cause)


def disk_sentence(error: BaseException, place: Path | None = None, need: int | None = None) -> str | None:
    """The sentence for a disk that is full, a quota that is used up, a file that may not grow, a disk that has become
    read-only; None for anything else.

    Args:
        need: bytes that were asked for, where that is known.
    """
    for cause in causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        at = _path_of(cause) or place
        folder = _folder(at)
        if number == errno.EDQUOT:
            return f"Your quota of disk space in {folder} is used up: {RUN_AGAIN}."
        if number == errno.EFBIG:
            subject = at or "what is to be written"
            return (
                f"A file as large as {subject} is not allowed here: raise the limit (`ulimit -f`) or choose a place on "
                "another file system, and run the same command again."
            )
        if number == errno.EROFS:
            return f"{at or folder} lies on a file system that can only be read: choose another place."
        if number == errno.ENOSPC and (need is not None or _path_of(cause) is not None):
            return _no_room(folder, need)
        if number == errno.ENOSPC or (number is None and DISK_FULL.search(str(cause))):
            return _no_room(_tightest(place) or (folder if place else None), need)
        if number is None and SHORT_WRITE.search(str(cause)):
            if (full_disk := _tightest(place)) is not None:
                return _no_room(full_disk, need)
            return (
                f"Not all could be written in {folder}: your quota of disk space, or the limit on the size of files "
                f"(`ulimit -f`), may be used up; {RUN_AGAIN}."
            )
    return None


def _no_room(folder: Path | None, need: int | None) -> str:
    if folder is None:
        return f"No space is left where the output goes: {RUN_AGAIN}."
    if need is None:
        return f"No space is left in {folder}: {RUN_AGAIN}."
    from precompute.utils.progress import human

    free_bytes = shutil.disk_usage(folder).free
    return f"No space is left in {folder}: {human(need)} are needed and {human(free_bytes)} are free; {RUN_AGAIN}."


def _tightest(place: Path | None) -> Path | None:
    """Of the folders that a command writes to, its own and those for temporary files, the first whose disk is all but
    full."""
    folders = [*([_folder(place)] if place else []), Path(_temporary()), Path("/var/tmp")]
    return next((f for f in folders if f.is_dir() and shutil.disk_usage(f).free < NEARLY_FULL), None)


def memory_sentence(error: BaseException, options: Container[str] = ()) -> str | None:
    """The sentence for a memory that is too small; None for anything else."""
    for cause in causes(error):
        message = str(cause)
        if isinstance(cause, OSError):
            too_small = cause.errno == errno.ENOMEM
        elif isinstance(cause, RuntimeError | SystemError):
            too_small = type(cause).__name__ == "OutOfMemoryError" or OUT_OF_MEMORY.search(message) is not None
        else:
            too_small = isinstance(cause, MemoryError)
        if not too_small:
            continue
        owner = "The GPU's" if re.search(r"\b(CUDA|HIP|MPS)\b|CUBLAS", message) else "This machine's"
        ways = [text for option, text in LESS_MEMORY.items() if option in options]
        way = " or ".join([", ".join(ways[:-1]), ways[-1]]) if len(ways) > 1 else "".join(ways)
        return f"{owner} memory is too small for this: {way or 'end other programs or take a machine with more'}."
    return None


def _cache_sentence(error: BaseException) -> str | None:
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "huggingface"  # noqa: PTH111
    folders = {name: os.environ.get(name) for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_HOME")}
    caches = [Path(folder) for folder in folders.values() if folder] or [home]
    for cause in causes(error, explicit=True):
        path = _path_of(cause)
        if path is None or not isinstance(cause, OSError) or cause.errno not in _UNWRITABLE:
            continue
        for cache in caches:
            if path == cache or path in cache.parents or cache in path.parents:
                return f"The cache folder {cache} cannot be written ({cause.strerror}): name another in HF_HOME."
    return None


def _file_sentence(error: OSError, place: Path | None) -> str | None:
    path = _path_of(error) or place
    match error.errno:
        case errno.EACCES | errno.EPERM if path is not None:
            reads = path.exists() and not os.access(path, os.R_OK)
            return f"This user may not {'read' if reads else 'write'} {path}: change its rights or choose another path."
        case errno.ENOENT if path is not None:
            return f"There is no file or folder {path}: check the path."
        case errno.ENOTDIR if path is not None:
            return f"{path} leads through a file as if it were a folder: choose another path."
        case errno.EEXIST if path is not None:
            if path.is_dir():
                return f"{path} exists already: move or delete it."
            return f"{path} is a file where a folder is needed: choose another path."
        case errno.EISDIR if path is not None:
            return f"{path} is a folder where a file is expected: name a file."
        case errno.ENOTEMPTY if path is not None:
            return f"{path} is not empty: move or delete what is in it."
        case errno.ENAMETOOLONG:
            return f"The name {_short_path(path)} is too long for this file system: choose a shorter one."
        case errno.ELOOP if path is not None:
            return f"The links at {path} lead in a circle: choose another path."
        case errno.EMFILE | errno.ENFILE:
            return "Too many files are open: raise the limit (`ulimit -n 4096`) and run the same command again."
        case errno.EIO:
            return f"The disk reports an error{f' at {path}' if path else ''}: check it and run the same command again."
    return None


def _path_of(error: BaseException) -> Path | None:
    name = error.filename if isinstance(error, OSError) else None
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return Path(name) if isinstance(name, str) and name else None


def _folder(path: Path | None) -> Path:
    """The folder of a path that there is."""
    with contextlib.suppress(OSError):  # the current folder may have been deleted
        parents = (Path.cwd() if path is None else path).absolute().parents
        # `Path.is_dir` raises where a name is too long.
        return next((parent for parent in parents if os.path.isdir(parent)), Path("/"))  # noqa: PTH112
    return Path("/")


def _short_path(path: Path | None) -> str:
    text = "" if path is None else path.name
    return text if len(text) <= 60 else f"{text[:40]}…{text[-12:]}"


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # none that can be written to
        return "/tmp"


# ---- the log


def write_log(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """A file with versions, command line and traceback, in the user's folder for logs, else in that for temporary
    files; None where neither can be written. Passwords and keys are left out, and so is the environment."""
    name = f"saevx-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    text = without_secrets(_report(error, arguments))
    for folder in _log_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            for log in sorted(folder.glob("saevx-*.log"))[:-MAX_LOGS]:
                log.unlink()
        return path
    return None


def _report(error: BaseException, arguments: Sequence[str]) -> str:
    lines = [
        f"time: {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"command: saevx {' '.join(arguments)}",
        f"python {platform.python_version()} on {platform.platform()}",
    ]
    for library in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            lines.append(f"{library} {version(library)}")
    return "\n".join([*lines, "", *traceback.format_exception(error)])


def without_secrets(text: str) -> str:
    """The text without what looks like a password or key, or stands in a variable of the environment that is called
    one."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _log_folders() -> Iterator[Path]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path's own raises where there is no home
    if os.environ.get("XDG_STATE_HOME"):
        yield Path(os.environ["XDG_STATE_HOME"]) / "saevx"
    elif os.name == "nt":
        yield Path(os.environ.get("LOCALAPPDATA") or home) / "saevx" / "logs"
    elif home.is_absolute():
        yield home / ".local" / "state" / "saevx"
    yield Path(_temporary())
