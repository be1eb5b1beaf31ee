"""From records to rows: the text, the images and the id of each, or why it is rejected."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from precompute.data.disk.id_set import IdSet
from precompute.data.disk.row_table import RowTableWriter
from precompute.data.paths import ImageRoot
from precompute.data.records import BadRow, Columns, Data, EmbeddedImage, RejectedRow, Row, Source, key_of, no_rows
from precompute.data.rejections import all_rejected_message, kind_of
from precompute.data.survey import Survey, list_fields, survey
from precompute.errors import SaevxError

LONGEST_ID = 4096
"""Bytes: as long as a path of Linux may be; servers take addresses of twice that."""
MARK = "<image>"
"""Where LLaVA's conversations have an image; our pairs are [images][text] whatever the model."""
ALL_REJECTED = "every row with an image is rejected"


def read(source: str | Path, columns: Columns | None = None, scratch: Path | None = None) -> Data:
    """All rows of DATA.

    Args:
        scratch: folder with space for the texts and other fields of many rows; None is the system's for temporary
            files.

    Raises:
        SaevxError: there is no such data, or no usable row in it.
    """
    columns = columns or Columns()
    view = survey(str(source), columns)
    writer = RowTableWriter(scratch)
    rejected_rows: list[RejectedRow] = []
    for item in stream(view, IdSet().add, columns):
        if isinstance(item, Row):
            writer.append(item)
        else:
            rejected_rows.append(item)
    rows = writer.rows()
    if not rows and not rejected_rows:
        raise no_rows(source)
    if not rows:
        fields = f" ({list_fields(view.fields)})" if view.fields else ""
        raise SaevxError(all_rejected_message(f"{source} holds no usable row{fields}", rejected_rows, columns.id))
    guess = view.image if view.guess and view.image else ""
    no_image = _no_image(view, rows, rejected_rows)
    return Data(view.listing.name, rows, rejected_rows, view.image is None, view.listing.files, no_image, guess)


def _no_image(view: Survey, rows: Sequence[Row], rejected_rows: list[RejectedRow]) -> str:
    """Why no row has an image, as a clause, where some should; else empty."""
    if view.image is not None:
        return "" if any(row.images for row in rows) else ALL_REJECTED
    n_marks = sum(kind_of(r.reason) == "image-marks" for r in rejected_rows)
    return view.no_image or (f"the texts of {n_marks} rows speak of images" if n_marks else "")


def stream(view: Survey, is_new: Callable[[str], bool], columns: Columns) -> Iterator[Row | RejectedRow]:
    """The rows of DATA one by one, for data of any length.

    Args:
        is_new: notes an id and says whether it is the first of its kind.
    """
    root, field = ImageRoot.from_listing(view.listing, columns), view.image
    for index, (where, record) in enumerate(view.listing.records()):
        sample_id: str | None = None
        try:
            if isinstance(record, BadRow):
                raise record
            sample_id = _id(record, columns.id or "id", index)
            if not is_new(sample_id):
                raise BadRow(f"its id {sample_id!r} stands in an earlier row")
            key = None if field is None else key_of(record, field)
            images = () if key is None else _images(record, key, root, columns.mixed)
            text, text_field = _text(record, columns, None if columns.text_only else len(images))
            used_names = {text_field, "id" if columns.id in (None, "id") else None}
            # An image's name is one of the row's own fields; its bytes are not.
            are_names = key is None or _are_names(record.get(key))
            if not are_names:
                used_names.add(key)
            extras = {name: value for name, value in record.items() if name not in used_names}
            yield Row(index, sample_id, text, images, extras, where)
        except BadRow as error:
            yield RejectedRow(index, sample_id, str(error))


def guess_line(field: str) -> str:
    """What is said where the images were looked for in a field with an unusual name."""
    return f"images: those that the field {field!r} names; name another with --image-column"


def refuse_no_image(source: str, model: str, no_image: str) -> None:
    """Raises SaevxError, with the ways out, where a model that reads images gets none and the data looks as if it had
    some."""
    if no_image:
        raise SaevxError(
            f"{source} gives {model}, which reads images, not a single one ({no_image}): name their field with "
            "--image-column, or read the text alone with --text-only."
        )


def _are_names(value: Any) -> bool:
    return all(isinstance(part, str) for part in value) if isinstance(value, list) else isinstance(value, str)


def _id(record: dict[str, Any], field: str, index: int) -> str:
    value = record.get(key_of(record, field) if field != "id" else field)
    if value is None:
        return str(index)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow("its id is neither a string nor a whole number")
    sample_id = str(value)
    if len(sample_id.encode("utf-8", "surrogatepass")) > LONGEST_ID:
        raise BadRow(f"its id has more than {LONGEST_ID:,} bytes, which no address can carry")
    return sample_id


# ---- text


def _text(record: dict[str, Any], columns: Columns, n_images: int | None) -> tuple[str, str | None]:
    """The text, and the field that it is, where that is called `text`.

    Looked for in this order: `text`, a conversation, a preference pair, `caption`; in other cases where none is there.

    Args:
        n_images: which the marks in a conversation must not exceed; None where images are left out.
    """
    if columns.text is not None:
        return _field(record, key_of(record, columns.text), n_images)
    for fields in (record, {name.lower(): value for name, value in record.items()}):
        if (conversation := _conversation(fields, columns.side, n_images)) is not None:
            return conversation if fields is record else (conversation[0], None)
    raise BadRow("it has no field 'text'")


def _field(record: dict[str, Any], field: str, n_images: int | None) -> tuple[str, str | None]:
    value = record.get(field)
    if value is None:
        raise BadRow(f"it has no text (no field {field!r})")
    if isinstance(value, list | dict):
        return _without_marks(_turns(value), n_images), None
    if not isinstance(value, str):
        raise BadRow(f"its field {field!r} is not a string")
    return value, "text" if field == "text" else None


def _conversation(record: dict[str, Any], side: str, n_images: int | None) -> tuple[str, str | None] | None:
    """Text and field as `_text`, from the fields with usual names; None where there is none."""
    if record.get("text") is not None:
        return _field(record, "text", n_images)
    for field in ("conversations", "messages"):
        if record.get(field) is not None:
            return _without_marks(_turns(record[field]), n_images), None
    prompt = next((name for name in ("prompt", "question") if record.get(name) is not None), None)
    answer = _answer(record, side)
    if prompt is not None and answer is not None:
        return _without_marks([*_turns(record[prompt]), *_turns(answer)], n_images), None
    if prompt is not None and ("chosen" in record or "response_1" in record):
        raise BadRow(f"it has no {side} answer")
    return (record["caption"], None) if isinstance(record.get("caption"), str) else None


def _answer(record: dict[str, Any], side: str) -> Any:
    """Of a preference pair, as (chosen, rejected) or, like Align-Anything's, as two responses and the better one's
    number."""
    if record.get(side) is not None:
        return record[side]
    choice = record.get("overall_response")
    if choice not in (1, 2, "1", "2"):
        return None
    number = int(choice) if side == "chosen" else 3 - int(choice)
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
    contents = []
    for turn in value:
        content = turn.get("value", turn.get("content")) if isinstance(turn, dict) else turn
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "\n".join(str(part.get("text") or "") for part in parts)
        if not isinstance(content, str):
            raise BadRow("a turn of its conversation has no text")
        contents.append(content)
    return contents


def _without_marks(turns: list[str], n_images: int | None) -> str:
    """Turns, one after the other on lines of their own, without the marks for images."""
    marks = sum(turn.count(MARK) for turn in turns)
    if n_images is not None and marks > n_images:
        raise BadRow(f"its text speaks of {marks} images, and it has {n_images}")
    plain_turns = [turn.replace(" " + MARK, "").replace(MARK, "").strip() for turn in turns]
    return "\n".join(turn for turn in plain_turns if turn)


# ---- images


def _images(record: dict[str, Any], field: str, root: ImageRoot, allows_none: bool) -> tuple[Source, ...]:
    value = record.get(field)
    if value is None or value == "" or value == []:
        if allows_none:
            return ()
        raise BadRow("it has no image" if field.startswith("__") else f"it has no field {field!r}")
    return tuple(_image(item, field, root) for item in (value if isinstance(value, list) else [value]))


def _image(item: Any, field: str, root: ImageRoot) -> Source:
    if isinstance(item, BadRow):
        raise item
    if not isinstance(item, str | dict) and isinstance(item, EmbeddedImage):  # which is slow to ask of a protocol
        return item
    if isinstance(item, dict):  # as `datasets` writes an image whose bytes stand in a file
        item = item.get("path")
    if not isinstance(item, str) or not item:
        raise BadRow(f"its field {field!r} is not a path")
    return root.file(item)
