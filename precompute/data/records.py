"""A row, and where its images' bytes lie: never in memory before they are needed."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from precompute.errors import SaevxError

IMAGE_FIELDS = ("image", "images", "file_name", "file_names")
"""What a field of image paths may be called, in any case; a table's column of bytes may have any name."""
Stamp = list[str | int]
"""Path, size and time of a file, or an image's place in it: shows a change without reading the file."""


@runtime_checkable
class EmbeddedImage(Protocol):
    """An image inside a larger file, not read yet."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]: ...

    def stamp(self) -> Stamp:
        """Its place inside its file, whose own stamp is in `Data.files`."""
        ...


Source: TypeAlias = Path | EmbeddedImage


class Window(io.RawIOBase):
    """`size` bytes of a file from `offset`, read as a file of their own."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self.file, self.offset, self.size, self.at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        self.file.seek(self.offset + self.at)
        data = self.file.read(max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Slice:
    """An image inside a file that holds many, such as a tar."""

    path: Path
    offset: int
    size: int

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        return io.BufferedReader(Window(self.path.open("rb"), self.offset, self.size))

    def stamp(self) -> Stamp:
        return [self.path.name, self.offset, self.size]


@dataclass(frozen=True, slots=True)
class Row:
    """One pair as the data gives it."""

    index: int
    """Its number in the data, counted over all rows."""
    sample_id: str
    text: str
    images: tuple[Source, ...]
    extra: dict[str, Any]
    """The row's other fields, kept as they are."""
    source: str
    """Where it stands: file and line."""


@dataclass(frozen=True, order=True, slots=True)
class RejectedRow:
    index: int
    sample_id: str | None
    reason: str


class Data(NamedTuple):
    """All rows of a source, in its order."""

    name: str
    rows: Sequence[Row]
    """As `read` returns them, a table on the disk (disk/row_table.py): they are read again and again, not held."""
    rejected_rows: list[RejectedRow]
    text_only: bool
    """No row names an image."""
    files: list[Path] = []  # noqa: RUF012 (never written to)
    """Files that hold images of many rows."""
    no_image: str = ""
    """Why no row has an image, as a clause, where the data looks as if it should have some; else empty."""
    guess: str = ""
    """Field in which images were looked for because of its values; empty where its name is a usual one."""

    @property
    def n_rows(self) -> int:
        return len(self.rows) + len(self.rejected_rows)


class BadRow(Exception):  # noqa: N818 (it is a verdict on data, not an error)
    """Why a row is rejected."""

    @property
    def reason(self) -> str:
        """A clause about the row, such as "its image cannot be read"."""
        return str(self)


class Columns(NamedTuple):
    """Which of a row's fields are what; None finds out."""

    image: str | None = None
    text: str | None = None
    id: str | None = None
    side: Literal["chosen", "rejected"] = "chosen"
    """Which answer of a preference pair follows the prompt."""
    folder: Path | None = None
    """Where image paths start; None is the folder of the data."""
    split: str = "train"
    """Of a data set that has several."""
    mixed: bool = False
    """Whether a row without an image is text alone, beside others that have one; else it is rejected."""
    text_only: bool = False
    """Read the text alone, whatever images the rows have."""
    anywhere: bool = False
    """Whether rows may name images outside the image folder: the data is trusted."""


Records: TypeAlias = Iterator[tuple[str, dict[str, Any] | BadRow]]
"""Where each record stands, and its fields or why it has none. Images are paths as written, or Sources."""


@dataclass
class Listing:
    """A source of records."""

    name: str
    records: Callable[[], Records]
    """Begins at the first record, as often as it is called."""
    image_fields: tuple[str, ...]
    """Names, in any case, under which images may stand; the first that any record has is taken."""
    folder: Path
    """Where image paths start."""
    files: list[Path] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    """Names of its columns, where they are known before any record; of tars, the kinds of members met so far."""
    has_splits: bool = False
    """Whether it is one split of several, or could be."""


def key_of(record: dict[str, Any], name: str) -> str:
    """The key of `record` that is `name`, else the one that differs in case alone, else `name` itself."""
    if name in record:
        return name
    return next((key for key in record if key.lower() == name.lower()), name)


def no_rows(source: str | Path) -> SaevxError:
    """What is said of data without a row."""
    return SaevxError(f"{source} is empty: there is no row in it.")


def stamps(images: Iterable[Source]) -> list[list[str | int]]:
    """Tell whether files, or images inside files, have changed, without reading them."""
    result: list[list[str | int]] = []
    for image in images:
        if isinstance(image, Path):
            stat = image.stat()
            result.append([image.name, stat.st_size, stat.st_mtime_ns])
        else:
            result.append(image.stamp())
    return result
