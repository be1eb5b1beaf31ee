"""Files of a data set: those that hold rows, of which split, and the images that rows name. Only those inside its
folder are opened, unless the data is trusted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from precompute.data.records import BadRow, Columns, Listing
from precompute.errors import SaevxError
from precompute.utils.progress import say

_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MAX_NAME = 200
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "dev": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Splits by the words for them in names of files and folders, as `datasets` knows them."""
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}")
_WORD = re.compile(rf"(?<![^-._ 0-9])({'|'.join(SPLITS)})(?![^-._ 0-9])")


def is_address(name: str) -> bool:
    """Whether it is a URL of something that is not on this machine."""
    return bool(_ADDRESS.match(name))


class ImageRoot(NamedTuple):
    """Where the files lie that rows may name: the one way from a name in the data to a file."""

    folder: Path
    """Where paths start."""
    anywhere: bool = False
    """Whether a path may lead out of the folder: the data is trusted."""

    @classmethod
    def from_listing(cls, listing: Listing, columns: Columns) -> ImageRoot:
        """Of a data set, as the options say."""
        return cls(columns.folder or listing.folder, columns.anywhere)

    def locate(self, name: str) -> Path | None:
        """The file that `name` names: as it is written, from the folder or absolute; else with the slashes of Windows,
        from a home folder, or as a file: URL. None where there is none.

        Raises:
            BadRow: it lies outside the folder, is no regular file, or nobody may look.
        """
        if "\0" in name:
            return None
        is_outside = irregular = False
        for path in _candidates(self.folder, name):
            try:
                if not (self.anywhere or self.holds(path)):
                    is_outside = True  # not even looked for: what exists elsewhere is not the data's business
                elif path.is_file():
                    return path
                else:
                    irregular |= path.exists()
            except PermissionError as error:
                raise BadRow(f"its image {name[:MAX_NAME]} cannot be opened (permission denied)") from error
            except OSError:  # a name that no file system takes
                continue
        if is_outside:
            raise BadRow(f"its image {name[:MAX_NAME]} lies outside the image folder")
        if irregular:
            raise BadRow(f"its image {name[:MAX_NAME]} is a folder, a FIFO or a device, not a regular file")
        return None

    def holds(self, path: Path) -> bool:
        """Whether a path, with its `..` and links followed, lies inside the folder."""
        roots = _roots(self.folder)
        if path.name == "..":
            return _is_below(os.path.realpath(path), roots)
        if not _is_below(f"{_real_path(str(path.parent))}{os.sep}{path.name}", roots):
            return False
        return not path.is_symlink() or _is_below(os.path.realpath(path), roots)

    def is_there(self, name: str) -> bool:
        """Whether `name` names a file, as far as one may look."""
        try:
            return self.locate(name) is not None
        except BadRow:
            return True

    def file(self, name: str) -> Path:
        """As `locate`.

        Raises:
            BadRow: also where there is no such file.
        """
        if (path := self.locate(name)) is not None:
            return path
        if is_address(name):
            raise BadRow(f"its image is an address on the web, not a file: {name[:MAX_NAME]}")
        raise BadRow(f"there is no image {name[:MAX_NAME]}")


def check_files(folder: Path, files: Iterable[Path], anywhere: bool) -> None:
    """Before files that were met in a folder are opened for their rows.

    Args:
        anywhere: whether links may lead out of the folder: the data is trusted.

    Raises:
        SaevxError: one leads out of the folder, or is a FIFO, a socket or a device, which might never end.
    """
    root = ImageRoot(folder, anywhere)
    for path in files:
        if not (anywhere or root.holds(path)):
            raise SaevxError(
                f"{path} leads out of the folder of the data: copy the file into it, or give --allow-outside if you "
                "trust the data."
            )
        if path.exists() and not path.is_file() and not path.is_dir():
            raise SaevxError(f"{path} is a FIFO, a socket or a device, not a regular file: remove it.")


def files_below(folder: Path, left_out: tuple[str, ...]) -> Iterator[Path]:
    """Files and links of a folder and its folders. Links to folders are not followed.

    Args:
        left_out: endings of the files that are left out, small letters without the dot.
    """
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.rpartition(".")[2].lower() not in left_out)
        yield from (link for name in folders if (link := Path(place, name)).is_symlink())


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    if "\\" in name:
        yield folder / name.replace("\\", "/")
    if name.startswith("~"):
        with suppress(RuntimeError):  # of a user whom nobody knows
            yield Path(name).expanduser()
    if name.startswith("file://"):
        yield Path("/" + unquote(name.removeprefix("file://")).partition("/")[2])


@lru_cache(maxsize=4096)
def _real_path(folder: str) -> str:
    return os.path.realpath(folder)


@lru_cache(maxsize=64)
def _roots(folder: Path) -> tuple[str, ...]:
    real_path = Path(os.path.realpath(folder))
    # The hub's cache: files of `datasets--OWNER--NAME/snapshots/REVISION` are links into its own `blobs`.
    blobs = [
        str(folder_path.parents[1] / "blobs")
        for folder_path in (real_path, *real_path.parents)
        if folder_path.parent.name == "snapshots" and "--" in folder_path.parents[1].name
    ]
    return (str(real_path), *blobs)


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def unicode_name(name: str) -> str:
    """The name of a file or of a tar's member as valid Unicode: bytes that are no UTF-8, which Python keeps as half
    characters, are written as \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# ---- splits


def choose_split(splits: Sequence[str], source: str, columns: Columns) -> str:
    """The split asked for, or the only one. Of several a line says which is read.

    Raises:
        SaevxError: there is none of that name.
    """
    names = sorted(map(str, splits))
    if columns.split in names:
        if len(names) > 1:
            say(f"{source} has the splits {', '.join(names)}: {columns.split} is read, another with --split")
        return columns.split
    if len(names) == 1 and columns.split == Columns().split:
        return names[0]
    raise SaevxError(f"{source} has the splits {', '.join(names)}, not {columns.split}: choose with --split.")


def files_of_split(files: Sequence[Path], folder: Path, columns: Columns) -> tuple[list[Path], bool]:
    """Those of a folder's files that are of the split; and whether their names say of which split they are.

    Raises:
        SaevxError: no file is of that split, or one is of none beside files of several.
    """
    split_of = {file: split_of_name(file.relative_to(folder)) for file in files}
    splits = sorted({split for split in split_of.values() if split is not None})
    if not splits or (len(splits) == 1 and None in split_of.values()):
        return [*files], False
    if (other := next((file for file, split in split_of.items() if split is None), None)) is not None:
        raise SaevxError(
            f"{folder} has the splits {', '.join(splits)}, and {other.name} is of none of them: name the files to read "
            "as DATA."
        )
    split = choose_split(splits, str(folder), columns)
    return [file for file in files if split_of[file] == split], True


def split_of_name(path: Path) -> str | None:
    """The split that a name says: of a shard such as train_sft-00000-of-00002, else by the words in its name, else by
    those in its folders' names."""
    if (shard := _SHARD.match(path.name)) is not None:
        return SPLITS.get(shard[1], shard[1])
    for part in reversed(path.parts):
        if words := _WORD.findall(part):
            return SPLITS[words[0]]
    return None
