"""The script for a GPU runs small without one, goes on where it stopped, and refuses what is no evidence."""

import json
import subprocess
from pathlib import Path

import pytest

from precompute.errors import SaevxError
from tests.bench import gpu


def test_all_parts_run_and_are_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--out", str(out), "--part", "image"]) == 0
    first = json.loads(out.read_text())["parts"]
    assert first.keys() == {"image"} and first["image"]["collect_over_forward"] > 0
    assert gpu.main(["--small", "--out", str(out)]) == 0
    parts = json.loads(out.read_text())["parts"]
    assert parts["image"] == first["image"] and parts.keys() == gpu.PARTS.keys()
    assert "passed" in parts["accumulators"]["summary"]
    assert parts["throughput"]["features_tokens_per_s"] > 0 and parts["throughput"]["tokens"] > 50
    capsys.readouterr()


def test_figures_of_the_smallest_size_are_no_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--small"]) == 1
    assert "--out" in capsys.readouterr().err


def test_a_checkout_with_changes_is_not_measured(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    assert len(gpu.measured_tree(tmp_path)) == 40
    (tmp_path / "new.txt").write_text("x")
    with pytest.raises(SaevxError, match="commit or remove"):
        gpu.measured_tree(tmp_path)
