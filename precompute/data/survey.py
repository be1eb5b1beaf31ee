"""A first look at DATA, before any row is made of it: in which field the images are, and whether some should be there
that are not found. For most data it ends at the first record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from precompute.data.paths import ImageRoot, is_address
from precompute.data.records import IMAGE_FIELDS, BadRow, Columns, Listing, key_of
from precompute.data.rejections import ROW
from precompute.data.sources import find
from precompute.data.tars import IMAGE_SUFFIXES
from precompute.errors import SaevxError

MAX_VALUES = 1000
"""Values of a field that are looked at, for images in a field of an unusual name."""
MAX_FIELDS = 200
MAX_EXAMPLES = 20
"""Values of a field that are looked for among the files."""
_WHERE = r"(file|path|name|url|uri|link|src|bytes|base64|location|id)s?"
_IMAGE_NAME = re.compile(rf"(image|img|picture|pic|photo|jpe?g|png)s?([\W_]*{_WHERE})*", re.IGNORECASE)
_PLACE_NAME = re.compile(rf"{_WHERE}([\W_]*{_WHERE})*", re.IGNORECASE)
_ADDRESS_END = re.compile(r"[?#].*", re.DOTALL)
_IMAGE_FILE = re.compile(rf"\.({'|'.join(IMAGE_SUFFIXES)})\Z", re.IGNORECASE)


class Survey(NamedTuple):
    """What is known of a source before its rows are made."""

    source: str
    listing: Listing
    image: str | None
    """Field with the images, in any case; None where there are none, or none are wanted."""
    guess: bool
    """Whether its values alone speak for it, and not its name."""
    no_image: str
    """Why there is none, as a clause, where some field looks as if it had; else empty."""
    fields: list[str]
    """Names of the rows' fields, as far as they were looked at."""


def survey(source: str, columns: Columns) -> Survey:
    """Look at the data.

    Raises:
        SaevxError: there is no such data, or no row has a field that was asked for.
    """
    listing = find(source, columns)
    names = () if columns.text_only else listing.image_fields
    absent_names = {name for name in (columns.text, columns.id) if name and name.lower() != ROW}
    fields, n = Fields(listing), 0
    with_image: set[str] = set()
    for _, record in listing.records():
        if isinstance(record, BadRow):
            continue
        n += 1
        fields.add(record)
        with_image |= {name for name in names if record.get(key_of(record, name))}
        absent_names -= {name for name in absent_names if key_of(record, name) in record}
        # With no name to look for, the first values tell.
        image_known = names[0] in with_image if names else columns.text_only or n >= MAX_VALUES
        if image_known and not absent_names:
            break
    image = next((name for name in names if name in with_image), None)
    if n:
        check(source, fields, absent_names, columns, image)
    no_image, guess = "", False
    if image is None and columns.image is None and not columns.text_only:
        image, no_image = fields.guess(ImageRoot.from_listing(listing, columns))
        guess = image is not None
    return Survey(source, listing, image, guess, no_image, fields.names)


def check(source: str, fields: Fields, absent_names: set[str], columns: Columns, image: str | None) -> None:
    """Raises SaevxError where no row has a field that was asked for."""
    rows_have = list_fields(fields.names)
    if columns.image is not None and image is None and not columns.text_only:
        column = f"an image in column {columns.image!r}"
        raise SaevxError(f"No row of {source} has {column} ({rows_have}): see --image-column.")
    for name in sorted(absent_names):
        option = "--text-column" if name == columns.text else "--id-column"
        number = "" if option == "--text-column" else f"; {ROW} numbers the rows"
        raise SaevxError(f"The rows of {source} have no field {name!r} ({rows_have}): see {option}{number}.")


def list_fields(names: Iterable[str]) -> str:
    """`its rows have the fields a, b`."""
    names_text = ", ".join(name for name in names if not name.startswith("__"))
    return f"its rows have the fields {names_text[:300]}"


@dataclass
class Values:
    """What the values of one field look like."""

    n: int = 0
    """Texts."""
    n_images: int = 0
    """Of them, those that end as image files do."""
    examples: list[str] = field(default_factory=list)


class Fields:
    """Fields of the first records."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.values: dict[str, Values] = {name: Values() for name in listing.fields}

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*self.listing.fields, *self.values]))

    def add(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name not in self.values and len(self.values) >= MAX_FIELDS:
                continue
            values = self.values.setdefault(name, Values())
            if values.n >= MAX_VALUES:
                continue
            text = value[0] if isinstance(value, list) and value else value
            if isinstance(text, dict):
                text = text.get("path")
            if isinstance(text, str) and text:
                values.n += 1
                values.n_images += bool(_IMAGE_FILE.search(_ADDRESS_END.sub("", text) if is_address(text) else text))
                if len(values.examples) < MAX_EXAMPLES:
                    values.examples.append(text)

    def guess(self, root: ImageRoot) -> tuple[str | None, str]:
        """The one field that names image files, and else why there is none where one looks as if it should."""
        ranks: list[list[str]] = [[], [], []]
        suspects = []
        for name, values in self.values.items():
            by_name = bool(_IMAGE_NAME.fullmatch(name)) or name.lower() in IMAGE_FIELDS
            if not by_name and not 0 < values.n <= 2 * values.n_images:
                continue
            suspects.append(name)
            if any(not is_address(example) and root.is_there(example) for example in values.examples):
                ranks[0 if by_name else 1 if _PLACE_NAME.fullmatch(name) else 2].append(name)
        best_names = next((rank for rank in ranks if rank), [])
        if len(best_names) == 1:
            return best_names[0], ""
        if best_names:
            return None, f"the fields {', '.join(best_names)} all name image files"
        return None, self.why_not_found(suspects[0], root.folder) if suspects else ""

    def why_not_found(self, name: str, folder: Path) -> str:
        """Why a field that looks as if it named images gives none."""
        values = self.values[name]
        if not values.examples:
            return f"its field {name!r} names no image"
        if is_address(values.examples[0]):
            return f"its field {name!r} holds addresses on the web: download the images and name their files"
        return f"what its field {name!r} names is not in {folder}: --image-folder says where paths start"
