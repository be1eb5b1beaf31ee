import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from precompute.data.images import header_size, open_image
from precompute.data.records import BadRow, Columns
from precompute.data.rows import read
from precompute.errors import SaevxError
from tests.helpers import tiny
from tests.helpers.hostile.images import png


def folder_of(folder: Path, *lines: Any) -> Path:
    """An imagefolder with pictures a.png … and these lines; a str or bytes stands as it is."""
    folder.mkdir(exist_ok=True)
    for name in "abc":
        tiny.picture(ord(name)).save(folder / f"{name}.png")
    raw = [
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
        for line in lines
    ]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    return folder


def test_imagefolder_keeps_ids_and_other_fields(tmp_path: Path) -> None:
    data = read(
        folder_of(
            tmp_path / "d",
            {"file_name": "a.png", "text": "one", "id": "first", "colour": "red"},
            {"file_name": "b.png", "text": ""},
            "",
            {"file_name": "c.png", "text": "three", "id": 7},
        )
    )
    assert [(row.index, row.sample_id, row.text) for row in data.rows] == [
        (0, "first", "one"),
        (1, "1", ""),
        (2, "7", "three"),
    ]
    assert data.rows[0].extra == {"file_name": "a.png", "colour": "red"}
    assert data.rows[2].source == "metadata.jsonl:4"
    assert not data.rejected_rows and not data.text_only and data.n_rows == 3


def test_jsonl_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures")
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"image": ["pictures/a.png", "pictures/b.png"], "text": "two"}) + "\n")
    assert read(path).rows[0].images == (tmp_path / "pictures/a.png", tmp_path / "pictures/b.png")


def test_jsonl_without_any_image_is_text_only(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two", "image": null}\n')
    data = read(path)
    assert data.text_only and [row.images for row in data.rows] == [(), ()]


GOOD = {"file_name": "a.png", "text": "good", "id": "good"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        (b'{"file_name": "a.png", "text": "\xff"}', "not valid Unicode"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "not valid Unicode"),
        ({"file_name": "a.png"}, "no field 'text'"),
        ({"file_name": "a.png", "text": None}, "no field 'text'"),
        ({"file_name": "a.png", "text": 5}, "not a string"),
        ({"text": "x"}, "no field 'file_name'"),
        ({"file_name": 3, "text": "x"}, "not a path"),
        ({"file_name": "gone.png", "text": "x"}, "no image gone.png"),
        ({"file_name": "a\0.png", "text": "x"}, "no image"),
        ({"file_name": "b.png", "text": "x", "id": "good"}, "stands in an earlier row"),
        ({"file_name": "b.png", "text": "x", "id": [1]}, "neither a string nor"),
        ({"file_name": "b.png", "text": "x", "id": True}, "neither a string nor"),
        ({"file_name": "b.png", "text": "x", "id": "é" * 2049}, "more than 4,096 bytes"),
        ("[" * 100_000, "not valid JSON"),
        ('{"file_name": "a.png", "text": "x", "n": NaN}', "not valid JSON"),
        ('{"file_name": "a.png", "text": "x", "n": 1e999}', "not valid JSON"),
        ({"file_name": "a" * 5000, "text": "x"}, "no image aaa"),
        ({"file_name": "b.png", "conversations": 5}, "not a list of turns"),
        ({"file_name": "b.png", "conversations": [{"from": "human"}]}, "no text"),
        ({"file_name": "b.png", "conversations": [{"value": "<image><image> two?"}]}, "2 images, and it has 1"),
        ({"file_name": "b.png", "prompt": "p", "chosen": None, "rejected": "r"}, "no chosen answer"),
    ],
)
def test_bad_rows_are_set_aside_with_their_reason(tmp_path: Path, line: Any, reason: str) -> None:
    data = read(folder_of(tmp_path / "d", GOOD, line, {"file_name": "c.png", "text": "after"}))
    assert [row.sample_id for row in data.rows] == ["good", "2"]
    assert [bad.index for bad in data.rejected_rows] == [1]
    assert reason in data.rejected_rows[0].reason


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_mixed_rows_without_an_image_are_text_alone_where_asked(tmp_path: Path) -> None:
    lines = [
        {"file_name": "a.png", "text": "one"},
        {"text": "two"},
        {"file_name": None, "text": "three"},
        {"file_name": "gone.png", "text": "four"},
    ]
    folder = folder_of(tmp_path / "d", *lines)
    mixed = read(folder, Columns(mixed=True))
    assert [(row.text, len(row.images)) for row in mixed.rows] == [("one", 1), ("two", 0), ("three", 0)]
    assert [bad.index for bad in mixed.rejected_rows] == [3] and not mixed.text_only
    assert [row.text for row in read(folder).rows] == ["one"]


def test_columns_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures")
    record = {"picture": "a.png", "line": "one", "key": "k", "text": "another", "id": 3}
    path = lines(tmp_path / "pairs.jsonl", record)
    data = read(path, Columns("picture", "line", "key", folder=tmp_path / "pictures"))
    (row,) = data.rows
    assert (row.sample_id, row.text, row.images) == ("k", "one", (tmp_path / "pictures/a.png",))
    assert row.extra == record, "what is not called so stays"
    with pytest.raises(SaevxError, match="--image-column"):
        read(path, Columns("photo"))
    with pytest.raises(SaevxError, match="no field 'words'"):
        read(path, Columns("picture", "words", folder=tmp_path / "pictures"))


@pytest.mark.parametrize("name", ["llava.json", "llava.jsonl"])
def test_conversations_of_llava(tmp_path: Path, name: str) -> None:
    """One JSON list, as LLaVA's files are, or lines; two images in one row; the marks are no text."""
    folder_of(tmp_path / "pictures")
    message = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]
    both = [{"from": "human", "value": "Is <image> like <image>?"}, {"from": "gpt", "value": "No."}]
    records = [
        {"id": "one", "image": "pictures/a.png", "conversations": message},
        {"id": "two", "image": ["pictures/a.png", "pictures/b.png"], "conversations": both},
        {"id": "three", "conversations": [{"from": "human", "value": "Hello"}]},
    ]
    path = lines(tmp_path / name, *records)
    if path.suffix == ".json":
        path.write_text(json.dumps([*records, "no object"], indent=1))
    data = read(path)
    assert [(row.sample_id, row.text, len(row.images)) for row in data.rows] == [
        ("one", "What is it?\nA dog.", 1),
        ("two", "Is like?\nNo.", 2),
    ]
    assert data.rows[0].extra == {"conversations": message, "image": "pictures/a.png"}
    reasons = [(bad.sample_id, bad.reason) for bad in data.rejected_rows]
    assert reasons[0] == ("three", "it has no field 'image'")
    assert reasons[1:] == ([(None, "it is not a JSON object")] if path.suffix == ".json" else [])


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Which?", "chosen": "This.", "rejected": "That."},
        {"question": "Which?", "response_1": "That.", "response_2": "This.", "overall_response": 2},
        {
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}],
            "chosen": [{"role": "assistant", "content": "This."}],
            "rejected": [{"role": "assistant", "content": "That."}],
        },
    ],
    ids=["strings", "align-anything", "chat"],
)
def test_preference_pairs(tmp_path: Path, record: dict[str, Any]) -> None:
    path = lines(tmp_path / "pairs.jsonl", record)
    assert read(path).rows[0].text == "Which?\nThis."
    assert read(path, Columns(side="rejected")).rows[0].text == "Which?\nThat."
    assert read(path).rows[0].extra == record


@pytest.mark.parametrize("make", [lambda p: p / "nothing", lambda p: p, lambda p: folder_of(p / "d", "{")])
def test_no_data_says_what_to_give(tmp_path: Path, make: Any) -> None:
    with pytest.raises(SaevxError):
        read(make(tmp_path))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (png(60_000, 60_000), "million"),
        (png(20_000, 4), "strip"),
        (png(10, 10), "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer .* run `git lfs pull`"),
    ],
)
def test_what_is_no_picture_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        open_image(raw)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(tiny.picture(0, (200, 200)))[:-400])
    with pytest.raises(BadRow) as caught:
        open_image(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_a_broken_exif_is_none(kind: str, tmp_path: Path) -> None:
    image, path = tiny.picture(3, (60, 40)), tmp_path / "image"
    image.save(path, kind, exif=b"Exif\0\0broken and more", **({} if kind == "PNG" else {"quality": 100}))
    decoded = open_image(path).image
    assert decoded.size == header_size(path) == (60, 40)
    assert decoded.tobytes() == Image.open(path).convert("RGB").tobytes()


def test_pictures_become_rgb() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(encoded(clear)).image.getpixel((0, 0)) == (255, 255, 255)
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert open_image(encoded(grey)).image.getpixel((0, 0)) == (128, 128, 128)
    turned = Image.new("RGB", (6, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert open_image(encoded(turned, "JPEG", exif=exif)).image.size == (4, 6)


NAMES = st.sampled_from(
    ["text", "image", "file_name", "id", "conversations", "prompt", "chosen", "caption", "messages"]
)
TEXT = st.text(max_size=8) | st.sampled_from(["a.png", "a\0.png", "<image>", "../a.png", "a" * 300])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("value"), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=5)
LINES = st.lists((RECORDS | VALUES).map(json.dumps).map(str.encode) | st.binary(max_size=20))


@given(LINES, st.sampled_from([".jsonl", ".json"]), st.booleans())
def test_any_lines_become_rows_or_are_set_aside(
    tmp_path_factory: pytest.TempPathFactory, raw: list[bytes], suffix: str, rejected: bool
) -> None:
    """All rows, each once, whatever the lines hold; what is refused altogether is refused in one sentence."""
    folder = tmp_path_factory.getbasetemp() / "lines"
    folder.mkdir(exist_ok=True)
    if not (folder / "a.png").exists():
        tiny.picture(0).save(folder / "a.png")
    path = folder / f"rows{suffix}"
    path.write_bytes(b"\n".join([*raw, json.dumps({"image": "a.png", "text": "good", "id": "the good one"}).encode()]))
    data = read(path, Columns(side="rejected" if rejected else "chosen"))
    n_rows = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    assert data.n_rows == n_rows
    assert sorted([row.index for row in data.rows] + [bad.index for bad in data.rejected_rows]) == list(range(n_rows))
    assert len({row.sample_id for row in data.rows}) == len(data.rows)
    for row in data.rows:
        json.dumps([row.text, row.extra], allow_nan=False, ensure_ascii=False).encode()
        assert all(isinstance(image, Path) and image.is_file() for image in row.images)
    assert all(bad.reason and "\n" not in bad.reason for bad in data.rejected_rows)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"II*\0",
    ):
        with pytest.raises(BadRow):
            open_image(start + raw)
