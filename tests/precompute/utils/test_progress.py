"""Progress: a line now and then in a log, a bar on a terminal, nothing where it is quiet."""

import sys
import threading

import pytest

from precompute.utils import progress
from precompute.utils.progress import progress_bar, say
from tests.helpers.in_process import saevx


@pytest.fixture(params=[0.0, 1e9], ids=["every line", "the last line"])
def every_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(progress, "EVERY_S", request.param)
    return float(request.param)


def test_a_log_gets_plain_lines_now_and_then(every_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with progress_bar("collect", 20, "samples", 4) as bar:
        assert not capsys.readouterr().err, "nothing is said before anything is done"
        for _ in range(4):
            bar.update(4)
        assert threading.active_count() == threads
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert not captured.out and "\r" not in captured.err
    assert lines[-1].startswith("collect: 20 of 20 samples in 00:0") and lines[-1].endswith("samples/s")
    if every_s:
        assert len(lines) == 1
    else:
        assert [line.split(" of ")[0] for line in lines] == [f"collect: {n}" for n in (8, 12, 16, 20, 20)]


def test_a_total_that_is_unknown_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("score", None, "rows") as bar:
        bar.update(7)
    assert capsys.readouterr().err.startswith("score: 7 rows in 00:0")


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_says_nothing(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress_bar("collect", 20, "samples", quiet=True) as bar:
        bar.update(20)
    captured = capsys.readouterr()
    assert not captured.err and not captured.out


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("collect", 20, "samples") as bar:
        bar.update(20)
    assert "\rcollect: 100%" in capsys.readouterr().err


def test_a_terminal_is_given_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, file names and names in a manifest are others' texts."""
    hostile = "\x1b[2J\x1b]0;owned\x07 a\rb\u202e\u2066 \x9b31m 猫\tdog é 🙂"
    say(hostile)
    done = saevx("verify", hostile)
    for text in (capsys.readouterr().err, done.err):
        assert not set("\x1b\x07\r\u202e\u2066\x9b") & set(text) and "猫" in text and "é 🙂" in text
    assert done.status == 1
