"""docs/architecture.md shows the code as it is: its picture is drawn from today's imports, and what it names exists."""

import re
from pathlib import Path

import pytest

from tests.helpers.architecture import PAGE, PICTURE, ROOT, picture
from tests.helpers.architecture import page as rendered_page

DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_picture_is_drawn_from_the_imports() -> None:
    stale = "docs/img/architecture.svg is stale: run python -m tests.helpers.architecture"
    assert PICTURE.read_text(encoding="utf-8") == picture(), stale
    assert PAGE.read_text(encoding="utf-8") == rendered_page(), "docs/architecture.md is stale: run the same command"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_file_of_the_code_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"`((?:precompute|backend|frontend|tests|docs)/[\w./-]*)`", text)
    missing = [name for name in names if "NAME" not in name and not (ROOT / name).exists()]
    programs = re.findall(r"python -m ((?:precompute|tests)[\w.]*)", text)
    files = {name: ROOT / name.replace(".", "/") for name in programs}
    missing += [
        name
        for name, path in files.items()
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists()
    ]
    assert not missing, missing


def headings(page: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in headings(file.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert not wrong, wrong


def test_each_question_is_answered_by_the_file_it_names() -> None:
    """What the questions ask for is in the files of the table."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Questions")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+\?) \| `([^`]+)`", table, re.M))
    words = {
        "ω": "omega", "`cross-modal`": '"cross-modal"', "EXIF": "exif", "`/quality`": "select(", "Foo-VL": "FAMILIES",
        "killed": "def missing", "partners": "def partners", "steering": "class Steer", "its name": "def choose",
        "configuration": "read_json", "ranked": "def rank", "flipped": "def checksums",
        "scorecard on": "def scorecard(",
    }  # fmt: skip
    assert len(rows) == len(words)
    for name, function in re.findall(r"\| `([^`]+)`, in `(\w+)`", table):
        assert f"def {function}(" in (ROOT / name).read_text(encoding="utf-8"), (name, function)
    for question, name in rows.items():
        word = next(text for key, text in words.items() if key in question)
        assert word in (ROOT / name).read_text(encoding="utf-8"), (question, name)
