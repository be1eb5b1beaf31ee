"""The colours of activation: even steps for every kind of colour vision, and the outline of what is strong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from backend.drawing.heat import LEVELS, heat, outline
from backend.schemas.common import View
from tests.helpers.colours import COLOUR_BLIND, RAMPS, linear, oklab, palette, ramp
from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

RED = word_feature("red")


@pytest.mark.parametrize(("prefix", "theme"), RAMPS)
def test_the_table_follows_its_formula(prefix: str, theme: int) -> None:
    colours = palette(theme)
    assert [colours[f"{prefix}{k}"] for k in range(1, LEVELS + 1)] == ramp(prefix, theme)


@pytest.mark.parametrize("sight", ["normal", *COLOUR_BLIND])
@pytest.mark.parametrize(("prefix", "theme"), RAMPS)
def test_steps_grow_in_lightness_and_stay_apart(prefix: str, theme: int, sight: str) -> None:
    seen = np.array(COLOUR_BLIND.get(sight, np.eye(3)))
    colours = palette(theme)
    lab_k = np.array([oklab((seen @ linear(colours[f"{prefix}{k}"])).clip(0, 1)) for k in range(1, LEVELS + 1)])
    steps = np.diff(lab_k[:, 0])
    assert (np.sign(steps) == np.sign(steps[0])).all(), steps
    apart = np.linalg.norm(lab_k[:, None] - lab_k[None], axis=-1) + np.eye(LEVELS)
    assert apart.min() > 0.02, apart.round(3)  # neighbours are told apart, and so are all others
    assert (np.linalg.norm(lab_k[0] - lab_k[-1])) > 0.2


def test_weak_is_pale_on_paper_and_dark_on_a_dark_page() -> None:
    for theme, sign in ((0, -1), (1, 1)):
        colours = palette(theme)
        lightness = [sign * oklab(linear(colours[f"t{k}"]))[0] for k in range(1, LEVELS + 1)]
        assert lightness == sorted(lightness)


def edges(path: str) -> list[tuple[float, ...]]:
    """The lines of an outline as x0, y0, x1, y1."""
    lines = re.findall(r"M([\d.]+) ([\d.]+)([hv])([\d.]+)", path)
    return sorted(
        (float(x), float(y), float(x) + float(by) * (way == "h"), float(y) + float(by) * (way == "v"))
        for x, y, way, by in lines
    )


def test_the_outline_goes_around_what_is_above_half_of_the_scale() -> None:
    view = View(rows=3, cols=3, box=[0, 0, 3, 3])
    drawn = heat(view, [[8, 8, 1], [5, 4, 0], [None, 0, 8]], top=8, size=(3, 3))
    inside = {(0, 0), (0, 1), (1, 0), (2, 2)}
    naive = []
    for row, col in inside:
        around = ((-1, 0, 0, 0, 1, 0), (1, 0, 0, 1, 1, 1), (0, -1, 0, 0, 0, 1), (0, 1, 1, 0, 1, 1))
        for down, right, x0, y0, x1, y1 in around:
            if (row + down, col + right) not in inside:
                naive.append((col + x0, row + y0, col + x1, row + y1))
    assert edges(drawn.edge) == sorted(naive) == edges(outline(view, inside))
    assert heat(view, [[4, 1, 0]] * 3, top=8, size=(3, 3)).edge == ""


def test_a_script_draws_the_same_outline(context: BrowserContext) -> None:
    page = context.new_page()
    sample = page.request.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"][0]["sample_id"]
    page.goto(f"/samples/{sample}?f={RED}")
    drawn = page.get_by_test_id("heat").first.locator(".edge:not(.case)").get_attribute("d")
    assert drawn and edges(drawn)
    page.goto(f"/samples/{sample}")
    page.get_by_test_id("sample").locator(f'a.label[data-feature="{RED}"]').first.hover()
    by_script = page.get_by_test_id("heat").first.locator(".edge:not(.case)")
    by_script.wait_for(state="attached")
    assert edges(by_script.get_attribute("d") or "") == edges(drawn)
