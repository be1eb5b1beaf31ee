"""How several features are drawn at once: each has a number and a hue of its own, `--q1 … --q5` in tokens.css.

A patch or a token has the hue of the feature that is strongest there, relative to its p99.9. The numbers say which
features fire: hue is never the only sign.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from backend.drawing.heat import LEVELS, finest, level, outline, patch_path
from backend.drawing.text import display_token
from backend.schemas.features import FeatureRef
from backend.schemas.samples import FeatureScale, GridValues, PairActivations
from precompute.store.schema import GOOD_NAME

MAX_CHOSEN = 5
N_NUMBERED = 2
"""Patches of a feature that carry its number: the strongest, from half of its largest activation on the image."""

Tops = Sequence[tuple[float, float]]
"""Of each chosen feature the activations of the last step of the scales of text and of images; see `heat.tops`."""


class Path(NamedTuple):
    """Patches of one class as an SVG path."""

    cls: str
    d: str


class Number(NamedTuple):
    """Numbers of features over the middle of a patch, in the pixels of the image."""

    text: str
    hue: int
    x: float
    y: float
    size: float


class ImageMarks(NamedTuple):
    """What is drawn over an image."""

    paths: list[Path]
    numbers: list[Number]


class Step(NamedTuple):
    """What is strongest on a patch or token."""

    hue: int
    """1 … MAX_CHOSEN in the order of the chosen features; 0 if none fires."""
    level: int


def strongest_step(values: Sequence[float | None], tops: Sequence[float]) -> Step:
    """Of the chosen features the one that is strongest relative to the last step of its scale."""
    shares = [(value or 0.0) / top if top > 0 else 0.0 for value, top in zip(values, tops, strict=True)]
    k = max(range(len(shares)), key=lambda i: shares[i], default=0)
    return Step(k + 1, level(shares[k], 1.0)) if shares and shares[k] > 0 else Step(0, 0)


def image_marks(grids: Sequence[GridValues], tops: Tops) -> ImageMarks:
    """Activations of the chosen features over one image, on the finest view in which any of them fires."""
    max_grids = [grid.model_copy(update={"values": [_max_values(grid)]}) for grid in grids if grid.values]
    grid = finest(max_grids)
    if grid is None:
        return ImageMarks([], [])
    values = next(g for g in grids if g.view == grid.view).values
    image_tops = [top for _, top in tops]
    paths: dict[str, str] = {}
    strong_cells = set()
    for row in range(grid.rows):
        for col in range(grid.cols):
            step = strongest_step([of_feature[row][col] for of_feature in values], image_tops)
            if step.hue:
                cls = f"h{step.level}" if len(values) == 1 else f"q{step.hue} h{step.level}"
                paths[cls] = paths.get(cls, "") + patch_path(grid, row, col)
                if step.level > LEVELS // 2:
                    strong_cells.add((row, col))
    areas = [Path(*item) for item in sorted(paths.items())]
    if len(values) > 1:
        return ImageMarks(areas, _numbers(grid, values))
    outlines = [Path(cls, outline(grid, strong_cells)) for cls in ("edge case", "edge") if strong_cells]
    return ImageMarks([*areas, *outlines], [])


def _max_values(grid: GridValues) -> list[list[float | None]]:
    return [
        [max((of_feature[row][col] or 0.0 for of_feature in grid.values), default=None) for col in range(grid.cols)]
        for row in range(grid.rows)
    ]


def _numbers(grid: GridValues, values: Sequence[Sequence[Sequence[float | None]]]) -> list[Number]:
    """The numbers over the strongest patches of each feature; those of one patch stand together."""
    on_patch: dict[tuple[int, int], list[int]] = {}
    for number, of_feature in enumerate(values, 1):
        places = [(-(value or 0), row, col) for row, line in enumerate(of_feature) for col, value in enumerate(line)]
        places = [place for place in sorted(places)[:N_NUMBERED] if place[0] < 0]
        for value, row, col in places:
            if value <= places[0][0] / 2:
                on_patch.setdefault((row, col), []).append(number)
    x0, y0, x1, y1 = grid.box
    width, height = (x1 - x0) / grid.cols, (y1 - y0) / grid.rows
    size = max(min(width, height) * 0.36, (y1 - y0) / 22)
    return [
        Number(" ".join(map(str, numbers)), numbers[0], x0 + (col + 0.5) * width, y0 + (row + 0.5) * height, size)
        for (row, col), numbers in sorted(on_patch.items())
    ]


def caption_tokens(
    activations: PairActivations, tops: Tops, failing_words: Sequence[str] = (), unread: int | None = None
) -> list[dict[str, Any]]:
    """The sample's own text tokens with what the chosen features do on each.

    Args:
        failing_words: texts of tokens that the reason of a flag names.
        unread: position of a word that is drawn though it is not read.
    """
    return [
        {
            "spaced": has_space,
            "text": shown_text,
            "bytes": t.text if shown_text == "·" else None,
            "position": t.position,
            "cls": token_class(strongest_step(t.values, [top for top, _ in tops]), len(tops)),
            "numbers": [i for i, value in enumerate(t.values, 1) if value] if len(tops) > 1 else [],
            "readout": readout(activations.features, t.values),
            "failing": t.text in failing_words,
            "unread": t.position == unread,
        }
        for t in activations.tokens
        if t.modality == "text" or t.position == unread
        for has_space, shown_text in [display_token(t.text)]
    ]


def token_class(step: Step, n_features: int) -> str:
    """The class of a token on which one of `n_features` chosen features is strongest."""
    if not step.hue:
        return ""
    return f" a{step.level}" if n_features == 1 else f" q q{step.hue}"


def readout(features: Sequence[FeatureScale], values: Sequence[float | None]) -> str:
    """Values at one place in words; frontend/static/js/sample.js has the same rule."""
    parts = [
        f"{short_name(feature)} {value:.2f} ({100 * value / feature.p999:.0f} % of p99.9)"
        for feature, value in zip(features, values, strict=True)
        if value and feature.p999 > 0
    ]
    return ", ".join(parts)


def short_name(feature: FeatureRef) -> str:
    """A feature's name, its description where the name fails its test, and its number."""
    is_good = feature.label_score is not None and feature.label_score >= GOOD_NAME
    return f"{feature.label if is_good else feature.description or feature.label or 'unlabelled'} #{feature.id}"
