"""WebDataset tars as people make them, by hand, in any order, whole and cut."""

import io
import tarfile
from pathlib import Path

import pytest

from precompute.data.images import open_image
from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.data.tars import BLOCK
from precompute.errors import SaevxError
from tests.helpers.tiny import png

Members = list[tuple[str, bytes]]


def tar_of(path: Path, members: Members, *, closed: bool = True) -> Path:
    """A tar; names may come twice. Without its end mark where it is not closed."""
    buffer = io.BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w")  # noqa: SIM115 (not to be closed, perhaps)
    for name, raw in members:
        member = tarfile.TarInfo(name)
        member.size = len(raw)
        tar.addfile(member, io.BytesIO(raw))
    if closed:
        tar.close()
    path.write_bytes(buffer.getvalue())
    return path


def pairs(n: int = 4) -> Members:
    return [one for i in range(n) for one in ((f"{i}.png", png(i)), (f"{i}.txt", b"text %d" % i))]


def refusal(path: Path, columns: Columns | None = None) -> str:
    with pytest.raises(SaevxError) as caught:
        read(path, columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_members_of_a_sample_need_not_lie_side_by_side(tmp_path: Path) -> None:
    """All images, then all texts, or the other way round: the same rows, in the order of the first members."""
    whole = pairs()
    orders = [whole, sorted(whole, key=lambda one: one[0].endswith("txt")), sorted(whole, key=lambda one: one[0][2:])]
    for i, members in enumerate(orders):
        data = read(tar_of(tmp_path / f"{i}.tar", members))
        assert not data.rejected_rows
        for k, row in enumerate(data.rows):
            assert (row.sample_id, row.text) == (str(k), f"text {k}")
            assert open_image(row.images[0]).image.tobytes() == open_image(png(k)).image.tobytes()


def test_a_name_that_comes_again_elsewhere_is_another_sample(tmp_path: Path) -> None:
    """Nothing is replaced in silence."""
    data = read(tar_of(tmp_path / "x.tar", [*pairs(2), ("0.png", png(7)), ("0.txt", b"again")]))
    assert [(row.sample_id, row.text) for row in data.rows] == [("0", "text 0"), ("1", "text 1"), ("x/0", "again")]


def test_kinds_of_members_are_named_in_any_case(tmp_path: Path) -> None:
    members = [
        one
        for i in range(2)
        for one in (
            (f"{i}.LEFT.PNG", png(i)),
            (f"{i}.Right.png", png(i + 5)),
            (f"{i}.Words", b"text %d" % i),
            (f"{i}.Key", b"key-%d" % i),
        )
    ]
    path = tar_of(tmp_path / "x.tar", members)
    data = read(path, Columns("Left.png", "WORDS", "KEY"))
    assert [(row.sample_id, row.text, len(row.images)) for row in data.rows] == [
        ("key-0", "text 0", 1),
        ("key-1", "text 1", 1),
    ]
    assert open_image(data.rows[1].images[0]).image.tobytes() == open_image(png(1)).image.tobytes()
    report = refusal(path, Columns("middle.png"))
    assert "--image-column" in report and "left.png" in report and "right.png" in report
    assert "--text-column" in refusal(path, Columns(text="caption"))


def test_samples_that_differ_behind_the_first_dot_alone(tmp_path: Path) -> None:
    report = refusal(tar_of(tmp_path / "x.tar", [(f"a.{name}", raw) for name, raw in pairs()]))
    assert "ends at the first dot" in report and "a.0.png" in report


def test_a_tar_without_samples(tmp_path: Path) -> None:
    assert "is empty: there is no row" in refusal(tar_of(tmp_path / "a.tar", []))
    (tmp_path / "b.tar").write_bytes(b"")
    assert "is empty: there is no row" in refusal(tmp_path / "b.tar")
    hidden = refusal(tar_of(tmp_path / "c.tar", [("." + name, raw) for name, raw in pairs()]))
    assert "the names of all 8 begin with a dot" in hidden and "0 set aside" not in hidden
    reference = [*pairs(), *(("._" + name, b"what macOS adds") for name, _ in pairs())]
    assert len(read(tar_of(tmp_path / "d.tar", reference)).rows) == 4


@pytest.mark.parametrize("n_bytes", [1, 600, 1400, 2048, 2060, 2600, 3000, 3072, 3600, 4096, 5000])
def test_a_tar_cut_anywhere_gives_what_came_before_and_says_so(tmp_path: Path, n_bytes: int) -> None:
    """Header, image and text are a block each: a sample is whole after 2048 bytes."""
    path = tar_of(tmp_path / "x.tar", [(name, raw[:400]) for name, raw in pairs()])
    path.write_bytes(path.read_bytes()[:n_bytes])
    n_whole = n_bytes // (4 * BLOCK)
    if not n_whole:
        assert "damaged, cut short" in refusal(path)
        return
    data = read(path)
    assert [row.text for row in data.rows] == [f"text {i}" for i in range(n_whole)]
    assert "shard x.tar" in data.rejected_rows[-1].reason


def test_a_tar_without_its_end_or_with_more_behind_it(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "whole.tar", pairs()).read_bytes()
    for name, raw, words in [
        ("open.tar", tar_of(tmp_path / "o.tar", pairs(), closed=False).read_bytes(), "without an end mark"),
        ("joined.tar", whole + whole, "several tars joined"),
        ("broken.tar", whole[: 8 * BLOCK] + b"\x01" * 3000, "the next header is cut or damaged"),
    ]:
        (tmp_path / name).write_bytes(raw)
        data = read(tmp_path / name)
        assert len(data.rows) == (2 if name == "broken.tar" else 4)
        assert [words in bad.reason for bad in data.rejected_rows] == [True]
    (tmp_path / "padded.tar").write_bytes(whole + bytes(100_000))
    assert not read(tmp_path / "padded.tar").rejected_rows


def test_what_is_no_tar_inside_is_named(tmp_path: Path) -> None:
    for raw, words in ((b"\x1f\x8b" + bytes(2000), "compressed"), (b"version https://git-lfs.github.com/x", "git lfs")):
        (tmp_path / "x.tar").write_bytes(raw)
        assert words in refusal(tmp_path / "x.tar")
        tar_of(tmp_path / "y.tar", pairs())
        data = read(tmp_path)
        assert len(data.rows) == 4 and words in data.rejected_rows[0].reason


def test_images_of_other_formats_are_missed_not_left_out(tmp_path: Path) -> None:
    """A shard of AVIF files must not become a data set of texts; beside a readable image they are none of ours."""
    first, second = [("0.avif", b"x"), ("0.txt", b"a")], [("1.png", png(1)), ("1.svg", b"x"), ("1.txt", b"b")]
    data = read(tar_of(tmp_path / "x.tar", first + second))
    assert [len(row.images) for row in data.rows] == [1, 1] and not data.text_only
    assert open_image(data.rows[1].images[0])


def test_text_only_leaves_the_images_of_a_tar_out(tmp_path: Path) -> None:
    data = read(tar_of(tmp_path / "x.tar", pairs(2)), Columns(text_only=True))
    assert [(row.text, row.images, row.extra) for row in data.rows] == [("text 0", (), {}), ("text 1", (), {})]
    data = read(tar_of(tmp_path / "y.tar", [one for one in pairs(2) if one[0].endswith("txt")]))
    assert data.text_only and not data.no_image and len(data.rows) == 2


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """A member is used under a name that can be shown; a shard is to be renamed."""
    members = [(f"caf\udce9{name}", raw) for name, raw in pairs(2)]
    data = read(tar_of(tmp_path / "x.tar", members))
    assert [(row.sample_id, row.text) for row in data.rows] == [("caf\\xe90", "text 0"), ("caf\\xe91", "text 1")]
    (tmp_path / "folder").mkdir()
    tar_of(tmp_path / "folder" / "caf\udce9.tar", pairs(2))
    assert refusal(tmp_path / "folder").endswith(
        "caf\\xe9.tar has a name that is not valid Unicode (UTF-8): rename it."
    )
