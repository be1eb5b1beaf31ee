"""Files that are written: whole or not at all, by one owner at a time, and never into room that is not there.

Everything that a command writes goes through here. Wherever a place cannot be written to, that is a `SaevxError` that
names the true cause (failures.py), and it is raised before the work rather than after it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import platform
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from precompute.errors import PlaceError, SaevxError
from precompute.utils.failures import disk_sentence, sentence

if TYPE_CHECKING:
    import numpy as np

HELD: set[Path] = set()
"""Locks' files of this process."""
TEMPORARY = ".tmp"
"""Ends the name of a file that is being written; what a killed run left of it is written anew."""
_ZEROS = 1 << 20
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
_NO_RESERVING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENODEV)


# ---- one owner


@contextmanager
def exclusive(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Own OUT, and OUT.part beside it, while this is open. Missing parents are made.

    The system holds the lock, on a hidden file beside OUT that goes at the end: a process that died keeps none, however
    it died. A device or a pipe, such as /dev/stdout, has no owner.

    Args:
        wait: for another owner to end, instead of being refused.

    Raises:
        SaevxError: another run owns it, or its folder cannot be written to; whatever fills the disk while it is open.
    """
    if is_special(out):
        yield
        return
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        held = _locked(lock, out, wait)
    except OSError as error:
        if error.filename == str(lock):
            error.filename = str(out)
        raise place_error(error, out) from error
    HELD.add(lock)
    try:
        yield
    except SaevxError:
        raise
    except Exception as error:
        if (text := disk_sentence(error, out)) is not None:
            raise PlaceError(text) from error
        raise
    finally:
        _unlocked(held, lock)


@contextmanager
def creating(out: Path, why: str = "") -> Iterator[None]:
    """`exclusive`, of what must not exist yet.

    Args:
        why: it must not, as in "and a store never changes".
    """
    refuse_existing(out, why)
    with exclusive(out):
        refuse_existing(out, why)  # another run may have ended in between
        yield


def check_file(path: Path) -> None:
    """Raises SaevxError where a file of this name could not be put in its folder, which exists."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise SaevxError(f"{path} is a folder, where a file is to be written: move it or choose another name.")
    except FileNotFoundError:
        return
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


def refuse_existing(out: Path, why: str = "") -> None:
    """Raises SaevxError where something of this name is there, be it a link that leads nowhere."""
    try:
        there = os.path.lexists(out)
    except OSError as error:
        raise place_error(error, out) from error
    if there:
        raise SaevxError(f"{out} exists already{why and ' '}{why}: choose another --out or delete it.")


def _locked(lock: Path, out: Path, wait: bool) -> int:
    """A descriptor of the lock's file that holds the lock. Raises SaevxError where another process does."""
    waited = False
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(held)
            # Whoever had it may have removed the file after we had opened it: that lock locks nothing.
            if os.path.samestat(os.fstat(held), lock.stat()):
                _write_owner(held)
                return held
        except BlockingIOError:
            owner = _owner(lock)
            if not wait:
                raise SaevxError(
                    f"Another run{owner} writes {out}: wait until it has ended, or choose another place."
                ) from None
            if not waited:
                from precompute.utils.progress import say

                say(f"waiting for another run{owner}, which writes {out}")
            waited = True
            time.sleep(0.2)
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _lock(held: int) -> None:
    """Raises BlockingIOError where another process has it. Where the file system has no locks there is only a word."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(held, 1 << 30, os.SEEK_SET)  # beyond what others read
            try:
                msvcrt.locking(held, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError from error
        else:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        from precompute.utils.progress import say

        say(f"This file system has no locks ({error.strerror}): see to it that no other run writes the same files.")


def _write_owner(held: int) -> None:
    since = dt.datetime.now().astimezone().isoformat(" ", "seconds")
    os.ftruncate(held, 0)
    os.lseek(held, 0, os.SEEK_SET)
    os.write(held, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode())


def _owner(lock: Path) -> str:
    """` (process 12 on here, since …)`; nothing where it has not been written yet."""
    try:
        owner = json.loads(lock.read_text())
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def abandon() -> None:
    """Let go of every lock, in a process that ends here."""
    for lock in HELD:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)


def _unlocked(held: int, lock: Path) -> None:
    HELD.discard(lock)
    if sys.platform == "win32":  # there an open file cannot be removed
        os.close(held)
    with contextlib.suppress(OSError):
        lock.unlink(missing_ok=True)
    if sys.platform != "win32":
        os.close(held)


# ---- an unfinished folder, which the same command goes on with


def unfinished(part: Path, fingerprint: str, plan: str, *, what: str, of: str) -> bool:
    """Whether a folder holds an unfinished run like this one.

    Args:
        fingerprint: of all that the run depends on.
        plan: name of the file in it that holds the fingerprint.
        what: the run is, such as "training". of: what it depends on, such as "data, model or options".

    Raises:
        SaevxError: it holds another run, or something else.
    """
    if not os.path.lexists(part):
        return False
    try:
        told = json.loads((part / plan).read_text())["fingerprint"]
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError):
        if part.is_dir() and all(path.name.endswith(TEMPORARY) for path in part.iterdir()):
            return False
        raise SaevxError(f"{part} is in the way and is no unfinished {what}: move or delete it.") from None
    if told != fingerprint:
        raise SaevxError(
            f"{part} holds an unfinished {what} with other {of}: "
            "repeat that command to go on with it, or delete the folder to start anew."
        )
    return True


def claim_folder(part: Path, fingerprint: str, plan: str, *, what: str, of: str) -> bool:
    """Make an unfinished folder, or take up the one of the same run. Returns whether there was one.

    Whoever calls this owns the folder (`exclusive`). Arguments and errors as of `unfinished`."""
    if unfinished(part, fingerprint, plan, what=what, of=of):
        return True
    part.mkdir(parents=True, exist_ok=True)
    write_text(part / plan, json.dumps({"fingerprint": fingerprint}))
    return False


# ---- whole files


@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "wb") -> Iterator[IO[Any]]:
    """A file to write, UTF-8 where it is text, that takes the place of `path` when all is written: it appears whole, or
    what was there stays. A link is followed; a device or a pipe is written to."""
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    if is_special(path):
        with _named(path), path.open(mode, **text) as file:
            yield file
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    fresh = path.with_name(path.name + TEMPORARY)
    try:
        with _named(path), fresh.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """The system does not say which file could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """The file of this text, whole or not at all."""
    with atomic_write(path, "w") as file:
        file.write(text)


# ---- room


def new_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A .npy file to write through memory, its bytes reserved on the disk: a mapped file that has holes kills the
    process without a word (SIGBUS) when the disk is full.

    Returns:
        the array, mapped, all zeros.

    Raises:
        SaevxError: there is not as much room.
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
    """Give an open file `size` bytes on the disk, beyond its end zeros. Raises OSError where there are not as many."""
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
