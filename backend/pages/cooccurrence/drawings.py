"""The matrix of families and the graph of one feature as drawings: places and levels for cooccurrence.html."""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from backend.drawing.figures import with_noun
from backend.drawing.heat import LEVELS
from backend.drawing.text import cut_text
from backend.pages.sample.marks import short_name
from backend.schemas.cooccurrence import Link, PairGraph, PairMatrix
from backend.schemas.features import FeatureRef

F = TypeVar("F", bound=FeatureRef)
CELL = 24
"""Side of a cell: what a finger can hit."""
LETTER, SLANT = 6.9, math.radians(55)
"""Width of a letter of a name, and how steep the names of columns are."""
GRAPH_WIDTH, GRAPH_LINE, NAME_WIDTH = 380, 34, 98.0


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


def in_words(link: Link, a: str, b: str) -> str:
    """A pair in one line, for readers of a cell or a line."""
    interval = f"{link.lift_low:.1f} to {link.lift_high:.1f}"
    return f"{a} with {b}: lift {link.lift:.1f} ({interval}), {with_noun(link.support, 'sample')}"


def draw_matrix(matrix: PairMatrix) -> Matrix:
    """Rows from top to bottom, columns from left to right; a matrix of one modality has each pair twice."""
    top = max((cell.lift_low for cell in matrix.cells), default=1.0)
    rows = [name_of(feature) for feature in matrix.rows]
    columns = [name_of(feature) for feature in matrix.columns]
    row_names = [row.partition("; ")[0] if matrix.kind.startswith("text") else row for row in rows]
    row_texts = [cut_text(name, 24) for name in row_names]
    column_texts = [cut_text(name, 24) for name in columns]
    left, slope = (round(LETTER * max(map(len, texts), default=0)) + 12 for texts in (row_texts, column_texts))
    space_above = round(slope * math.sin(SLANT))
    places: dict[tuple[int, int], Cell] = {}
    for cell in matrix.cells:
        words = in_words(cell, rows[cell.row], columns[cell.column])
        at = [(cell.row, cell.column)]
        if matrix.kind != "text-image":
            at.append((cell.column, cell.row))
        for row, column in at:
            x, y = left + column * CELL, space_above + row * CELL
            places[row, column] = Cell(x, y, level_of(cell.lift_low, top), cell.a, cell.b, words)
    return Matrix(
        left + CELL * len(columns) + round(slope * math.cos(SLANT)),
        space_above + CELL * len(rows) + 4,
        left,
        space_above,
        [
            Name(left - 6, space_above + CELL * (i + 0.5), feature.id, text, name)
            for i, (feature, text, name) in enumerate(zip(matrix.rows, row_texts, rows, strict=True))
        ],
        [
            Name(left + CELL * (i + 0.5), space_above - 6, feature.id, text, name)
            for i, (feature, text, name) in enumerate(zip(matrix.columns, column_texts, columns, strict=True))
        ],
        [places[at] for at in sorted(places)],
        top,
    )


def with_own_labels(graph: PairGraph, labels: Mapping[int, str]) -> PairGraph:
    """The same graph with the labels that people gave, by number, in place of the automatic names."""

    def with_name(ref: F) -> F:
        return ref.model_copy(update={"label": labels[ref.id], "label_score": 1.0}) if ref.id in labels else ref

    update = {"feature": with_name(graph.feature), "partners": [with_name(partner) for partner in graph.partners]}
    return graph.model_copy(update=update)


def draw_graph(graph: PairGraph) -> Graph:
    """The feature in the middle, partners on text at the left and on the image at the right."""
    sides = {m: [p for p in graph.partners if p.modality == m] for m in ("text", "image")}
    height = max(3, *(len(p) for p in sides.values())) * GRAPH_LINE + 10
    middle_text = name_of(graph.feature)
    side_x = {"text": NAME_WIDTH, "image": GRAPH_WIDTH - NAME_WIDTH}
    places = {
        (p.id, m): (side_x[m], (i + 0.5) * (height - 10) / len(side) + 5)
        for m, side in sides.items()
        for i, p in enumerate(side)
    }
    nodes = {
        m: [Name(*places[p.id, m], p.id, cut_text(name_of(p), 14), short_name(p)) for p in side]
        for m, side in sides.items()
    }
    names = {p.id: short_name(p) for p in graph.partners} | {graph.feature.id: middle_text}
    top = max((p.lift_low for p in [*graph.partners, *graph.links]), default=1.0)
    cx, cy = GRAPH_WIDTH / 2, height / 2
    edges, links = [], []
    for partner in graph.partners:
        x, y = places[partner.id, partner.modality]
        d, words = f"M{cx:.5g} {cy:.5g}L{x:.5g} {y:.5g}", in_words(partner, names[partner.a], names[partner.b])
        edges.append(Edge(d, level_of(partner.lift_low, top), partner.kind, partner.a, partner.b, words))
    for link in graph.links:
        side_a, side_b = link.kind.split("-")
        (x0, y0), (x1, y1) = places[link.a, side_a], places[link.b, side_b]
        bow = 0 if side_a != side_b else (-26 if side_a == "text" else 26)  # lines within a side bend outwards
        d = f"M{x0:.5g} {y0:.5g}Q{(x0 + x1) / 2 + bow:.5g} {(y0 + y1) / 2:.5g} {x1:.5g} {y1:.5g}"
        words = in_words(link, names[link.a], names[link.b])
        links.append(Edge(d, level_of(link.lift_low, top), link.kind, link.a, link.b, words))
    centre = Name(cx, cy, graph.feature.id, cut_text(middle_text, 22), middle_text)
    return Graph(GRAPH_WIDTH, height, centre, nodes["text"], nodes["image"], edges, links)
