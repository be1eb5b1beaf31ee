"""What users meet is documented: each score, flag and verdict in docs/method.md, each command in docs/commands.md."""

import re

import pytest

from backend.commands import Saevx
from precompute.store.schema import FLAGS, SCORES, VERDICTS
from tests.helpers.architecture import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("heading, names", [("Scoring", SCORES), ("Flags", FLAGS)])
def test_every_score_and_flag_has_its_line(heading: str, names: dict[str, object]) -> None:
    section = re.search(rf"^## {heading}.*?(?=^## )", page("method.md"), re.M | re.S)
    assert section is not None
    assert re.findall(r"^\| `([\w-]+)` \|", section[0], re.M) == list(names)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_defined(verdict: str) -> None:
    assert f"`{verdict}`" in page("method.md") and f"`{verdict}`" in page("glossary.md")


@pytest.mark.parametrize("command", Saevx.model_fields)
def test_every_command_is_listed(command: str) -> None:
    assert f"`saevx {command}" in page("commands.md")


def test_each_claim_about_security_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_changelog_has_one_set_of_sections() -> None:
    """A merge can bring old sections back: each heading of a version is one of these, and stands there once."""
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.M)[1:]
    assert versions
    for version in versions:
        headings = re.findall(r"^### (.*)", version, re.M)
        kinds = [heading.partition(":")[0] for heading in headings]
        assert len(set(headings)) == len(headings)
        assert set(kinds) <= {"Changed", "New", "Security and operation", "Measured", "Faster", "Fixed"}, headings
