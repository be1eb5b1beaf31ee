"""Tables without images, without rows, in folders with odd names: read by `datasets` itself."""

from pathlib import Path
from typing import Any

import pytest

from precompute.data.images import open_image
from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.errors import SaevxError
from tests.helpers import tiny
from tests.helpers.tiny import png


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def pixels(image: Any) -> bytes:
    return open_image(image).image.tobytes()


def parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


TEXTS = ["one", "two", "three"]


def table_of_texts(form: str, folder: Path) -> Path:
    """A table of TEXTS and of nothing that could be an image."""
    import datasets

    folder.mkdir(parents=True)
    if form == "parquet":
        return parquet(folder / "x.parquet", text=TEXTS, n=[1, 2, 3])
    if form == "saved":
        datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(folder / "saved")
        return folder / "saved"
    if form == "splits":
        made = datasets.Dataset.from_dict({"text": TEXTS})
        datasets.DatasetDict({"train": made, "test": made.select([])}).save_to_disk(folder / "splits")
        return folder / "splits"
    suffix = form.removesuffix(" folder")
    lines = {"csv": "text,n\n" + "".join(f"{text},1\n" for text in TEXTS), "txt": "".join(f"{t}\n" for t in TEXTS)}
    lines["tsv"] = lines["csv"].replace(",", "\t")
    (folder / f"x.{suffix}").write_text(lines[suffix])
    return folder if form.endswith("folder") else folder / f"x.{suffix}"


FORMS = ["parquet", "saved", "splits", "csv", "csv folder", "tsv", "tsv folder", "txt", "txt folder"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text_only", [False, True])
def test_a_table_of_texts_is_text_alone(tmp_path: Path, form: str, text_only: bool) -> None:
    data = read(table_of_texts(form, tmp_path / "t"), Columns(text_only=text_only))
    assert [(row.text, row.images) for row in data.rows] == [(text, ()) for text in TEXTS]
    assert data.text_only and not data.no_image


@pytest.mark.parametrize("form", ["parquet", "saved", "splits", "csv", "csv folder", "tsv", "txt"])
@pytest.mark.parametrize("place", ["[x]", "a*b", "what is it?", "50% {a}", "my data 猫"])
def test_no_folder_is_taken_for_a_pattern(tmp_path: Path, form: str, place: str) -> None:
    """Nor are the files of another folder that it would fit."""
    source = table_of_texts(form, tmp_path / place)
    table_of_texts(form, tmp_path / "x")
    table_of_texts(form, tmp_path / "a-b")
    assert [row.text for row in read(source).rows] == TEXTS
    if source.is_file():
        assert [row.text for row in read(str(source.parent / f"*{source.suffix}")).rows] == TEXTS


def test_images_named_in_a_table_of_an_odd_folder(tmp_path: Path) -> None:
    folder = tmp_path / "[images]"
    folder.mkdir()
    tiny.picture(1).save(folder / "a.png")
    (folder / "metadata.csv").write_text("File_Name,text\na.png,one\n")
    assert read(folder).rows[0].images == (folder / "a.png",)
    (folder / "sub").mkdir()
    (folder / "metadata.tsv").write_text("x\ty\n1\t2\n")
    with pytest.raises(SaevxError, match="rename the folder"):
        read(folder)
    table_of_texts("parquet", tmp_path / "a::b")
    with pytest.raises(SaevxError, match="rename it"):
        read(tmp_path / "a::b" / "x.parquet")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "metadata.csv"])
def test_cells_of_a_csv_are_what_they_say(tmp_path: Path, name: str) -> None:
    """An id keeps its zeros, the word NA is a text, and a number is one; an empty cell is none."""
    for image in ("a.png", "b.png"):
        tiny.picture(1).save(tmp_path / image)
    lines = ["\ufefffile_name,text,id,kind,score,code", "b.png,NA,007,1,0.5,007", "a.png,5,1.0,-3,,1e5"]
    text = "\r\n".join(lines).replace(",", "\t" if name.endswith("tsv") else ",")
    (tmp_path / name).write_text(text, encoding="utf-8")
    data = read(tmp_path if name == "metadata.csv" else tmp_path / name)
    assert [(row.sample_id, row.text) for row in data.rows] == [("007", "NA"), ("1.0", "5")]
    fields = [{key: row.extra[key] for key in ("kind", "score", "code")} for row in data.rows]
    assert fields == [{"kind": 1, "score": 0.5, "code": "007"}, {"kind": -3, "score": None, "code": "1e5"}]
    assert [row.images for row in data.rows] == [(tmp_path / "b.png",), (tmp_path / "a.png",)]


def test_columns_of_several_csvs_are_matched_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a dog\n")
    (tmp_path / "b.csv").write_text("text,id\na cat,2\n")
    assert [(row.sample_id, row.text) for row in read(str(tmp_path / "*.csv")).rows] == [("1", "a dog"), ("2", "a cat")]
    (tmp_path / "a.csv").write_text("id,text,\n1,a dog,\n")
    assert [row.text for row in read(tmp_path / "a.csv").rows] == ["a dog"]
    (tmp_path / "c.csv").write_text("a,text,a.3,a\n1,a dog,2,3\n")
    assert read(tmp_path / "c.csv").rows[0].extra == {"a": 1, "a.3": 2, "a.3.3": 3}
    (tmp_path / "c.csv").unlink()
    with pytest.raises(SaevxError, match="have other columns, some without a name of their own"):
        read(str(tmp_path / "*.csv"))


def test_a_mark_of_the_byte_order_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfa dog\r\na cat\r\n")
    assert [row.text for row in read(tmp_path / "x.txt").rows] == ["a dog", "a cat"]


def test_images_in_columns_of_any_case(tmp_path: Path) -> None:
    data = read(parquet(tmp_path / "x.parquet", Image=[png(1), png(2)], TEXT=["one", "two"]))
    assert [row.text for row in data.rows] == ["one", "two"]
    assert [pixels(row.images[0]) for row in data.rows] == [pixels(png(1)), pixels(png(2))]
    tiny.picture(1).save(tmp_path / "a.png")
    path = parquet(tmp_path / "y.parquet", image_path=["a.png", "a.png"], text=["one", "two"])
    data = read(path)
    assert data.guess == "image_path" and data.rows[0].images == (tmp_path / "a.png",)
    data = read(path, Columns(image="IMAGE_PATH"))
    assert not data.guess and data.rows[0].images == (tmp_path / "a.png",)


def test_a_table_whose_images_are_not_there_is_no_table_of_texts(tmp_path: Path) -> None:
    import pyarrow as pa

    for name, columns, words in [
        ("web", {"url": ["http://example.com/a.jpg"] * 2, "caption": ["a", "b"]}, "addresses on the web"),
        ("WEB", {"URL": ["http://example.com/a.jpg"] * 2, "TEXT": ["a", "b"]}, "addresses on the web"),
        ("null", {"image": pa.array([None, None], pa.binary()), "text": ["a", "b"]}, "'image' names no image"),
        ("path", {"image_path": ["x/a.png", "x/b.png"], "text": ["a", "b"]}, "--image-folder"),
    ]:
        data = read(parquet(tmp_path / f"{name}.parquet", **columns))
        assert [row.text for row in data.rows] == ["a", "b"] and data.text_only and words in data.no_image


def test_text_only_leaves_the_images_of_a_table_out(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", image=[png(1), None], text=["one", "two"], n=[1, 2])
    data = read(path, Columns(text_only=True))
    assert [(row.text, row.images, row.extra) for row in data.rows] == [("one", (), {"n": 1}), ("two", (), {"n": 2})]


def empty_data(form: str, folder: Path) -> Path:
    import datasets
    import pyarrow as pa

    folder.mkdir(parents=True)
    if form == "parquet":
        return parquet(folder / "x.parquet", image=pa.array([], pa.binary()), text=pa.array([], pa.string()))
    if form in ("saved", "split"):
        made = datasets.Dataset.from_dict({"text": ["a"]})
        none = made.select([])
        (none if form == "saved" else datasets.DatasetDict({"train": none, "test": made})).save_to_disk(folder / "s")
        return folder / "s"
    raw = {
        "nothing.jsonl": "", "blank.jsonl": "\n \n\n", "mark.jsonl": "\ufeff",
        "list.json": "[]", "zero.csv": "", "header.csv": "text,n\n",
        "zero.txt": "", "blank.txt": "\n\n", "header.tsv": "text\tn\n",
    }  # fmt: skip
    if form in raw:
        (folder / form).write_text(raw[form])
        return folder / form
    if form == "imagefolder":
        (folder / "metadata.jsonl").write_text("\n")
    if form == "csv folder":
        (folder / "x.csv").write_text("text,n\n")
    return folder


@pytest.mark.parametrize(
    "form",
    [
        "nothing.jsonl", "blank.jsonl", "mark.jsonl", "list.json", "imagefolder", "folder", "parquet", "saved", "split",
        "zero.csv",
        "header.csv", "csv folder", "zero.txt", "blank.txt", "header.tsv",
    ],
)  # fmt: skip
def test_data_without_a_row_is_called_empty(tmp_path: Path, form: str) -> None:
    with pytest.raises(SaevxError, match="is empty: there is no row in it"):
        read(empty_data(form, tmp_path / "t"))


def test_a_table_without_a_row_beside_others(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet(tmp_path / "1.parquet", text=pa.array([], pa.string()))
    parquet(tmp_path / "2.parquet", text=["one"])
    assert [row.text for row in read(tmp_path).rows] == ["one"]
    folder = table_of_texts("csv folder", tmp_path / "csv")
    (folder / "y.csv").write_text("")
    assert [row.text for row in read(folder).rows] == TEXTS
    (folder / "x.csv").write_text("")
    with pytest.raises(SaevxError, match="is empty: there is no row in it"):
        read(folder)
    (tmp_path / "[x]").mkdir()
    with pytest.raises(SaevxError, match="is empty: there is no row in it"):
        read(tmp_path / "[x]")


def test_what_datasets_cannot_read_is_told_with_its_cause(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not that there was an error, and nothing beside the sentence."""
    folder = table_of_texts("csv folder", tmp_path / "csv")
    (folder / "y.csv").write_text("text,other\na,1\n")
    (tmp_path / "latin.csv").write_bytes("text\né\n".encode("latin-1"))
    (tmp_path / "lfs.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "cut.parquet").write_bytes(parquet(tmp_path / "x.parquet", text=["a"] * 50).read_bytes()[:100])
    for source, words in [
        (folder, "[Ss]chema|columns"),
        (tmp_path / "latin.csv", "UTF-8"),
        (tmp_path / "lfs.parquet", "git lfs pull"),
        (tmp_path / "cut.parquet", "Parquet"),
    ]:
        with pytest.raises(SaevxError, match=words) as caught:
            read(source)
        assert "An error occurred" not in str(caught.value) and "\n" not in str(caught.value)
    assert "Failed to read" not in capfd.readouterr().err


def test_texts_kept_as_bytes_are_texts(tmp_path: Path) -> None:
    """As some writers leave strings; they are not taken for the images."""
    path = parquet(tmp_path / "x.parquet", text=[b"one", "zwölf".encode(), b"\xff"], n=[1, 2, 3])
    data = read(path)
    assert [row.text for row in data.rows] == ["one", "zwölf", "1 bytes"] and data.text_only
    path = parquet(tmp_path / "y.parquet", words=[b"one", b"two"], jpg=[png(1), png(2)])
    assert [(row.text, len(row.images)) for row in read(path, Columns(text="words")).rows] == [("one", 1), ("two", 1)]


@pytest.mark.parametrize("place", ["file", "folder"])
@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        ("csv", "text\nred\ncafé\n".encode("latin-1"), r"not text in UTF-8 \(it has a byte 0xe9\): save it"),
        ("csv", "text\n“a”\n".encode("cp1252"), r"not text in UTF-8 \(it has a byte 0x93\): save it as UTF-8\."),
        ("txt", "red\ncafé\n".encode("latin-1"), r"not text in UTF-8 \(it has a byte 0xe9\): save it"),
        ("csv", b"n;text\n1;red\n", r"one column, 'n;text': save it with commas between the cells, not semicolons\."),
        ("csv", b"n\ttext\n1\tred\n", r"one column, 'n\\ttext': save it with commas between the cells, not tabs\."),
        ("csv", b"n|text\n1|red\n", r"has one column, 'n\|text': save it with commas between the cells, not bars\."),
        ("tsv", b"n,text\n1,red\n", r"has one column, 'n,text': save it with tabs between the cells, not commas\."),
        ("csv", b"n,text\n1,red, blue\n2,green\n", r"more cells than there are columns \(line 2\): put texts"),
        ("csv", b"n,text\n2,green\n1,red, blue\n", r"more cells than there are columns \(line 3\): put"),
        ("csv", b'n,text\n2,"a\ndog"\n1,red, blue\n', r"more cells than there are columns \(line 4\): put"),
        ("csv", b'n,text\n2,green\n1,"red\n3,blue\n', r"cannot be read behind line 2 \(.*\): close every quote"),
    ],
)  # fmt: skip
def test_a_table_that_a_program_wrote_otherwise_is_refused_with_the_cause(
    tmp_path: Path, suffix: str, content: bytes, sentence: str, place: str
) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / f"x.{suffix}").write_bytes(content)
    with pytest.raises(SaevxError, match=sentence) as refusal:
        read(folder if place == "folder" else folder / f"x.{suffix}")
    assert str(refusal.value).startswith(str(folder))


def test_empty_cells_at_the_end_of_rows_are_no_loss(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,n\nred,1,\nblue,2,\n")
    assert [(row.text, row.extra) for row in read(tmp_path / "x.csv").rows] == [("red", {"n": 1}), ("blue", {"n": 2})]


@pytest.mark.parametrize("form", ["parquet", "saved", "csv", "txt", "jsonl", "folder"])
def test_a_split_of_data_without_splits_is_refused(tmp_path: Path, form: str) -> None:
    if form in ("jsonl", "folder"):
        data = tiny.make_data(tmp_path / "pairs", 2)
        data = data / "metadata.jsonl" if form == "jsonl" else data
    else:
        data = table_of_texts(form, tmp_path / "texts")
    assert len(read(data, Columns(split="train")).rows)
    with pytest.raises(SaevxError, match="has no splits: leave out --split, or name the files of the split as DATA"):
        read(data, Columns(split="test"))
