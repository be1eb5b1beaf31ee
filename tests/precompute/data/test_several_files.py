"""Several files that are one table, or are not: their columns, and the splits that their names say."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from precompute.data.paths import split_of_name
from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.errors import SaevxError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path: Path, **columns: list[Any]) -> None:
    """A table of the format that the name says."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), path)
        return
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for number, text in enumerate(columns["text"]):
                member = tarfile.TarInfo(f"{path.stem}-{number}.txt")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        return
    separator = "," if path.suffix == ".csv" else "\t"
    lines = [separator.join(cells) for cells in (columns, *zip(*columns.values(), strict=True))]
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("form", ["folder", "glob", "odd folder"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    ("first", "second"), [(["id", "text"], ["text", "note"]), (["text"], ["text", "id"]), (["text", "n"], ["text"])]
)
def test_files_of_other_columns_are_no_one_table(
    first: list[str], second: list[str], suffix: str, form: str, tmp_path: Path
) -> None:
    """Both are named, with their columns: `datasets` would leave columns out. A Parquet file may lack one, which is
    null there."""
    folder = tmp_path / ("[x]" if form == "odd folder" else "x")
    folder.mkdir()
    for name, columns in (("a", first), ("b", second)):
        write(folder / f"{name}.{suffix}", **{column: ["1"] for column in columns})
    source = str(folder / f"*.{suffix}" if form == "glob" else folder)
    if suffix == "parquet" and set(second) < set(first):
        assert [row.extra for row in read(source).rows] == [{"n": "1"}, {"n": None}]
        return
    with pytest.raises(SaevxError) as refusal:
        read(source)
    a, b = folder / f"a.{suffix}", folder / f"b.{suffix}"
    assert str(refusal.value) == (
        f"{a} has the columns {', '.join(first)}, and {b} {', '.join(second)}: give them the same columns, or name the "
        "files to read as DATA."
    )


def test_columns_of_other_types_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", text=["a"], n=[1])
    write(tmp_path / "b.parquet", text=["b"], n=[[2.5, 1.0]])
    with pytest.raises(SaevxError, match=r"a.parquet has int64 in its column n, and .*b.parquet list<.*: give them"):
        read(tmp_path)


SPLIT_FILES = {
    "train-00000-of-00002": "train", "test-00000-of-00001": "test", "train_sft-00000-of-00002": "train_sft",
    "dev": "validation", "val_1": "validation", "my.eval.2": "test", "training-a": "train", "data/test/0000": "test",
    "test/train_0": "train", "trainer": None, "contest": None, "0000": None, "latest-00000-of-00001": "latest",
}  # fmt: skip


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_the_split_that_a_name_says(name: str) -> None:
    assert split_of_name(Path(f"{name}.parquet")) == SPLIT_FILES[name]


@pytest.mark.parametrize("kind", ["parquet", "tar", "csv"])
def test_a_folder_of_several_splits_is_no_one_data_set(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One split is read, and a line says so; a glob names all files."""
    for name, text in (("train-0", "one"), ("train-1", "two"), ("test-0", "three")):
        write(tmp_path / f"{name}.{kind}", text=[text])

    def texts(source: Path, **columns: Any) -> list[str]:
        return [row.text for row in read(str(source), Columns(**columns)).rows]

    assert texts(tmp_path) == ["one", "two"]
    assert capsys.readouterr().err == (f"{tmp_path} has the splits test, train: train is read, another with --split\n")
    assert texts(tmp_path, split="test") == ["three"]
    assert sorted(texts(tmp_path / f"*.{kind}")) == ["one", "three", "two"]
    with pytest.raises(SaevxError, match="has the splits test, train, not dev: choose with --split"):
        texts(tmp_path, split="dev")


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_file_of_no_split_beside_several_is_not_left_out(kind: str, tmp_path: Path) -> None:
    for name in ("train-0", "test-0", "more"):
        write(tmp_path / f"{name}.{kind}", text=[name])
    with pytest.raises(SaevxError, match=rf"and more\.{kind} is of none of them: name the files to read as DATA"):
        read(tmp_path)
    (tmp_path / f"train-0.{kind}").unlink()
    assert len(read(tmp_path).rows) == 2, "one split and other files: all"
