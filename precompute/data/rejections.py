"""Why rows are rejected, by kind: what a command says at its end, and what the explorer's front page and
`GET /rejected` count.

A store keeps each row's own reason as text. Its kind follows from that text by the patterns below, here and in SQL
alike.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from precompute.data.records import RejectedRow

ROW = "row"
"""`--id-column row` numbers the rows, unless they have a field of that name."""


class Kind(NamedTuple):
    """Reasons of one sort."""

    name: str
    predicate: str
    """Predicate of several rows: "have no text"."""
    patterns: tuple[str, ...]
    """Of the reasons, as SQL's LIKE takes them."""
    advice: str = ""
    """What to do about it, where there is something."""

    def sentence(self, n: int) -> str:
        """`2 have no text`, `1 has no text`."""
        verb, _, remainder = self.predicate.partition(" ")
        singular = {"have": "has", "are": "is"}.get(verb, verb + "s")
        return f"{n} {singular if n == 1 else verb} {remainder}"


KINDS: tuple[Kind, ...] = (
    Kind(
        "repeated-id", "repeat the id of an earlier row", ("its id % stands in an earlier row",),
        "use --id-column row to number them",
    ),
    Kind(
        "odd-id", "have an id that is no whole number and no string of at most 4,096 bytes",
        ("its id is neither %", "its id has more than %"),
    ),
    Kind(
        "damaged-tar", "stand for a tar that is damaged, cut short or without samples",
        ("shard % cannot be read%", "shard % ends %", "no member of shard %", "shard % is %"),
    ),
    Kind(
        "not-json", "are not one row as a JSON object in UTF-8",
        (
            "it is not valid Unicode%", "it is not valid JSON%", "it is not a JSON object%", "of its member %",
            "its member % is not valid Unicode%", "its text file % is not valid Unicode%", "it is one JSON object %",
        ),
    ),
    Kind(
        "web-image", "name an image by its address on the web", ("its image is an address on the web%",),
        "download the images and name their files",
    ),
    Kind(
        "outside-image", "name an image outside the image folder", ("its image % lies outside the image folder",),
        "--image-folder names another folder, --allow-outside reads images anywhere: for data that you trust",
    ),
    Kind(
        "odd-image-name", "stand for an image whose name is not valid Unicode (UTF-8)",
        ("its image's name % is not valid Unicode%",), "rename the images",
    ),
    Kind(
        "missing-image", "name an image that is not there", ("there is no image %",),
        "--image-folder says where paths start",
    ),
    Kind(
        "text-model", "have an image, and the model reads text only",
        ("it has an image, and the model reads text only",), "--text-only leaves the images out",
    ),
    Kind(
        "no-text", "have no text",
        (
            "it has no text%", "it has neither image nor text", "it has no field 'text'",
            "its field % is not a string", "it has no % answer", "its conversation %",
            "a turn of its conversation %", "its member % of text", "its text file % of text",
        ),
        "--text-column names its field",
    ),
    Kind(
        "no-image", "have no image",
        (
            "it has no image%", "one of its images is missing",
            "its field % is not a path", "it has no field 'image'", "it has no field 'images'",
            "it has no field 'file_name'", "it has no field 'file_names'",
        ),
        "--image-column names its field",
    ),
    Kind(
        "no-field", "lack a field that they need", ("it has no field %",),
        "--image-column and --text-column name other fields",
    ),
    Kind(
        "unreadable-image", "have no readable image", ("its image %", "its member % is stored in pieces"),
    ),
    Kind("image-marks", "have marks for images in their text", ("its text speaks of %", "its text holds %")),
    Kind("too-long", "are longer than the model's context", ("it has % tokens, more than %",)),
    Kind("processor", "are refused by the model's processor", ("the model's processor %",)),
    Kind("not-finite", "give values that are not finite", ("% not finite%", "% too large for float16%")),
    Kind("other", "have other reasons", ("%",)),
)  # fmt: skip


@cache
def _patterns() -> list[tuple[Kind, re.Pattern[str]]]:
    return [
        (kind, re.compile("|".join(".*".join(map(re.escape, p.split("%"))) for p in kind.patterns), re.I | re.S))
        for kind in KINDS
    ]


def kind_of(reason: str) -> str:
    """Name of the first kind that a reason fits."""
    return next(kind.name for kind, pattern in _patterns() if pattern.fullmatch(reason))


def count_kinds(reasons: Iterable[str]) -> dict[str, int]:
    """Rows of each kind, the most frequent first."""
    return by_frequency(Counter(map(kind_of, reasons)))


def by_frequency(n_by_kind: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(n_by_kind.items(), key=lambda item: (-item[1], item[0])))


def advice_of(kind: Kind, id_column: str | None = None) -> str:
    """What to do about a kind, unless it has been done."""
    uses_rows = kind.name == "repeated-id" and id_column is not None and id_column.lower() == ROW
    return "" if uses_rows else kind.advice


def counts_by_kind(n_by_kind: Mapping[str, int], id_column: str | None = None) -> str:
    """`1000 repeat the id of an earlier row (use --id-column row to number them), 200 have no readable image`."""
    by_name = {kind.name: kind for kind in KINDS}
    parts = []
    for name, n in n_by_kind.items():
        advice = advice_of(by_name[name], id_column)
        parts.append(by_name[name].sentence(n) + (f" ({advice})" if advice else ""))
    return ", ".join(parts)


def summary(n_by_kind: Mapping[str, int], id_column: str | None = None) -> str:
    """`1200 rows rejected: ` and the counts; empty where no row is."""
    n = sum(n_by_kind.values())
    return f"{n} row{'s' * (n != 1)} rejected: {counts_by_kind(n_by_kind, id_column)}" if n else ""


def summary_of(rejected_rows: Iterable[RejectedRow], id_column: str | None = None) -> str:
    """`summary` of rows."""
    return summary(count_kinds(row.reason for row in rejected_rows), id_column)


def all_rejected_message(subject: str, rejected_rows: Sequence[RejectedRow], id_column: str | None = None) -> str:
    """One sentence for data of which every row is rejected.

    Args:
        subject: its beginning, such as `DATA holds no usable row`.
    """
    if not rejected_rows:
        return f"{subject}: there is no row."
    first = min(rejected_rows)
    return f"{subject}: {summary_of(rejected_rows, id_column)}; the first: {first.reason}."
