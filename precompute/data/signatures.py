"""What the first bytes of a file tell: whether it can be what its name says."""

from pathlib import Path

from precompute.utils.reading import POINTER

STARTS = (
    (b"\x1f\x8b", "compressed: unpack it first"),
    (b"BZh", "compressed: unpack it first"),
    (b"\xfd7zXZ\0", "compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (POINTER, "a git-lfs pointer in place of the file: run `git lfs pull`"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
)


def foreign_format(path: Path) -> str | None:
    """What the file is where it is surely neither a plain tar, nor Parquet, nor text in UTF-8; else None.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(32)
    return next((format_name for magic, format_name in STARTS if start.startswith(magic)), None)
