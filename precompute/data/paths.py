"""Images that a row names by a path."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from precompute.data.records import BadRow

_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MAX_NAME = 200


def is_address(name: str) -> bool:
    """Whether it is a URL of something that is not on this machine."""
    return bool(_ADDRESS.match(name))


def locate(folder: Path, name: str) -> Path | None:
    """The file that `name` names: as it is written, from `folder` or absolute; else with the slashes of Windows, from
    a home folder, or as a file: URL. None where there is none, a folder included.

    Raises:
        BadRow: nobody may look.
    """
    if "\0" in name:
        return None
    tries = [folder / name]
    if "\\" in name:
        tries.append(folder / name.replace("\\", "/"))
    if name.startswith("~"):
        with suppress(RuntimeError):  # of a user whom nobody knows
            tries.append(Path(name).expanduser())
    if name.startswith("file://"):
        tries.append(Path("/" + unquote(name.removeprefix("file://")).partition("/")[2]))
    for path in tries:
        try:
            if path.is_file():
                return path
        except PermissionError as error:
            raise BadRow(f"its image {name[:MAX_NAME]} cannot be opened (permission denied)") from error
        except OSError:  # a name that no file system takes
            continue
    return None


def is_there(folder: Path, name: str) -> bool:
    """Whether `name` names a file, as far as one may look."""
    try:
        return locate(folder, name) is not None
    except BadRow:
        return True


def image_file(folder: Path, name: str) -> Path:
    """As `locate`.

    Raises:
        BadRow: there is no such file.
    """
    if (path := locate(folder, name)) is not None:
        return path
    if is_address(name):
        raise BadRow(f"its image is an address on the web, not a file: {name[:MAX_NAME]}")
    raise BadRow(f"there is no image {name[:MAX_NAME]}")
