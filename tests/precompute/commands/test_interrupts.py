"""Ctrl-C and a request to end are answered in one line, whenever they come, and lose nothing."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from precompute.utils.processes import interrupts
from precompute.utils.progress import progress_bar, say
from tests.helpers import machine, tiny
from tests.helpers.every_command import COMMANDS, World
from tests.helpers.in_process import saevx, sums
from tests.helpers.machine import begin, environment
from tests.helpers.tinies import Tiny

pytestmark = pytest.mark.usefixtures("interruptible")


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """What a command says to a signal that its whole group gets, as from a terminal."""
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err and "Exception ignored" not in err, err[-2000:]
    return process.returncode, err.strip().splitlines()[-1] if err.strip() else ""


ANSWERS = {signal.SIGINT: (130, "saevx: interrupted"), signal.SIGTERM: (143, "saevx: terminated")}


@pytest.mark.parametrize("number", ANSWERS)
@pytest.mark.parametrize("after", [0.0, 0.2, 0.4, 0.8, 1.5])
def test_while_it_starts(number: signal.Signals, after: float, tmp_path: Path) -> None:
    """The entry alone, which says when it has control; from there on there is no gap."""
    code = """
import os, sys
from backend import cli
before = cli.on_signals
def on_signals(handler):
    before(handler)
    os.write(1, b"x")
cli.on_signals = on_signals
sys.argv = ["saevx", "serve", sys.argv[1]]
cli.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 1)
    time.sleep(after)
    if process.poll() is None:
        status, line = ended(process, number)
        # It may have come to its end by itself: that folder is no store. The signal may meet Python after its handlers.
        assert (status, line) == ANSWERS[number] or (status in (1, -number) and "is not a store" in line)
    process.communicate()


@pytest.fixture(scope="module")
def pass_args(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Of a pass of many shards."""
    data = tiny.make_data(tmp_path_factory.mktemp("passed") / "data", 60)
    args = ("precompute", data, "--model", tiny_files.model, "--sae", tiny_files.sae, "--device", "cpu")
    return (*args, "--shard-samples", 10, "--nll", "--batch-tokens", 150, "--name", "store")


@pytest.fixture(scope="module")
def whole_sums(pass_args: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the store that the pass makes."""
    store = tmp_path_factory.mktemp("whole") / "store"
    result = saevx(*pass_args, "--out", store)
    assert result.status == 0, result.err
    return sums(store)


@pytest.mark.parametrize("number", ANSWERS)
def test_in_the_middle_of_a_pass_that_then_goes_on(
    number: signal.Signals, pass_args: tuple[object, ...], whole_sums: dict[str, str], tmp_path: Path
) -> None:
    args, out = pass_args, tmp_path / "store"
    process = begin(*args, "--out", out, fresh=number == signal.SIGINT)
    while process.poll() is None and not list((tmp_path / "store.part").glob("shards/*.npz")):
        time.sleep(0.01)
    assert process.poll() is None, "the pass was too fast for this test"
    assert ended(process, number) == ANSWERS[number]
    assert not out.exists() and not list(tmp_path.glob(".*.lock"))
    again = saevx(*args, "--out", out)
    assert again.status == 0, again.err
    assert sums(out) == whole_sums
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "store.part").exists()


def test_a_signal_that_was_to_be_ignored_is(tmp_path: Path) -> None:
    """As in a background job of a shell that is no terminal's."""
    command = [sys.executable, "-m", "backend.cli", "verify", str(tmp_path)]
    command = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment(), start_new_session=True
    )
    time.sleep(0.4)
    assert "is not a store" in ended(process, signal.SIGINT)[1]


def test_an_interrupt_that_a_destructor_swallows_comes_again() -> None:
    code = """
import signal, sys
from backend import cli
class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
class App:
    pass
def run(app, arguments):
    try:
        lost = Lost()
        del lost
        for _ in range(10 ** 8):
            pass
    except KeyboardInterrupt:
        print("came again")
        return 130
    return 0
import precompute.cli
precompute.cli.run = run
cli.main()
"""
    done = machine.saevx(code=code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "came again\n", "")


LOSERS = {
    "NumPy": """
class Text:
    def __len__(self):
        signal.raise_signal(number)
    def __getitem__(self, at):
        raise IndexError
def lose():
    import numpy
    numpy.array(Text())
""",
    "SQLite": """
def lose():
    import sqlite3
    base = sqlite3.connect(":memory:")
    base.set_progress_handler(lambda: signal.raise_signal(number), 1)
    try:
        base.execute("SELECT 1 UNION SELECT 2").fetchall()
    except sqlite3.OperationalError:
        pass
""",
    "except": """
def lose():
    try:
        signal.raise_signal(number)
    except:
        pass
""",
}
"""Code that loses the exception of a signal without a word."""
LOST = """
import signal, sys
from backend import cli
number = signal.Signals[sys.argv.pop(1)]
{loser}
from precompute.scoring import new_data
place, name = {place}
function = getattr(place, name)
def lose_before(*args):
    lose()
    return function(*args)
setattr(place, name, lose_before)
cli.main()
"""
SCORE_SHARD, SCORE_FILE = "new_data.Job, 'shard'", "new_data, 'write'"


def lost(loser: str, place: str, number: signal.Signals, *args: object) -> subprocess.CompletedProcess[str]:
    """A command that loses the signal's exception each time before it does the work at the place."""
    return machine.saevx(number.name, *args, code=LOST.format(loser=LOSERS[loser], place=place))


@pytest.mark.parametrize(
    ("loser", "number"), [("NumPy", signal.SIGTERM), ("SQLite", signal.SIGINT), ("except", signal.SIGINT)]
)
def test_an_interrupt_that_a_library_swallows_ends_the_command(
    loser: str, number: signal.Signals, world: World, tmp_path: Path
) -> None:
    """At the next batch; what is done stays, and the same command goes on."""
    out = tmp_path / "out.jsonl"
    args = (*COMMANDS["score"](world), "--shard-samples", 8, "--out", out)
    done = lost(loser, SCORE_SHARD, number, *args)
    assert (done.returncode, done.stderr.splitlines()[-1]) == ANSWERS[number], done.stderr
    assert "Traceback" not in done.stderr and not out.exists() and not list(tmp_path.glob(".*.lock"))
    assert not list(tmp_path.glob("out.jsonl.part/000001.*")), "it went on to the next shard"
    again = saevx(*args)
    assert again.status == 0 and out.exists(), again.err


def test_an_interrupt_that_is_lost_at_the_end_is_said_there(world: World, tmp_path: Path) -> None:
    """All is done, but who loops over commands wants to know."""
    out = tmp_path / "out.jsonl"
    done = lost("SQLite", SCORE_FILE, signal.SIGINT, *COMMANDS["score"](world), "--out", out)
    assert (done.returncode, done.stderr.splitlines()[-1]) == ANSWERS[signal.SIGINT], done.stderr


@pytest.mark.parametrize("number", ANSWERS)
def test_an_error_after_a_lost_interrupt_is_not_its_cause(number: signal.Signals, tmp_path: Path) -> None:
    """SQLite gives up the statement, so that an error follows from what was lost."""
    place = "cli.__getattr__('Saevx'), 'cli_cmd'"
    done = lost("SQLite", place, number, "verify", tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == ANSWERS[number], done.stderr


def test_an_interrupt_on_its_way_is_not_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Reports and progress while the exception passes do not end what cleans up."""
    with pytest.raises(KeyboardInterrupt):
        try:
            interrupts.raise_interrupt(signal.SIGINT)
        finally:
            say("cleaned up")
            try:
                raise OSError
            except OSError:
                say("that too")
    assert capsys.readouterr().err == "cleaned up\nthat too\n"
    with pytest.raises(KeyboardInterrupt):
        say("not printed")
    with pytest.raises(KeyboardInterrupt), progress_bar("x", 3, "steps", quiet=True) as progress:
        progress.update()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(interrupts.raise_lost).result()
    with pytest.raises(KeyboardInterrupt), interrupts.until_terminated():
        raise AssertionError
    assert interrupts.answer(ValueError()) == signal.SIGINT and interrupts.answer(ValueError()) is None
    with interrupts.until_terminated():
        interrupts.raise_interrupt(signal.SIGTERM)
    interrupts.raise_lost()


def test_drawing_processes_say_nothing_and_end(tmp_path: Path) -> None:
    """Those of `saevx demo`, which the terminal interrupts too; and they end with a command that was killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        folder = tmp_path / number.name
        process = begin("demo", "--dir", folder, "--samples", 4000, "--no-serve")
        while process.poll() is None and not list(folder.glob(".data.part/images/*")):
            time.sleep(0.02)
        if number == signal.SIGINT:
            assert ended(process, number) == ANSWERS[signal.SIGINT]
        else:
            os.kill(process.pid, number)
            process.communicate(timeout=60)
        end = time.monotonic() + 60
        while members(process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        assert not members(process.pid)
        assert (folder / ".demo.lock").exists() == (number == signal.SIGKILL), "the next one takes that over"


def members(group: int) -> list[int]:
    """Processes of a group."""
    import psutil

    result = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                result.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return result
