"""Every benchmark runs once at its smallest size, so that none rots. No test here looks at a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench import _same_examples, dashboard, report
from tests.bench.common import Figure, met
from tests.bench.run import names
from tests.helpers.commands import run_saevx
from tests.helpers.demo import Demo


@pytest.mark.parametrize("name", names())
def test_it_runs(name: str, demo: Demo, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    run_saevx("bench", name, "--demo", demo.root, "--small", "--out", out)
    result = json.loads(out.read_text())
    assert result["name"] == name and result["figures"] and result["machine"]["versions"]["torch"]
    for figure in result["figures"]:
        assert figure.keys() == Figure.__required_keys__
        assert figure["value"] is None or math.isfinite(figure["value"])
    assert report.figures([result]).count("\n") == 1 + len(result["figures"])


def test_what_must_be_equal_is_equal() -> None:
    """The figures with = are no times: they hold at any size."""
    for path in sorted(Path("docs/results").glob("bench-*.json")):
        for figure in json.loads(path.read_text())["figures"]:
            if figure["sense"] == "=":
                assert met(figure), figure


def test_the_page_is_fresh() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench.report", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_advice_where_there_is_no_such_benchmark_or_demo(demo: Demo, tmp_path: Path) -> None:
    wrong = run_saevx("bench", "nosuch", "--demo", demo.root, check=False)
    assert wrong.returncode == 1 and "choose one of" in wrong.stderr and "collect" in wrong.stderr
    absent = run_saevx("bench", "collect", "--demo", tmp_path, check=False)
    assert absent.returncode == 1 and "saevx demo" in absent.stderr
