"""An explanation as the page draws it: signed bars, marks on the image and on words, and patches in the address."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import HTTPException

from backend.drawing.figures import format_signed
from backend.drawing.heat import patch_path
from backend.drawing.text import display_token
from backend.pages.sample.marks import ImageMarks, image_marks, strongest_step, token_class
from backend.schemas.common import View
from backend.schemas.explain import ExplainedFeature, Explanation, Parts, Sides
from backend.schemas.samples import GridValues
from backend.schemas.steering import PatchAt

SIDES = {"image": "image", "text": "prompt", "answer": "answer before"}
"""Kinds of tokens as the page names them."""
RUN = re.compile(r"(\d{1,5}):(\d{1,5}):(\d{1,5})(?:-(\d{1,5}))?")
MAX_PATCHES = 20_000


class Piece(NamedTuple):
    """A piece of a signed bar, in percent of its half."""

    cls: str
    x: float
    width: float


class Bar(NamedTuple):
    """A signed figure with its bar: to the right of 0 what speaks for the word, to the left what speaks against it."""

    figure: str
    pieces: list[Piece]
    says: str
    """Its division by kind of token, in words."""


def signed(value: float, digits: int = 2) -> str:
    """With a sign; 0 where nothing is left of it."""
    text = format_signed(value, digits)
    return text if any(figure in "123456789" for figure in text) else "0"


def bar(sides: Sides, top: float) -> Bar:
    """Of parts by kind of token; `top` is the length of a half."""
    ends = {True: 0.0, False: 0.0}
    pieces, says = [], []
    for name, title in SIDES.items():
        value = getattr(sides, name)
        if not value:
            continue
        width = min(100.0, 100 * abs(value) / top) if top else 0.0
        raises = value > 0
        pieces.append(Piece(name, round(ends[raises] if raises else -ends[raises] - width, 2), round(width, 2)))
        ends[raises] += width
        says.append(f"{title} {signed(value)}")
    return Bar(signed(sides.image + sides.text + sides.answer), pieces, ", ".join(says))


def sums(parts: Parts) -> list[tuple[str, str, Bar]]:
    """(name, meaning, bar) of what the log-odds are divided into."""
    no_sides = Sides(text=0, image=0, answer=0)
    named_parts = [
        ("All features", "Σ z · direction · gradient", parts.features),
        ("SAE error", "what the SAE does not rebuild of h", parts.error),
        ("SAE bias", "what the SAE adds whatever is active", parts.bias),
    ]
    top = max([abs(parts.special), *(half_length(sides) for _, _, sides in named_parts)])
    special_bar = Bar(signed(parts.special), bar(no_sides, top).pieces, "template and sinks, not divided")
    width = 100 * abs(parts.special) / top if top else 0.0
    special_bar.pieces.append(Piece("special", round(0.0 if parts.special > 0 else -width, 2), round(width, 2)))
    rows = [(name, meaning, bar(sides, top)) for name, meaning, sides in named_parts]
    return [*rows, ("Special tokens", "template and attention sinks, not divided", special_bar)]


def half_length(sides: Sides) -> float:
    """Length of the longer half of a bar."""
    values = (sides.image, sides.text, sides.answer)
    return max(sum(v for v in values if v > 0), -sum(v for v in values if v < 0))


def feature_rows(explanation: Explanation) -> list[tuple[str, list[tuple[ExplainedFeature, Bar]], int]]:
    """(title, features with their bars, number of all) of those that speak for the word and against it."""
    groups = (
        ("For it", explanation.raising, explanation.n_raising),
        ("Against it", explanation.lowering, explanation.n_lowering),
    )
    top = max((half_length(f.sides) for _, features, _ in groups for f in features), default=0.0)
    return [(title, [(f, bar(f.sides, top)) for f in features], n) for title, features, n in groups]


def tops(features: Sequence[ExplainedFeature]) -> list[tuple[float, float]]:
    """Of each chosen feature the value of the last step of the colours: its largest part of its own sign."""
    parts = [[*(at.part for at in f.patches), *(at.part for at in f.tokens)] for f in features]
    largest_parts = [max((own_part(f, x) for x in xs), default=0.0) for f, xs in zip(features, parts, strict=True)]
    return [(part, part) for part in largest_parts]


def own_part(feature: ExplainedFeature, part: float) -> float:
    """A part as it is drawn: its size where it has the sign of the feature's whole part, else 0."""
    return max(0.0, part if feature.part > 0 else -part)


def marks(views: Sequence[View], subset: Sequence[ExplainedFeature], image: int) -> ImageMarks:
    """Over one image the patches on which the chosen features have their parts."""
    grids = []
    for v, view in enumerate(views):
        values = [[[0.0] * view.cols for _ in range(view.rows)] for _ in subset]
        for i, feature in enumerate(subset):
            for patch in feature.patches:
                if patch.view == v:
                    values[i][patch.row][patch.col] = own_part(feature, patch.part)
        grids.append(GridValues.model_validate({**view.model_dump(), "view": v, "values": values}))
    return image_marks([grid for grid in grids if grid.image == image], tops(subset)) if subset else ImageMarks([], [])


def read_tokens(explanation: Explanation, features: Sequence[ExplainedFeature]) -> list[dict[str, Any]]:
    """The text that the model read before the word, with what the chosen features do on each token."""
    by_position = [dict(f.tokens) for f in features]
    scale = [top for top, _ in tops(features)]
    rows = []
    for token in explanation.read:
        parts = [part_of.get(token.position, 0.0) for part_of in by_position]
        step = strongest_step([own_part(f, part) for f, part in zip(features, parts, strict=True)], scale)
        has_space, shown_text = display_token(token.text)
        title = ", ".join(f"#{f.id} {signed(part, 3)}" for f, part in zip(features, parts, strict=True) if part)
        cls = token_class(step, len(features))
        rows.append({"spaced": has_space, "text": shown_text, "cls": cls, "title": title, "side": token.side})
    return rows


# ---- patches in the address


def parse_runs(text: str) -> list[PatchAt]:
    """Patches from `view:row:first-last`, several with commas between. Raises HTTP 422."""
    patches: list[PatchAt] = []
    for run in filter(None, (part.strip() for part in text.split(","))):
        match = RUN.fullmatch(run)
        if match is None or len(patches) + int(match[4] or match[3]) - int(match[3]) >= MAX_PATCHES:
            raise HTTPException(422, f"patches: {run[:60]!r} is not view:row:first-last, such as 0:2:3-5.")
        view, row, first, last = (int(number or match[3]) for number in match.groups())
        patches += [PatchAt(view, row, col) for col in range(first, last + 1)]
    return patches


def runs(patches: Iterable[PatchAt]) -> str:
    """The patches as `parse_runs` reads them; frontend/static/js/patches.js has the same rule."""
    pieces: list[list[int]] = []
    for view, row, col in sorted(set(patches)):
        if pieces and pieces[-1][:2] == [view, row] and pieces[-1][3] == col - 1:
            pieces[-1][3] = col
        else:
            pieces.append([view, row, col, col])
    return ",".join(f"{v}:{r}:{a}" + (f"-{b}" if b > a else "") for v, r, a, b in pieces)


def patches_path(views: Sequence[View], patches: Sequence[PatchAt], image: int) -> str:
    """SVG path of patches of one image."""
    return "".join(
        patch_path(views[patch.view], patch.row, patch.col)
        for patch in patches
        if patch.view < len(views) and views[patch.view].image == image
    )
