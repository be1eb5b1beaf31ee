"""Every benchmark runs once at its smallest size, so that none rots. No test here looks at a time."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from precompute.demo.evaluation.markdown import command
from tests.bench import _same_examples, dashboard, reliability, reliability_report, report, scale_report
from tests.bench._trials import Trial
from tests.bench.common import Figure, met
from tests.bench.run import names
from tests.helpers.in_process import apart, saevx
from tests.helpers.tiny_demo import tiny_demo

OF_THE_DEMO = ("dashboard", "demo", "throughput")
"""Benchmarks that need the demo's own captions or command; the others run on a tiny model."""
IN_A_BROWSER = ("map", "page_js", "reliability", "server", "workers")
"""These start an event loop, and a test before may have left one in this process: Playwright's."""


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_demo(tmp_path_factory)


@pytest.mark.parametrize("name", names())
def test_it_runs(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    root = request.getfixturevalue("demo").root if name in OF_THE_DEMO else request.getfixturevalue("tiny_root")
    arguments = ("bench", name, "--demo", root, "--small", "--out", out)
    done = apart(saevx, *arguments) if name in IN_A_BROWSER else saevx(*arguments)
    assert done.status == 0, done.err
    result = json.loads(out.read_text())
    assert result["name"] == name and result["figures"] and result["machine"]["versions"]["torch"]
    for figure in result["figures"]:
        assert figure.keys() == Figure.__required_keys__
        assert figure["value"] is None or math.isfinite(figure["value"])
    assert report.figures([result]).count("\n") == 1 + len(result["figures"])


@pytest.mark.parametrize("command", ["bench steer", "experiment filtering", "experiment figure3"])
def test_a_folder_in_the_place_of_the_result_is_named_before_the_work(
    command: str, tiny_root: Path, tmp_path: Path
) -> None:
    demo = ("--demo", tiny_root) if command.startswith("bench") else ("--work", tmp_path / "work")
    done = saevx(*command.split(), *demo, "--out", tmp_path)
    assert done.status == 1 and f"{tmp_path} is a folder, where a file is to be written" in done.err, done.err
    assert not list(tmp_path.rglob("*"))


def test_what_must_be_equal_is_equal() -> None:
    """The figures with = are no times: they hold at any size."""
    equal = [
        figure
        for name in names()
        if (path := Path("docs/results") / f"bench-{name}.json").exists()
        for figure in json.loads(path.read_text())["figures"]
        if figure["sense"] == "="
    ]
    assert equal and all(map(met, equal)), [one for one in equal if not met(one)]


@pytest.mark.parametrize("made_by", [report, reliability_report, scale_report], ids=lambda one: one.PAGE.stem)
def test_the_page_is_fresh(made_by: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    with pytest.raises(SystemExit) as end:
        command(made_by.PAGE, made_by.rendered, made_by.__name__)
    assert not end.value.code, end.value.code


def test_the_same_examples_but_for_ties() -> None:
    mine = {0: 2.0, 1: 1.5, 2: 1.0}
    assert _same_examples.alike(mine, {0: 2.001, 1: 1.5, 4: 1.0004})  # the last ties
    assert not _same_examples.alike(mine, {0: 2.0, 1: 1.5, 4: 1.1})
    assert not _same_examples.alike(mine, {0: 2.1, 1: 1.5, 2: 1.0})
    assert not _same_examples.alike(mine, {0: 2.0, 1: 1.5})
    assert _same_examples.alike({}, {})


def test_tokens_are_compared_with_samples_by_document() -> None:
    tokens = np.arange(5 * 40).reshape(5, 40)
    tokens[3, 10:] = tokens[1, 10:]  # the same text around position 25, and another before
    mine = {(0, 3): 2.0, (1, 25): 1.5, (2, 7): 1.0, (4, 7): 0.5}
    other = {(0, 3): 2.0, (0, 4): 1.9, (3, 25): 1.5, (1, 25): 1.5, (1, 26): 1.4, (2, 7): 1.0}
    assert _same_examples.by_document(mine, other, tokens) == ({0: 2.0, 1: 1.5, 2: 1.0},) * 2
    tokens[3, 37] = -5  # at its edge
    assert _same_examples.by_document(mine, other, tokens)[1].keys() == {0, 1, 2, 3}


def test_batches_that_were_not_run_are_reckoned_from_those_that_were() -> None:
    assert dashboard.extrapolated([4.0, 6.0], 10, once=False) == 50.0
    assert dashboard.extrapolated([14.0, 3.0, 5.0], 10, once=True) == 14.0 + 9 * 4.0


def test_a_part_that_is_run_again_replaces_its_own_rows_alone() -> None:
    rows = [Trial("a", 2, 2, "", "", 3.0), Trial("b", 5, 5, "", "", 4.0)]
    before = reliability.joined(None, rows, {"load": 200, "flips": 3})
    again = reliability.joined(before, [Trial("b", 9, 8, "", "", 1.0)], {"flips": 9})
    assert [(one["what"], one["tried"], one["held"]) for one in again["trials"]] == [("a", 2, 2), ("b", 9, 8)]
    assert again["options"] == {"load": 200, "flips": 9} and (before["took_s"], again["took_s"]) == (7, 4)
    untimed = {"trials": [{"what": "a", "tried": 1, "held": 1, "how": "", "command": ""}], "options": {"kills": 1}}
    assert reliability.joined(untimed, rows[1:], {})["took_s"] is None


def test_a_part_that_does_not_exist_is_refused(tiny_root: Path) -> None:
    done = saevx("bench", "reliability", "--demo", tiny_root, "--small", "--only", "nosuch")
    assert done.status == 1 and "choose among kills-of-precompute" in done.err


def test_advice_where_there_is_no_such_benchmark_or_demo(tiny_root: Path, tmp_path: Path) -> None:
    wrong = saevx("bench", "nosuch", "--demo", tiny_root)
    assert wrong.status == 1 and "choose one of" in wrong.err and "collect" in wrong.err
    absent = saevx("bench", "collect", "--demo", tmp_path)
    assert absent.status == 1 and "saevx demo" in absent.err
