"""From records to rows: the text, the images and the id of each, or why it is set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from precompute.data.base import BadRow, Columns, Data, Place, Row, SetAside, Source
from precompute.data.sources import find
from precompute.errors import SaevxError

Records: TypeAlias = Iterable[tuple[str, dict[str, Any] | BadRow]]

LONGEST_ID = 4096
"""Bytes: as long as a path of Linux may be; servers take addresses of twice that."""
MARK = "<image>"
"""Where LLaVA's conversations have an image; our pairs are [images][text] whatever the model."""


def read(source: str | Path, columns: Columns | None = None) -> Data:
    """All rows of DATA.

    Raises:
        SaevxError: there is no such data, or no usable row in it.
    """
    columns = columns or Columns()
    listing = find(str(source), columns)
    records = list(listing.records)
    field = _image_field(source, records, listing.image_fields, columns)
    seen: set[str] = set()

    def is_new(sample_id: str) -> bool:
        new = sample_id not in seen
        seen.add(sample_id)
        return new

    rows: list[Row] = []
    set_aside: list[SetAside] = []
    for one in _rows(records, columns.folder or listing.folder, field, columns, is_new):
        if isinstance(one, Row):
            rows.append(one)
        else:
            set_aside.append(one)
    if not rows:
        reason = f"; the first: {set_aside[0].reason}" if set_aside else ""
        raise SaevxError(f"{source} holds no usable row ({len(set_aside)} set aside{reason}).")
    return Data(listing.name, rows, set_aside, field is None, listing.files)


def stream(
    source: str | Path, is_new: Callable[[str], bool], columns: Columns | None = None
) -> Iterator[Row | SetAside]:
    """The rows of DATA one by one, for data of any length.

    Args:
        is_new: notes an id and says whether it is the first of its kind.

    Raises:
        SaevxError: there is no such data.
    """
    columns = columns or Columns()
    listing = find(str(source), columns)
    # Another look at the data, which for most ends at its first row: the first name that any row has wins.
    field = _image_field(source, find(str(source), columns).records, listing.image_fields, columns)
    return _rows(listing.records, columns.folder or listing.folder, field, columns, is_new)


def _image_field(source: str | Path, records: Records, names: tuple[str, ...], columns: Columns) -> str | None:
    """The first of `names` that any record has."""
    known = False
    had: set[str] = set()
    for _, record in records:
        if isinstance(record, dict):
            known = True
            had |= {name for name in names if record.get(name)}
        if names[0] in had:
            break
    field = next((name for name in names if name in had), None)
    if field is None and columns.image is not None and known:
        raise SaevxError(f"No row of {source} has an image in column {columns.image!r}: see --image-column.")
    return field


def _rows(
    records: Records, folder: Path, field: str | None, columns: Columns, is_new: Callable[[str], bool]
) -> Iterator[Row | SetAside]:
    for index, (where, record) in enumerate(records):
        sample_id: str | None = None
        try:
            if isinstance(record, BadRow):
                raise record
            sample_id = _id(record, columns.id or "id", index)
            if not is_new(sample_id):
                raise BadRow(f"its id {sample_id!r} stands in an earlier row")
            images = () if field is None else _images(record, field, folder, columns.mixed)
            text, own = _text(record, columns, len(images))
            used = {own, "id" if columns.id in (None, "id") else None}
            # An image's name is one of the row's own fields; its bytes are not.
            named = field is None or _are_names(record.get(field))
            extra = {name: value for name, value in record.items() if name not in used and (named or name != field)}
            yield Row(index, sample_id, text, images, extra, where)
        except BadRow as bad:
            yield SetAside(index, sample_id, str(bad))


def _are_names(value: Any) -> bool:
    return all(isinstance(one, str) for one in value) if isinstance(value, list) else isinstance(value, str)


def _id(record: dict[str, Any], field: str, index: int) -> str:
    value = record.get(field)
    if value is None:
        return str(index)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow("its id is neither a string nor a whole number")
    sample_id = str(value)
    if len(sample_id.encode()) > LONGEST_ID:
        raise BadRow(f"its id has more than {LONGEST_ID:,} bytes, which no address can carry")
    return sample_id


# ---- text


def _text(record: dict[str, Any], columns: Columns, n_images: int) -> tuple[str, str | None]:
    """The text, and the field that it is, where that is called `text`.

    Looked for in this order: `text`, a conversation, a preference pair, `caption`.
    """
    if columns.text is not None or record.get("text") is not None:
        field = columns.text or "text"
        value = record.get(field)
        if value is None:
            raise BadRow(f"it has no field {field!r}")
        if isinstance(value, list | dict):
            return _unmarked(_turns(value), n_images), None
        if not isinstance(value, str):
            raise BadRow(f"its field {field!r} is not a string")
        return value, "text" if field == "text" else None
    for field in ("conversations", "messages"):
        if record.get(field) is not None:
            return _unmarked(_turns(record[field]), n_images), None
    prompt = next((name for name in ("prompt", "question") if record.get(name) is not None), None)
    answer = _answer(record, columns.side)
    if prompt is not None and answer is not None:
        return _unmarked([*_turns(record[prompt]), *_turns(answer)], n_images), None
    if prompt is not None and ("chosen" in record or "response_1" in record):
        raise BadRow(f"it has no {columns.side} answer")
    if isinstance(record.get("caption"), str):
        return record["caption"], None
    raise BadRow("it has no field 'text'")


def _answer(record: dict[str, Any], side: str) -> Any:
    """Of a preference pair, as (chosen, rejected) or, like Align-Anything's, as two responses and the better one's
    number."""
    if record.get(side) is not None:
        return record[side]
    better = record.get("overall_response")
    if better not in (1, 2, "1", "2"):
        return None
    number = int(better) if side == "chosen" else 3 - int(better)
    return record.get(f"response_{number}")


def _turns(value: Any) -> list[str]:
    """Texts of a conversation: of LLaVA (`from`, `value`), of chat templates (`role`, `content`), or one string."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):  # a table keeps a list of turns as lists of their parts
        contents = value.get("value", value.get("content"))
        value = [{"value": content} for content in contents] if isinstance(contents, list) else None
    if not isinstance(value, list) or not value:
        raise BadRow("its conversation is not a list of turns")
    said = []
    for turn in value:
        content = turn.get("value", turn.get("content")) if isinstance(turn, dict) else turn
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "\n".join(str(part.get("text") or "") for part in parts)
        if not isinstance(content, str):
            raise BadRow("a turn of its conversation has no text")
        said.append(content)
    return said


def _unmarked(turns: list[str], n_images: int) -> str:
    """Turns, one after the other on lines of their own, without the marks for images."""
    marks = sum(turn.count(MARK) for turn in turns)
    if marks > n_images:
        raise BadRow(f"its text speaks of {marks} images, and it has {n_images}")
    bare = [turn.replace(" " + MARK, "").replace(MARK, "").strip() for turn in turns]
    return "\n".join(turn for turn in bare if turn)


# ---- images


def _images(record: dict[str, Any], field: str, folder: Path, mixed: bool) -> tuple[Source, ...]:
    value = record.get(field)
    given = value if isinstance(value, list) else [value]
    if value is None or not given:
        if mixed:
            return ()
        raise BadRow(f"it has no field {field!r}" if not field.startswith("__") else "it has no image")
    return tuple(_image(one, field, folder) for one in given)


def _image(one: Any, field: str, folder: Path) -> Source:
    if isinstance(one, BadRow):
        raise one
    if isinstance(one, Place):
        return one
    if not isinstance(one, str) or not one:
        raise BadRow(f"its field {field!r} is not a path")
    path = folder / one
    try:
        there = "\0" not in one and path.is_file()
    except OSError:  # a name that no file system takes
        there = False
    if not there:
        raise BadRow(f"there is no image {one[:200]}")
    return path
