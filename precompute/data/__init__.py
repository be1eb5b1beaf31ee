"""The user's pairs, from whatever they are kept in: rows.py says what a row is, sources.py and tables.py where rows
stand, pictures.py how an image is opened.

A row that cannot be used is set aside with its reason, never a crash and never silent. Pixels are read in the
pass; here only the rows are.
"""

from precompute.data.base import BadRow, Columns, Data, Row, SetAside, Slice, Source
from precompute.data.pictures import (
    FORMATS,
    MAX_ASPECT,
    MAX_PIXELS,
    Picture,
    TooManyPixels,
    check_size,
    header_size,
    open_picture,
    to_rgb,
    write_thumbnail,
)
from precompute.data.rows import read, stream
from precompute.data.sources import METADATA, matching
from precompute.data.tables import Cell

__all__ = [
    "FORMATS", "MAX_ASPECT", "MAX_PIXELS", "METADATA", "BadRow", "Cell", "Columns", "Data", "Picture", "Row",
    "SetAside", "Slice", "Source", "TooManyPixels", "check_size", "header_size", "matching", "open_picture", "read",
    "stream", "to_rgb", "write_thumbnail",
]  # fmt: skip
