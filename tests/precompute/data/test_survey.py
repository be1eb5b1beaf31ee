"""Where the images of a data set are, and what is said where they cannot be found."""

import json
from pathlib import Path
from typing import Any

import pytest

from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.errors import SaevxError
from tests.helpers import tiny


def folder_of(folder: Path, *rows: Any, name: str = "metadata.jsonl") -> Path:
    """A folder with images 0.png … and these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(4):
        tiny.picture(i).save(folder / f"{i}.png")
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def rows_of(field: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
    values = [f"{i}.png" for i in range(4)] if values is None else values
    return [{field: value, "text": f"text {i}"} for i, value in enumerate(values)]


FIELDS = [
    "file_name", "File_Name", "FILE_NAMES", "image", "Image", "images", "IMAGES", "filename", "image_path", "ImagePath",
    "img", "path", "file_path", "picture", "photo", "url", "some_field",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("by", ["folder", "file"])
def test_images_are_found_whatever_their_field_is_called(tmp_path: Path, field: str, by: str) -> None:
    folder = folder_of(tmp_path / "d", *rows_of(field))
    data = read(folder if by == "folder" else folder / "metadata.jsonl")
    assert [row.images for row in data.rows] == [(folder / f"{i}.png",) for i in range(4)]
    assert not data.text_only and not data.no_image and data.rows[0].extra == {field: "0.png"}
    usual = field.lower() in ("file_name", "file_names", "image", "images")
    assert data.guess == ("" if usual else field)


def test_a_folder_and_its_metadata_by_name_are_read_alike(tmp_path: Path) -> None:
    """Even where two fields could be meant."""
    folder = folder_of(tmp_path / "d", {"file_name": "0.png", "image": "1.png", "text": "a"})
    assert read(folder).rows == read(folder / "metadata.jsonl").rows
    assert read(folder).rows[0].images == (folder / "0.png",)


def test_a_name_of_images_goes_before_other_names(tmp_path: Path) -> None:
    rows = [{"mask": "1.png", "photo": "0.png", "text": "a"}]
    assert read(folder_of(tmp_path / "d", *rows)).rows[0].images == (tmp_path / "d" / "0.png",)


NONE_FOUND = {
    "two": ({"photo": "0.png", "image_path": "1.png"}, "photo, image_path all name image files"),
    "elsewhere": ({"image_path": "x/0.png"}, "--image-folder"),
    "null": ({"image": None}, "'image' names no image"),
    "empty": ({"images": []}, "'images' names no image"),
    "number": ({"image_id": 397133}, "'image_id' names no image"),
    "web": ({"url": "http://example.com/a.jpg?w=200"}, "addresses on the web: download"),
    "web of another case": ({"URL": "https://example.com/a.PNG"}, "addresses on the web"),
    "by value": ({"file": "x/0.webp"}, "'file'"),
    "no URL": ({"url": "http://[example/a.jpg"}, "addresses on the web"),
}


@pytest.mark.parametrize("case", NONE_FOUND)
def test_images_that_are_not_found_are_missed(tmp_path: Path, case: str) -> None:
    fields, words = NONE_FOUND[case]
    data = read(folder_of(tmp_path / "d", *({**fields, "text": "a"} for _ in range(3))))
    assert data.text_only and words in data.no_image and len(data.rows) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label": 3},
        {"url": "https://example.com/an/article"},
        {"path": "src/main.py"},
        {"image_caption": "a dog"},
        {"caption": "see photo.jpg for more"},
        {"source": None},
        {"imagination": "0"},
    ],
)
def test_data_without_a_field_for_images_is_text_alone(tmp_path: Path, fields: dict[str, Any]) -> None:
    data = read(folder_of(tmp_path / "d", *({**fields, "text": "a"} for _ in range(3))))
    assert data.text_only and not data.no_image and not data.guess


def test_rows_with_images_of_which_none_is_left_are_no_text_alone(tmp_path: Path) -> None:
    rows = [{"file_name": "gone.png", "text": "a"}, {"text": "b"}]
    data = read(folder_of(tmp_path / "d", *rows), Columns(mixed=True))
    assert [row.text for row in data.rows] == ["b"] and data.no_image == "every row with an image is rejected"


def test_images_in_the_last_rows_alone_are_found_or_missed(tmp_path: Path) -> None:
    """Of a field with an unusual name too, a thousand texts before."""
    texts = [{"text": f"text {i}"} for i in range(1100)]
    data = read(folder_of(tmp_path / "d", *texts, {"photo": "0.png", "text": "last"}), Columns(mixed=True))
    assert data.guess == "photo" and len(data.rows[-1].images) == 1
    assert read(folder_of(tmp_path / "e", *texts, {"photo": "gone.png", "text": "last"})).no_image


def test_texts_that_speak_of_images_miss_them(tmp_path: Path) -> None:
    message = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    data = read(folder_of(tmp_path / "d", {"text": "a"}, {"conversations": message}, {"conversations": message}))
    assert data.no_image == "the texts of 2 rows speak of images" and len(data.rows) == 1


def test_data_in_the_home_folder_that_the_shell_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder_of(tmp_path / "d", *rows_of("file_name"))
    assert len(read("~/d").rows) == len(read("~/d/metadata.jsonl").rows) == 4
    for odd in ("~nobody-has-this-name/d", "a\0b", "x" * 5000):
        with pytest.raises(SaevxError):
            read(odd)


def test_text_only_leaves_images_out_and_needs_none(tmp_path: Path) -> None:
    message = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    rows = [{"image": "gone.png", "text": "one"}, {"image": "0.png", "conversations": message}, {"text": "three"}]
    data = read(folder_of(tmp_path / "d", *rows), Columns(text_only=True))
    assert [(row.text, row.images) for row in data.rows] == [("one", ()), ("What?\nA dog.", ()), ("three", ())]
    assert data.text_only and not data.no_image and data.rows[0].extra == {"image": "gone.png"}


def test_a_field_that_no_row_has_is_refused_with_those_that_they_have(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", *rows_of("file_name"))
    for columns, option in (
        (Columns(image="photo"), "--image-column"),
        (Columns(text="words"), "--text-column"),
        (Columns(id="key"), "--id-column; row numbers the rows"),
    ):
        with pytest.raises(SaevxError, match="its rows have the fields file_name, text") as caught:
            read(folder, columns)
        assert option in str(caught.value)


def test_fields_are_named_in_any_case(tmp_path: Path) -> None:
    rows = [{"Photo": f"{i}.png", "Words": "a", "Key": f"k{i}"} for i in range(2)]
    data = read(folder_of(tmp_path / "d", *rows), Columns("PHOTO", "words", "KEY"))
    assert [(row.sample_id, row.text, len(row.images)) for row in data.rows] == [("k0", "a", 1), ("k1", "a", 1)]
    data = read(folder_of(tmp_path / "e", {"Image": "0.png", "TEXT": "a"}, {"IMAGE": "1.png", "Caption": "b"}))
    assert [(row.text, row.images) for row in data.rows] == [
        ("a", (tmp_path / "e" / "0.png",)),
        ("b", (tmp_path / "e" / "1.png",)),
    ]


def test_rows_are_numbered_on_request(tmp_path: Path) -> None:
    """`row`, unless the rows have a field of that name."""
    rows = [{"file_name": f"{i}.png", "text": "a", "id": "same"} for i in range(3)]
    data = read(folder_of(tmp_path / "d", *rows), Columns(id="row"))
    assert [row.sample_id for row in data.rows] == ["0", "1", "2"] and data.rows[1].extra["id"] == "same"
    own = [{**row, "row": f"r{i}"} for i, row in enumerate(rows)]
    data = read(folder_of(tmp_path / "e", *own), Columns(id="row"))
    assert [row.sample_id for row in data.rows] == ["r0", "r1", "r2"]


# ---- paths


def test_paths_as_other_systems_and_programs_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "d")
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = [
        ".\\0.png", str(folder / "1.png"), "~/d/2.png", (folder / "3.png").as_uri(), "../d/0.png",
        {"path": "1.png", "bytes": None},
    ]  # fmt: skip
    data = read(folder_of(folder, *rows_of("image", paths)))
    result = [row.images[0] for row in data.rows]
    assert [Path(str(image)).resolve().name for image in result] == [f"{i}.png" for i in (0, 1, 2, 3, 0, 1)]


def test_what_is_no_image_file_is_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "folder.png").mkdir(parents=True)
    odd = [
        "folder.png", "~nobody-has-this-name/0.png", "http://[example/0.png", "data:image/png;base64,iVBORw0KGgo=",
        "a" * 5000, "", ".", "/", "file://[x/0.png", "file://\0", {"url": "0.png"}, [["0.png"]], 5, True,
    ]  # fmt: skip
    data = read(folder_of(folder, *rows_of("image", ["0.png", *odd])))
    assert len(data.rows) == 1 and [bad.index for bad in data.rejected_rows] == list(range(1, len(odd) + 1))
    assert "address on the web" in data.rejected_rows[2].reason
    assert all(len(bad.reason) < 300 for bad in data.rejected_rows)


# ---- odd files


def test_unreadable_metadata_is_one_sentence(tmp_path: Path) -> None:
    for name, raw, words in [
        ("utf16.jsonl", '{"text": "a"}\n'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("lfs.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("packed.jsonl", b"\x1f\x8b\x08 packed", "compressed: unpack it"),
        ("packed.jsonl.gz", b"\x1f\x8b\x08 packed", "compressed: unpack it"),
        ("latin.jsonl", '{"text": "é"}\n'.encode("latin-1"), "not valid Unicode"),
        ("coco.json", b'{"images": [{"id": 1}], "annotations": [{"caption": "a"}]}', "with lists in it (images, annot"),
        ("named.json", b'{"a": {"text": "x"}, "b": {"text": "y"}}', "object of objects (a, b): give a list"),
        ("cut.json", b'[{"text": "a"},\n{"text": "b"},\n{"te', "not valid JSON"),
    ]:
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(SaevxError, match=name) as caught:
            read(tmp_path / name)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "metadata.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_whatever_the_file_is_called(tmp_path: Path, name: str, indent: int | None) -> None:
    text = json.dumps([{"text": "é", "id": "a"}, {"text": "b", "id": "b"}], indent=indent)
    for start in ("", "\ufeff", "\n\n"):
        (tmp_path / name).write_text(start + text, encoding="utf-8")
        assert [row.sample_id for row in read(tmp_path / name).rows] == ["a", "b"]
    (tmp_path / name).write_text(json.dumps({"text": "one", "id": "a"}, indent=indent))
    assert [row.text for row in read(tmp_path / name).rows] == ["one"]


def test_a_mark_of_the_byte_order_is_no_part_of_a_line(tmp_path: Path) -> None:
    """Also where files that begin with one were joined."""
    (tmp_path / "rows.jsonl").write_text('\ufeff{"text": "a"}\n\ufeff{"text": "b"}\n', encoding="utf-8")
    assert [row.text for row in read(tmp_path / "rows.jsonl").rows] == ["a", "b"]


def test_a_broken_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"\n{"text": "b"}\n{"text": "c"}\n')
    data = read(tmp_path / "rows.jsonl")
    assert [row.text for row in data.rows] == ["b", "c"] and data.rejected_rows[0].index == 0


# ---- images with a text beside each


def test_images_with_a_text_beside_each_are_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    for place, suffix in ((folder, ".txt"), (folder / "more", ".Caption")):
        place.mkdir(exist_ok=True)
        for i in range(2):
            tiny.picture(i).save(place / f"{i}.png")
            (place / f"{i}{suffix}").write_text(f"{place.name} {i}\n")
    tiny.picture(5).save(folder / "bare.PNG")
    tiny.picture(5).save(folder / "odd.png")
    (folder / "odd.txt").write_bytes(b"\xff\xfe\xff")
    (folder / "README.txt").write_text("no caption")
    (folder / "zebra-caf\udce9.png").touch()
    data = read(folder)
    assert [(row.sample_id, row.text, row.extra["file_name"]) for row in data.rows] == [
        ("0.png", "lora 0", "0.png"),
        ("1.png", "lora 1", "1.png"),
        ("more/0.png", "more 0", "more/0.png"),
        ("more/1.png", "more 1", "more/1.png"),
    ]
    assert [row.images for row in data.rows][2] == (folder / "more/0.png",)
    assert [bad.reason for bad in data.rejected_rows] == [
        "it has no text (no file bare.txt beside bare.PNG)",
        "its text file odd.txt is not valid Unicode (UTF-8)",
        "its image's name zebra-caf\\xe9.png is not valid Unicode (UTF-8)",
    ]
    folder_of(folder, {"file_name": "0.png", "text": "described"})
    assert [row.text for row in read(folder).rows] == ["described"], "metadata.jsonl goes before"
