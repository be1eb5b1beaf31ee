"""docs/demo.md shows what the committed result files say."""

import json
from pathlib import Path

import pytest

from precompute.demo.evaluation import report

ROOT = Path(__file__).resolve().parents[4]


def test_the_page_is_not_stale() -> None:
    page = (ROOT / report.PAGE).read_text(encoding="utf-8")
    assert report.rendered_page(page, ROOT / report.RESULTS) == page, "run python -m precompute.demo.evaluation.report"


def test_a_changed_result_changes_the_page(tmp_path: Path) -> None:
    for path in (ROOT / report.RESULTS).glob("demo-*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    details = json.loads((tmp_path / "demo-store.json").read_text())
    details["search"]["the word alone"]["found"] -= 1
    (tmp_path / "demo-store.json").write_text(json.dumps(details))
    page = (ROOT / report.PAGE).read_text(encoding="utf-8")
    assert report.rendered_page(page, tmp_path) != page


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="no marks"):
        report.rendered_page("# nothing\n")
