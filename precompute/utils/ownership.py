"""Who may write a place: one run at a time, and an unfinished folder only by the command that began it.

`exclusive`, `exclusive_file` and `creating` lock a file or a folder; `claim_folder` continues an unfinished run of the
same fingerprint.
"""

import contextlib
import datetime as dt
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from precompute.errors import PlaceError, SaevxError
from precompute.utils.failures import disk_sentence
from precompute.utils.files import TEMPORARY, check_file, is_special, place_error, write_text

MANIFEST, DATABASE = "manifest.json", "store.sqlite"
"""Files by which a finished store is known."""
HELD: set[Path] = set()
"""Lock files of this process."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


# ---- locks


@contextmanager
def exclusive(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Own OUT, and OUT.part next to it, while the block runs. Missing parent folders are made.

    The operating system holds the lock, on a hidden file next to OUT that is removed at the end. So a process that died
    holds no lock, however it died. A device or a pipe, such as /dev/stdout, has no owner.

    Args:
        wait: until another owner has ended, instead of raising.

    Raises:
        SaevxError: it lies in a finished store, another run owns it, its folder cannot be written to, or the disk
            becomes full during the block.
    """
    if is_special(out):
        yield
        return
    if not out.name:  # "." or "/"
        raise PlaceError(f"{out} is a folder: name what is to be written in it.")
    lock = out.with_name(f".{out.name}.lock")
    try:
        _refuse_inside_store(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take_lock(lock, out, wait)
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
        _release_lock(descriptor, lock)


@contextmanager
def exclusive_file(out: Path) -> Iterator[None]:
    """`exclusive`, for a file that the block writes at its end: it raises before the block if OUT is a folder or a
    link that leads nowhere."""
    with exclusive(out):
        check_file(out)
        yield


@contextmanager
def creating(out: Path, why: str = "") -> Iterator[None]:
    """`exclusive`, for what must not exist yet.

    Args:
        why: the reason, as the sentence goes on: "and a store never changes".
    """
    refuse_existing(out, why)
    with exclusive(out):
        refuse_existing(out, why)  # another run may have ended in between
        yield


def refuse_existing(out: Path, why: str = "") -> None:
    """Raises SaevxError where something of this name exists, even a link that leads nowhere."""
    try:
        exists = os.path.lexists(out)
    except OSError as error:
        raise place_error(error, out) from error
    if exists:
        raise SaevxError(f"{out} exists already{why and ' '}{why}: choose another --out or delete it.")


def _refuse_inside_store(out: Path) -> None:
    """Raises PlaceError for a place in a finished store, which a file more would damage."""
    for folder in out.absolute().parents:
        if (folder / MANIFEST).is_file() and (folder / DATABASE).is_file():
            raise PlaceError(f"{out} lies in the store {folder}, and a store never changes: choose another place.")


def _take_lock(lock: Path, out: Path, wait: bool) -> int:
    """The descriptor of the lock file, locked. Raises SaevxError where another process holds it."""
    has_waited = False
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            # The owner before may have removed the file after it was opened here: a lock on it would protect nothing.
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                try:
                    _write_owner(descriptor)
                except BaseException:  # such as a full disk
                    lock.unlink(missing_ok=True)
                    raise
                return descriptor
        except BlockingIOError:
            owner = _owner(lock)
            if not wait:
                raise SaevxError(
                    f"Another run{owner} writes {out}: wait until it has ended, or choose another place."
                ) from None
            if not has_waited:
                from precompute.utils.progress import say

                say(f"waiting for another run{owner}, which writes {out}")
            has_waited = True
            time.sleep(0.2)
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError where another process holds it. A file system without locks only leads to a message."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond what others read
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError from error
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        from precompute.utils.progress import say

        say(f"This file system has no locks ({error.strerror}): see to it that no other run writes the same files.")


def _write_owner(descriptor: int) -> None:
    since = dt.datetime.now().astimezone().isoformat(" ", "seconds")
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode())


def _owner(lock: Path) -> str:
    """` (process 12 on here, since …)`; nothing where it has not been written yet."""
    try:
        owner = json.loads(lock.read_text())
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def abandon() -> None:
    """Remove every lock file of this process, which is about to end."""
    for lock in HELD:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)


def _release_lock(descriptor: int, lock: Path) -> None:
    HELD.discard(lock)
    if sys.platform == "win32":  # there an open file cannot be removed
        os.close(descriptor)
    with contextlib.suppress(OSError):
        lock.unlink(missing_ok=True)
    if sys.platform != "win32":
        os.close(descriptor)


# ---- an unfinished folder, which the same command continues


def holds_unfinished(part: Path, fingerprint: str, plan: str, *, what: str, depends_on: str) -> bool:
    """Whether a folder holds an unfinished run with this fingerprint. That of another run which has finished nothing,
    such as one whose model could not be loaded, counts as empty: nothing of it can be lost.

    Args:
        fingerprint: of all that the run depends on.
        plan: name of the file in the folder that holds the fingerprint.
        what: word for the run, such as "training".
        depends_on: words for that, with "other" before them in a sentence, such as "data, model or options".

    Raises:
        SaevxError: the folder holds another run, or something else.
    """
    if not os.path.lexists(part):
        return False
    try:
        fingerprint_of_part = json.loads((part / plan).read_text())["fingerprint"]
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError):
        if part.is_dir() and _is_empty(part):
            return False
        raise SaevxError(f"{part} is in the way and is no unfinished {what}: move or delete it.") from None
    if fingerprint_of_part != fingerprint:
        if _is_empty(part, plan):
            return False
        raise SaevxError(
            f"{part} holds an unfinished {what} with other {depends_on}: "
            "repeat that command to go on with it, or delete the folder to start over."
        )
    return True


def _is_empty(part: Path, plan: str = "") -> bool:
    """Whether nothing but the plan and what a write was killed over is in the folder."""
    return all(path.name == plan or path.name.endswith(TEMPORARY) for path in part.iterdir())


def claim_folder(part: Path, fingerprint: str, plan: str, *, what: str, depends_on: str) -> bool:
    """Make the folder of an unfinished run, or continue the one with the same fingerprint.

    The caller owns the folder (`exclusive`). Arguments and errors are those of `holds_unfinished`.

    Returns:
        whether the folder was there already.
    """
    if holds_unfinished(part, fingerprint, plan, what=what, depends_on=depends_on):
        return True
    part.mkdir(parents=True, exist_ok=True)
    write_text(part / plan, json.dumps({"fingerprint": fingerprint}))
    return False
