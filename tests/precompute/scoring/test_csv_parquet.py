"""Texts in a CSV file that a spreadsheet would compute (CWE-1236; OWASP, *CSV Injection*)."""

import csv
import io

import pytest

from precompute.scoring.csv_parquet import csv_parts, plain_cell

FORMULAS = [
    "=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", '=HYPERLINK("http://example.org")',
    "=cmd|'/c calc'!A1",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_begins_as_a_formula_is_text(text: str) -> None:
    body = "".join(csv_parts(["id", text], [[(text, f"a {text}")]]))
    head, row = csv.reader(io.StringIO(body, newline=""))
    assert head == ["id", f"'{text}"] and row == [f"'{text}", f"a {text}"]


def test_numbers_and_other_texts_are_as_they_are() -> None:
    for value in (-1, -0.5, 1e-9, None, True, "", "a=b", "'quoted'", " =1", "e@f"):
        assert plain_cell(value) == value and type(plain_cell(value)) is type(value)
