"""The matrix of families and the graph of one feature as drawings: places and levels for cooccurrence.html."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from backend.drawing.heat import LEVELS
from backend.pages.sample.marks import short_name
from backend.schemas.cooccurrence import Link, PairGraph, PairMatrix
from backend.schemas.features import FeatureRef

F = TypeVar("F", bound=FeatureRef)
CELL = 24
"""Side of a cell: what a finger can hit."""
LETTER, SLANT = 6.9, math.radians(55)
"""Width of a letter of a name, and how steep the names of columns are."""
GRAPH_WIDTH, GRAPH_LINE = 380, 34


class Cell(NamedTuple):
    """A cell of the matrix."""

    x: int
    y: int
    level: int
    a: int
    b: int
    words: str


class Name(NamedTuple):
    """A name beside a row, above a column or at a node of the graph."""

    x: float
    y: float
    id: int
    text: str
    full: str


class Matrix(NamedTuple):
    """What the template draws."""

    width: int
    height: int
    left: int
    """Where the cells begin, as `above`."""
    above: int
    rows: list[Name]
    columns: list[Name]
    cells: list[Cell]
    top: float
    """Lower bound of the lift at the last level."""


class Edge(NamedTuple):
    """A line of the graph."""

    d: str
    level: int
    kind: str
    a: int
    b: int
    words: str


class Graph(NamedTuple):
    """What the template draws."""

    width: int
    height: int
    middle: Name
    texts: list[Name]
    images: list[Name]
    edges: list[Edge]
    """From the feature to its partners."""
    links: list[Edge]
    """Between partners."""


def level_of(lift_low: float, top: float) -> int:
    """1 … LEVELS, in proportion to the logarithm of the lift's lower bound."""
    if lift_low <= 1 or top <= 1:
        return 1
    return min(LEVELS, max(1, math.ceil(LEVELS * math.log(lift_low) / math.log(top))))


def name_of(feature: FeatureRef) -> str:
    """A feature's name without its number: many stand in little space."""
    return short_name(feature).rpartition(" #")[0]


def cut(text: str, n: int) -> str:
    """At most n characters."""
    return text if len(text) <= n else text[: n - 1] + "…"


def in_words(link: Link, a: str, b: str) -> str:
    """A pair in one line, for readers of a cell or a line."""
    interval = f"{link.lift_low:.1f} to {link.lift_high:.1f}"
    return f"{a} with {b}: lift {link.lift:.1f} ({interval}), {link.support:,} samples"


def draw_matrix(matrix: PairMatrix) -> Matrix:
    """Rows from top to bottom, columns from left to right; a matrix of one modality has each pair twice."""
    top = max((cell.lift_low for cell in matrix.cells), default=1.0)
    rows = [name_of(one) for one in matrix.rows]
    columns = [name_of(one) for one in matrix.columns]
    row_texts = [cut(one.partition("; ")[0] if matrix.kind.startswith("text") else one, 24) for one in rows]
    column_texts = [cut(one, 34) for one in columns]
    left, slope = (round(LETTER * max(map(len, texts), default=0)) + 12 for texts in (row_texts, column_texts))
    above = round(slope * math.sin(SLANT))
    places: dict[tuple[int, int], Cell] = {}
    for cell in matrix.cells:
        words = in_words(cell, rows[cell.row], columns[cell.column])
        at = [(cell.row, cell.column)]
        if matrix.kind != "text-image":
            at.append((cell.column, cell.row))
        for row, column in at:
            x, y = left + column * CELL, above + row * CELL
            places[row, column] = Cell(x, y, level_of(cell.lift_low, top), cell.a, cell.b, words)
    return Matrix(
        left + CELL * len(columns) + round(slope * math.cos(SLANT)),
        above + CELL * len(rows) + 4,
        left,
        above,
        [
            Name(left - 6, above + CELL * (i + 0.5), one.id, text, full)
            for i, (one, text, full) in enumerate(zip(matrix.rows, row_texts, rows, strict=True))
        ],
        [
            Name(left + CELL * (i + 0.5), above - 6, one.id, text, full)
            for i, (one, text, full) in enumerate(zip(matrix.columns, column_texts, columns, strict=True))
        ],
        [places[at] for at in sorted(places)],
        top,
    )


def with_own_labels(graph: PairGraph, labels: Mapping[int, str]) -> PairGraph:
    """The same graph with the labels that people gave, by number, in place of the automatic names."""

    def named(one: F) -> F:
        return one.model_copy(update={"label": labels[one.id], "label_score": 1.0}) if one.id in labels else one

    update = {"feature": named(graph.feature), "partners": [named(one) for one in graph.partners]}
    return graph.model_copy(update=update)


def draw_graph(graph: PairGraph) -> Graph:
    """The feature in the middle, partners on text at the left and on the image at the right."""
    sides = {m: [one for one in graph.partners if one.modality == m] for m in ("text", "image")}
    height = max(3, *(len(one) for one in sides.values())) * GRAPH_LINE + 10
    middle_text = name_of(graph.feature)
    places = {
        (one.id, m): ((98.0 if m == "text" else GRAPH_WIDTH - 98.0), (i + 0.5) * (height - 10) / len(side) + 5)
        for m, side in sides.items()
        for i, one in enumerate(side)
    }
    nodes = {
        m: [Name(*places[one.id, m], one.id, cut(name_of(one), 14), short_name(one)) for one in side]
        for m, side in sides.items()
    }
    names = {one.id: short_name(one) for one in graph.partners} | {graph.feature.id: middle_text}
    top = max((one.lift_low for one in [*graph.partners, *graph.links]), default=1.0)
    cx, cy = GRAPH_WIDTH / 2, height / 2
    edges, links = [], []
    for one in graph.partners:
        x, y = places[one.id, one.modality]
        d, words = f"M{cx:.5g} {cy:.5g}L{x:.5g} {y:.5g}", in_words(one, names[one.a], names[one.b])
        edges.append(Edge(d, level_of(one.lift_low, top), one.kind, one.a, one.b, words))
    for link in graph.links:
        first, second = link.kind.split("-")
        (x0, y0), (x1, y1) = places[link.a, first], places[link.b, second]
        bow = 0 if first != second else (-26 if first == "text" else 26)  # lines of one side bend away from the middle
        d = f"M{x0:.5g} {y0:.5g}Q{(x0 + x1) / 2 + bow:.5g} {(y0 + y1) / 2:.5g} {x1:.5g} {y1:.5g}"
        words = in_words(link, names[link.a], names[link.b])
        links.append(Edge(d, level_of(link.lift_low, top), link.kind, link.a, link.b, words))
    middle = Name(cx, cy, graph.feature.id, cut(middle_text, 22), middle_text)
    return Graph(GRAPH_WIDTH, height, middle, nodes["text"], nodes["image"], edges, links)
