"""What every command does on a machine that is not as it should be: another run at work in the same place, a disk that
is full, a place that cannot be written to, a folder with an odd name. One sentence, nothing lost, and the same command
goes on."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import machine
from tests.helpers.every_command import COMMANDS, CONTINUES, MAKES_NEW, NAMES, World, pass_of, report
from tests.helpers.in_process import saevx, sums
from tests.helpers.machine import another_owner, begin, closed, refused, small_disk

# ---- one owner


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_run_is_refused_before_it_begins(command: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / NAMES.get(command, "out")
    with another_owner(out) as process:
        done = saevx(*COMMANDS[command](world), "--out", out)
        report(done, f"process {process.pid} on ", str(out))
        assert len(done.err.splitlines()) == 1 and not done.out and not out.exists(), "it had begun to work"
    assert not out.with_name(out.name + ".part").exists()


def test_two_passes_and_single_steps_at_the_same_time(world: World, tmp_path: Path) -> None:
    """Whatever the second is, the first is not disturbed."""
    out = tmp_path / "store"
    first = begin(*pass_of(world.files), "--out", out)
    while first.poll() is None and not (tmp_path / "store.part" / "plan.json").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        assert first.poll() is None
        for more in ([], ["--only", "weigh"], ["--seed", 3], ["--only", "collect"]):
            report(saevx(*pass_of(world.files), "--out", out, *more), f"process {first.pid} ")
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0 and sums(out) == sums(world.store)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    report(saevx(*pass_of(world.files), "--out", out), "exists already and a store never changes")


def test_two_passes_begun_together(world: World, tmp_path: Path) -> None:
    out = tmp_path / "store"
    runs = [begin(*pass_of(world.files), "--out", out) for _ in range(2)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1], errors
    assert not any("Traceback" in error for error in errors)
    assert sums(out) == sums(world.store) and [path.name for path in tmp_path.iterdir()] == ["store"]


def test_after_kill_9_the_same_command_goes_on(world: World, tmp_path: Path) -> None:
    out = tmp_path / "store"
    first = begin(*pass_of(world.files), "--out", out)
    while first.poll() is None and not list((tmp_path / "store.part").glob("shards/*.npz")):
        time.sleep(0.005)
    first.kill()
    assert first.wait(timeout=60) == -signal.SIGKILL
    assert (tmp_path / ".store.lock").exists(), "it could not remove its lock, which holds nothing any more"
    done = saevx(*pass_of(world.files), "--out", out)
    assert done.status == 0, done.err
    assert sums(out) == sums(world.store) and [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_second_demo_is_refused(tmp_path: Path) -> None:
    with another_owner(tmp_path / "demo" / "demo") as process:
        report(saevx("demo", "--dir", tmp_path / "demo", "--no-serve"), f"process {process.pid} ")
        assert [path.name for path in (tmp_path / "demo").iterdir()] == [".demo.lock"]


# ---- room


@pytest.mark.parametrize("size", ["24k", "200k", "700k"])
def test_a_pass_on_a_full_disk_goes_on_when_there_is_room(size: str, world: World, tmp_path: Path) -> None:
    """As a process of its own: what is mapped might kill it without a word."""
    with small_disk(tmp_path / "disk") as resize:
        disk = resize(size)
        args = (*pass_of(world.files), "--out", disk / "store")
        refused(machine.saevx(*args), "No space is left in", str(disk), "make room and run the same command again")
        assert [path.name for path in disk.iterdir()] == ["store.part"], "what is done stays, and no lock"
        resize("20m")
        again = saevx(*args)
        assert again.status == 0, again.err
        assert sums(disk / "store") == sums(world.store) and len(list(disk.iterdir())) == 1


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("score", "16k"),
        ("train", "40k"),
        ("train", "100k"),
        ("filter", "4k"),
        ("patches", "4k"),
        ("controls", "4k"),
        ("export", "200k"),
    ],
)
def test_every_command_on_a_full_disk(command: str, size: str, world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as resize:
        out = resize(size) / NAMES.get(command, "out")
        args = (*COMMANDS[command](world), "--out", out)
        report(saevx(*args), "No space is left in", "make room and run the same command again")
        assert not out.exists() and not out.with_name(f".{out.name}.lock").exists()
        resize("20m")
        again = saevx(*args)
        assert again.status == 0, again.err
        assert list(out.parent.iterdir()) == [out]


def test_an_evaluation_that_cannot_be_written_is_printed(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as resize:
        disk = resize("4k")
        done = saevx(*COMMANDS["evaluate"](world), "--out", disk / "e.json")
        report(done, "No space is left in")
        assert '"loss_recovered"' in done.out and not list(disk.iterdir())


def test_a_limit_on_the_size_of_files(world: World, tmp_path: Path) -> None:
    """As by `ulimit -f 60`."""
    code = """
import resource
from backend import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (60 * 1024, 60 * 1024))
cli.main()
"""
    args = (*pass_of(world.files), "--out", tmp_path / "store")
    refused(machine.saevx(*args, code=code), "ulimit -f", str(tmp_path))
    again = saevx(*args)
    assert again.status == 0 and sums(tmp_path / "store") == sums(world.store), again.err


# ---- places


@pytest.mark.parametrize("command", COMMANDS)
def test_below_a_file(command: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out.jsonl", tmp_path / "file" / "deep" / "out.jsonl"):
        report(saevx(*COMMANDS[command](world), "--out", out), str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_parents_are_made(command: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / NAMES.get(command, "out")
    done = saevx(*COMMANDS[command](world), "--out", out)
    assert done.status == 0 and list(out.parent.iterdir()) == [out], done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_onto_a_folder(command: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / NAMES.get(command, "out")
    out.mkdir()
    word = "exists already" if command in MAKES_NEW else "is a folder, where a file is to be written"
    report(saevx(*COMMANDS[command](world), "--out", out), word)
    assert list(tmp_path.iterdir()) == [out] and not list(out.iterdir())


@pytest.mark.parametrize("command", CONTINUES)
def test_where_the_unfinished_result_is_something_else(command: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / NAMES.get(command, "out")
    part = out.with_name(out.name + ".part")
    part.write_text("mine")
    report(saevx(*COMMANDS[command](world), "--out", out), str(part))
    assert list(tmp_path.iterdir()) == [part]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_system_that_can_only_be_read(command: str, world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as resize:
        disk = resize("1m,ro")
        report(saevx(*COMMANDS[command](world), "--out", disk / "out.jsonl"), "can only be read: choose another place")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_without_a_byte_left(command: str, world: World, tmp_path: Path) -> None:
    """Not even for the name of the owner; what stood there stays, and nothing else is left behind."""
    with small_disk(tmp_path / "disk") as resize:
        disk = resize("64k")
        if command not in MAKES_NEW:
            (disk / "out.jsonl").write_text("old")
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(1 << 20))
        files = {path.name: path.read_bytes() for path in disk.iterdir()}
        report(saevx(*COMMANDS[command](world), "--out", disk / "out.jsonl"), "No space is left in", "make room")
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == files


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long(command: str, world: World, tmp_path: Path) -> None:
    report(saevx(*COMMANDS[command](world), "--out", tmp_path / ("n" * 300 + ".jsonl")), "too long", "choose a shorter")
    assert not list(tmp_path.iterdir())


def test_the_second_file_of_score_is_looked_at_before_the_work(world: World, tmp_path: Path) -> None:
    out = tmp_path / ("n" * 240 + ".jsonl")  # itself short enough, .quarantine.jsonl beside it is not
    report(saevx(*COMMANDS["score"](world), "--out", out), "too long")
    (tmp_path / "s.quarantine.jsonl").mkdir()
    report(saevx(*COMMANDS["score"](world), "--out", tmp_path / "s.jsonl"), "s.quarantine.jsonl is a folder")


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_right_to_write(command: str, world: World, tmp_path: Path) -> None:
    with closed(tmp_path / "closed") as folder:
        report(saevx(*COMMANDS[command](world), "--out", folder / "out.jsonl"), "This user may not write")


def test_a_cache_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "file").touch()
    images = [(world.files.data / f"{i:03d}.png").read_bytes() for i in range(4)]
    parquet.write_table(pa.table({"image": images, "text": ["a dog"] * 4}), tmp_path / "x.parquet")
    args = ("precompute", tmp_path / "x.parquet", *pass_of(world.files)[2:], "--out", tmp_path / "store")
    where = str(tmp_path / "file" / "hf")
    code = """
import json, sys
from backend.cli import Saevx, run
print(*(run(Saevx, arguments) for arguments in json.loads(sys.argv[1])))
"""
    commands = (args, (*pass_of(world.files), "--out", tmp_path / "store"))
    variables = dict.fromkeys(("HF_HOME", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), where)
    done = machine.saevx(json.dumps([[str(one) for one in command] for command in commands]), code=code, **variables)
    assert done.stdout.splitlines()[-1] == "1 0", done.stderr  # none of them is needed for data in files
    line = next(line for line in done.stderr.splitlines() if line.startswith("saevx: "))
    assert line.startswith(f"saevx: The cache folder {where} cannot be written") and "HF_HOME" in line


def test_the_demos_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = machine.saevx(
        "demo", "--dir", tmp_path / "demo", "--samples", 20, "--no-serve", SAEVX_CACHE=str(tmp_path / "file" / "x")
    )
    refused(done, "cannot be kept in", "name another folder in SAEVX_CACHE")
