"""One owner at a time; an unfinished folder is only continued by the same command."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from precompute.errors import PlaceError, SaevxError
from precompute.utils.files import TEMPORARY
from precompute.utils.ownership import DATABASE, MANIFEST, claim_folder, creating, exclusive, holds_unfinished
from tests.helpers.machine import another_owner, environment


def test_one_owner_who_is_named(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "store"
    with another_owner(out) as process:
        with pytest.raises(SaevxError) as caught, exclusive(out):
            pytest.fail("two owners")
        text = str(caught.value)
        assert f"process {process.pid} on {platform.node()}, since 2" in text and "\n" not in text
        assert str(out) in text and text.endswith("choose another place.")
        with exclusive(out.with_name("other")):  # another store in the same folder
            pass
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)
    assert not list(out.parent.iterdir()), "the lock goes with its owner"


def test_a_dead_owner_keeps_nothing(tmp_path: Path) -> None:
    out = tmp_path / "store"
    with another_owner(out) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        with exclusive(out):
            assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_an_owner_that_fails_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "store"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_who_waits_comes_next(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, order = tmp_path / "model", []
    with another_owner(out) as process:
        thread = threading.Thread(target=_append_when_free, args=(out, order))
        thread.start()
        thread.join(0.5)
        assert not order and process.stdin is not None
        process.stdin.close()
        thread.join(20)
    assert order == ["free"] and capfd.readouterr().err.count(f"process {process.pid}") == 1


def _append_when_free(out: Path, order: list[str]) -> None:
    with exclusive(out, wait=True):
        order.append("free")


def test_many_that_come_and_go_are_never_two_at_once(tmp_path: Path) -> None:
    """The last owner removes the lock's file just as others open it."""
    out, counter = tmp_path / "store", tmp_path / "counter"
    counter.write_text("0")
    loop = (
        "import sys, pathlib\nfrom precompute.errors import SaevxError\n"
        "from precompute.utils.ownership import exclusive\n"
        "out, n = pathlib.Path(sys.argv[1]), 0\ncounter = out.with_name('counter')\n"
        "while n < 150:\n"
        "    try:\n"
        "        with exclusive(out):\n"
        "            counter.write_text(str(int(counter.read_text()) + 1)); n += 1\n"
        "    except SaevxError:\n"
        "        pass\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", loop, str(out)], env=environment()) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "450" and [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "."):
        with pytest.raises(SaevxError, match="exists already: choose another --out"), creating(tmp_path / name):
            pytest.fail("it was made again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_without_a_name_is_no_place(place: str) -> None:
    with pytest.raises(PlaceError, match="is a folder: name what is to be written in it"), exclusive(Path(place)):
        pytest.fail("it was written")


@pytest.mark.parametrize("name", ["scores.jsonl", "images/scores.jsonl", "new/folder/scores.jsonl"])
def test_nothing_is_written_into_a_finished_store(tmp_path: Path, name: str) -> None:
    for file in (MANIFEST, DATABASE):
        (tmp_path / file).touch()
    with (
        pytest.raises(PlaceError, match=f"lies in the store {tmp_path}, and a store never"),
        exclusive(tmp_path / name),
    ):
        pytest.fail("it was written")
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, DATABASE]
    with exclusive(tmp_path.with_name(f"{tmp_path.name}.jsonl")):  # beside it
        pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/store", "a file where a folder is needed|leads through a file"),
        ("file/below/store", "leads through a file"),
        ("n" * 300, "The name n+….* is too long for this file system: choose a shorter one"),
        ("ring/store", "lead in a circle|a file where a folder is needed"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_its_cause(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    with pytest.raises(PlaceError, match=message) as caught, creating(tmp_path / name):
        pytest.fail("it can be written")
    assert str(caught.value).endswith(".") and "Errno" not in str(caught.value)


# ---- unfinished folders


def test_an_unfinished_folder_is_taken_up_by_its_like_alone(tmp_path: Path) -> None:
    part = tmp_path / "deep" / "store.part"
    what = {"what": "store", "depends_on": "data or options"}
    assert not holds_unfinished(part, "a", "plan.json", **what) and not part.exists()
    assert not claim_folder(part, "a", "plan.json", **what)
    assert claim_folder(part, "a", "plan.json", **what) and holds_unfinished(part, "a", "plan.json", **what)
    (part / "shard-0.npz").touch()
    with pytest.raises(SaevxError, match="holds an unfinished store with other data or options: repeat"):
        claim_folder(part, "b", "plan.json", **what)
    assert claim_folder(part, "a", "plan.json", **what)


def test_a_run_that_finished_nothing_stands_in_nobodys_way(tmp_path: Path) -> None:
    what = {"what": "store", "depends_on": "data or options"}
    claim_folder(tmp_path, "a", "plan.json", **what)
    assert not holds_unfinished(tmp_path, "b", "plan.json", **what)
    assert not claim_folder(tmp_path, "b", "plan.json", **what) and claim_folder(tmp_path, "b", "plan.json", **what)


@pytest.mark.parametrize("plan", ["", "{", "[]", "{}", "7"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, plan: str) -> None:
    what = {"what": "store", "depends_on": "data or options"}
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(SaevxError, match="is in the way and is no unfinished store: move or delete it"):
        claim_folder(tmp_path, "a", "plan.json", **what)
    assert (tmp_path / "plan.json").read_text() == plan
    with pytest.raises(SaevxError, match="is in the way"):
        claim_folder(tmp_path / "plan.json", "a", "plan.json", **what)


def test_a_run_killed_before_it_began_stands_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ("plan.json" + TEMPORARY)).write_text('{"finger')
    assert not claim_folder(tmp_path, "a", "plan.json", what="run", depends_on="data")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_owners_are_told_in_a_form_that_others_read(tmp_path: Path) -> None:
    with exclusive(tmp_path / "store"):
        owner = json.loads(next(tmp_path.iterdir()).read_text())
    assert owner.keys() == {"pid", "host", "since"} and owner["pid"] == os.getpid()
