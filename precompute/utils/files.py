"""Writing files and folders: completely or not at all, and never beyond the space on the disk.

Everything that a command writes goes through here. A place that cannot be written to raises a `SaevxError` that names
the cause (failures.py), before the work rather than after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from precompute.errors import PlaceError, SaevxError
from precompute.utils.failures import disk_sentence, sentence

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = ".tmp"
"""Ends the name of a file that is being written. The next run overwrites what a killed run left."""
_ZEROS = 1 << 20
_NO_RESERVING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENODEV)


# ---- what can be written to


def check_file(path: Path) -> None:
    """Raises SaevxError where a file of this name could not be put in its folder, which exists."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise SaevxError(f"{path} is a folder, where a file is to be written: move it or choose another name.")
    except FileNotFoundError:
        target = Path(os.path.realpath(path))
        if path.is_symlink() and not target.parent.is_dir():
            raise SaevxError(f"{path} is a link to {target}, whose folder does not exist: make it.") from None
    except OSError as error:
        raise place_error(error, path) from error


def place_error(error: OSError, path: Path) -> PlaceError:
    return PlaceError(sentence(error, path) or f"{path} cannot be written ({error}): choose another path.")


def is_special(path: Path) -> bool:
    """Whether this is a device, a pipe or a socket, which is written to and never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


# ---- whole files


@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "wb") -> Iterator[IO[Any]]:
    """A file to write, text as UTF-8, that replaces `path` when the block ends without an error: `path` is never half
    written. A link is followed; a device or a pipe is written to directly."""
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    if is_special(path):
        with _name_file_in_errors(path), path.open(mode, **text) as file:
            yield file
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary_path = path.with_name(path.name + TEMPORARY)
    try:
        with _name_file_in_errors(path), temporary_path.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary_path.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary_path.unlink(missing_ok=True)
        raise


@contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """Adds the file's name to an OSError: the system does not give it for a failed write."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """`atomic_write` of a text."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """`atomic_write` of a value as indented JSON. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, .FOLDER.part, that takes the place of FOLDER when the block ends without an error.

    What an earlier run left there is removed first, and what a failed block leaves there at its end. The name is hidden
    because FOLDER.part may be the unfinished store of a pass of hours, or a folder of the user's."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


# ---- space on the disk


def new_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file of zeros, memory-mapped for writing, with its bytes reserved on the disk.

    Reserved, because writing to a hole of a mapped file ends the process with SIGBUS when the disk is full.

    Raises:
        PlaceError: the disk has not enough space.
    """
    import numpy as np

    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            reserve(file.fileno(), file.tell() + size)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        text = disk_sentence(error, path, size)
        if text is None:
            raise
        raise PlaceError(text) from error
    return np.lib.format.open_memmap(path, "r+")


def reserve(file: int, size: int) -> None:
    """Reserve `size` bytes of disk for an open file, zeros after its end. Raises OSError where it is full."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in _NO_RESERVING:
                raise
    at = os.lseek(file, 0, os.SEEK_END)
    while at < size:
        at += os.write(file, bytes(min(_ZEROS, size - at)))


def copy_folder(source: Path, target: Path) -> None:
    """Copy all that is in a folder into another that is there, links as links.

    Raises:
        PlaceError: with the first file's own cause; `shutil` goes on, and tells causes as text alone.
    """

    def copy(path: str, to: str) -> None:
        try:
            shutil.copy2(path, to, follow_symlinks=False)
        except OSError as error:
            full = disk_sentence(OSError(error.errno, error.strerror), target)  # it names the file that is read
            raise PlaceError(
                full or sentence(error) or f"{path} cannot be copied ({error}): remove it, or give a whole copy."
            ) from error

    try:
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=copy)
    except shutil.Error as error:  # over a folder inside
        path, _, reason = error.args[0][0]
        raise PlaceError(f"{path} cannot be copied ({reason}): change its rights or remove it.") from error


def hardlink(source: Path, target: Path) -> None:
    """The same file under another name, whatever had that name; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
