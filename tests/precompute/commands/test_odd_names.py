"""Folders, stores and homes may be called what people call them, whatever a command does with them."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from precompute.store.making.verify import verify
from tests.helpers.every_command import COMMANDS, NAMES, World, pass_of, report
from tests.helpers.in_process import saevx, sums
from tests.helpers.tinies import Tiny

ODD = ["a%20b?x", "[x] *", "it's \"so\"", "50% #1; $HOME &", "new\nline", " blanks ", "~", "~root", "a::b", "s3:",
       "file:x", "a,b", "{a}", "-dash", "猫", "x.part", "null", "a\\b", "a=b"]  # fmt: skip


def test_folders_may_have_any_name(world: World, tmp_path: Path) -> None:
    """Each name inside the one before, from the outside and as a relative path."""
    place = tmp_path.joinpath(*ODD)
    place.mkdir(parents=True)
    for name in ("data", "model", "sae"):
        shutil.copytree(getattr(world.files, name), place / name)
    files = Tiny(place / "model", place / "sae", place / "data")
    done = saevx(*pass_of(files), "--out", place / "store")
    assert done.status == 0, done.err
    assert sums(place / "store") == sums(world.store)
    here = World(files, place / "store", files.data)
    for command in ("score", "evaluate", "filter", "train"):
        done = saevx(*COMMANDS[command](here), "--out", place / NAMES.get(command, "trained"))
        assert done.status == 0, done.err
        (place / "out.jsonl").unlink(missing_ok=True)
    assert saevx("verify", place / "store").status == 0
    with contextlib.chdir(place):
        near = Tiny(Path("model"), Path("sae"), Path("data"))
        assert saevx(*pass_of(near), "--out", ODD[0]).status == 0
        assert all(check.ok for check in verify(Path(ODD[0])))
    assert {path.name for path in tmp_path.iterdir()} == {ODD[0]}, "nothing was written elsewhere"


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    (tmp_path / "here").mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with contextlib.chdir(tmp_path / "here"):
        yield home


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(world: World, at_home: Path) -> None:
    shutil.copytree(world.files.data, at_home / "data")
    shutil.copytree(world.files.model, at_home / "model")
    shutil.copytree(world.files.sae, at_home / "sae")
    files = ("precompute", "~/data", "--model=~/model", "--sae=~/sae", *pass_of(world.files)[6:])
    assert saevx(*files, "--out=~/store").status == 0
    assert sums(at_home / "store") == sums(world.store)
    assert saevx("verify", "~/store").status == 0
    assert saevx("filter", "~/store", "--by", "l0", "--out", "~/kept.jsonl").status == 0
    assert (at_home / "kept.jsonl").is_file()
    report(saevx("serve", "~/nothing", "~nobody-of-that-name/store"), f"{at_home / 'nothing'} is not a store")
    assert not list(Path.cwd().iterdir())


STORES = ["a,b", "[x] *", "[x]", 'it\'s "so"', "{a}", "null", "1", " a ", "a\\b", "'q'", "a%2Cb"]


@pytest.mark.parametrize("name", STORES)
def test_a_store_of_any_name_can_be_served(name: str, tmp_path: Path) -> None:
    report(saevx("serve", tmp_path / name, tmp_path / "other"), " ".join(f"{tmp_path / name} is not a store".split()))
    with contextlib.chdir(tmp_path):
        report(saevx("serve", f"./{name}"), " ".join(f"{name} is not a store".split()))
