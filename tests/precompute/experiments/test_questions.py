"""Questions for `saevx patches`: true, each with one sure answer, as many of each kind, the same bytes each time."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from precompute.data.rows import read
from precompute.demo.scenes import make_scene
from precompute.errors import SaevxError
from precompute.experiments.questions import FIRST, KINDS, questions, write


def test_answers_are_true_and_sure() -> None:
    """Against the scene's own truth, told anew."""
    query = questions(80)
    assert Counter(one.kind for one in query) == dict.fromkeys(KINDS, 20)
    for one in query:
        assert one.scene.index >= FIRST and one.scene == make_scene("validation", one.scene.index)
        shapes = [e for e in one.scene.entities if e.colour]
        if one.kind == "background":
            right = {one.scene.background}
        elif one.kind == "object":
            right = {e.noun for e in one.scene.entities}
            assert not shapes and len(one.scene.entities) == 1
        elif one.kind == "shape":
            right = {e.noun for e in shapes}
        else:
            noun = one.text.rstrip("?").split()[-1]
            right = {str(e.colour) for e in shapes if noun in ("shape", e.noun)}
            assert noun == "shape" or sum(e.noun == noun for e in shapes) == 1
        assert right == {one.answer}, one


@pytest.mark.parametrize("n", [1, 6, 9])
def test_kinds_are_as_even_as_they_can_be(n: int) -> None:
    counts = Counter(one.kind for one in questions(n))
    assert sum(counts.values()) == n and max(counts.values()) - min(counts[kind] for kind in KINDS) <= 1


def test_the_folder_is_read_as_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = subprocess.run(
            [sys.executable, "-m", "precompute.experiments.questions", str(tmp_path / name), "--n", "8"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / name), done.stderr
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 9
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    rows = read(tmp_path / "a").rows
    assert len({row.sample_id for row in rows}) == 8 and all(len(row.images) == 1 for row in rows)
    for row in rows:
        assert set(row.extra) == {"file_name", "answer", "kind"}
        with row.images[0].open("rb") as file, Image.open(file) as image:
            assert image.size == (224, 224)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(SaevxError, match="not empty"):
        write(tmp_path, 4)
    lines = subprocess.run(
        [sys.executable, "-m", "precompute.experiments.questions", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert lines.returncode == 1 and lines.stderr.count("\n") == 1 and "Traceback" not in lines.stderr
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["mine"]'
