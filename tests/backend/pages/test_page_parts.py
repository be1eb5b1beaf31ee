"""Geometry that templates draw: levels, heat paths, bars."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.drawing.charts import HEIGHT, SMALL_MAP, WIDTH, chart, curves, omega_scale, place_map, verdict_bar
from backend.drawing.figures import format_percent, format_short, format_significant
from backend.drawing.heat import LEVELS, heat, level, token_runs
from backend.drawing.text import display_caption, visible
from backend.schemas.common import Histogram, View
from backend.schemas.features import TokenActivation
from backend.templating import address, templates


@given(st.floats(0, 1e4), st.floats(1e-3, 1e4))
def test_level_is_a_share_of_the_top(value: float, top: float) -> None:
    step = level(value, top)
    assert (step == 0) == (value == 0)
    assert step == LEVELS if value >= top else step - 1 <= LEVELS * value / top <= step + 1e-9


def test_level_of_nothing() -> None:
    assert level(None, 1.0) == level(float("nan"), 1.0) == level(1.0, 0.0) == 0


def test_numbers_in_narrow_fields_are_short() -> None:
    assert [format_significant(one) for one in (-0.12345, 1.5, -2e-7)] == ["−0.123", "1.5", "−2e−07"]
    assert [format_percent(one) for one in (-0.02, 1e-7)] == ["−2 %", "1e−05 %"]
    assert [format_short(one) for one in (0, 1, 65536, 6.7412e-5, 0.123456)] == ["0", "1", "65536", "6.74e−5", "0.123"]


def test_tokens_of_a_window_carry_their_space_apart() -> None:
    words = [TokenActivation(text=one, position=i, activation=i) for i, one in enumerate((" red", "dish", "", " "))]
    drawn = token_runs(words, 3.0)
    assert [(one.spaced, one.text, one.level > 0) for one in drawn] == [
        (True, "red", False),
        (False, "dish", True),
        (False, "∅", True),
        (False, "␣", True),
    ]


letters = st.characters(categories=["L", "N", "P", "S"])


@given(
    st.lists(
        st.tuples(
            st.builds(str.__add__, st.sampled_from(["", " "]), st.text(letters, min_size=1, max_size=4)),
            st.none() | st.just(0.0) | st.floats(0.01, 9),
        )
    )
)
def test_tokens_of_a_window_keep_the_text_and_every_active_token(words: list[tuple[str, float | None]]) -> None:
    given = [TokenActivation(text=text, position=i, activation=z) for i, (text, z) in enumerate(words)]
    drawn = token_runs(given, 9.0)
    assert "".join(" " * one.spaced + one.text for one in drawn) == "".join(text for text, _ in words)
    assert [(one.position, one.value) for one in drawn if one.level] == [(i, z) for i, (_, z) in enumerate(words) if z]
    assert not any(not one.level and not after.level for one, after in pairwise(drawn))


def test_tokens_of_a_character_are_drawn_once_where_nothing_tells_them_apart() -> None:
    words = [("红", 0.0), ("⟨BA⟩", 0.0), ("⟨A2⟩", 3.0), ("色", None), ("⟨89⟩⟨B2⟩ a", 3.0)]
    drawn = token_runs([TokenActivation(text=t, position=i, activation=z) for i, (t, z) in enumerate(words)], 3.0)
    assert [one.text for one in drawn] == ["红", "·", "色", "· a"]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("dog", "dog"), ("\n", "⏎"), ("\n\n", "⏎⏎"), (".\n", ".⏎"), ("\t", "⇥"), ("\r", "␍"), ("\0", "␀"), (" ", "␣"),
        ("   ", "␣␣␣"), ("\u00a0", "⟨U+00A0⟩"), ("\u200b", "⟨U+200B⟩"), ("\u200d", "⟨U+200D⟩"), ("\ufe0f", "⟨U+FE0F⟩"),
        ("\u3164", "⟨U+3164⟩"), ("\u0301", "◌\u0301"), ("e\u0301", "e\u0301"), ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u202eabc", "⟨U+202E⟩abc"), ("", "∅"), ("👩\u200d💻", "👩\u200d💻"), ("⟨E7⟩", "⟨E7⟩"), ("猫", "猫"),
    ],
)  # fmt: skip
def test_every_token_has_something_to_see(text: str, drawn: str) -> None:
    assert visible(text) == drawn


def test_a_caption_without_anything_to_read_says_so() -> None:
    assert display_caption("") == "(no text)"
    assert display_caption(" \n") == "(only ␣⏎)"
    assert display_caption("a\nb") == "a\nb"


def test_numbers_as_pages_show_them() -> None:
    shown = templates.env.from_string(
        "{{ a|n }} {{ a|n(1) }} {{ b|n }} {{ c|n }} {{ d|big }} {{ b|big }} {{ e|pct }} {{ f|pct }}"
    )
    report = shown.render(a=1.23456, b=None, c=float("nan"), d=1234567, e=0.00012, f=0.5)
    assert report == "1.235 1.2 – – 1,234,567 – 0.012 % 50.0 %"
    assert templates.env.from_string("{{ 0.0|n }} {{ 0|pct }} {{ none|pct }}").render() == "0 0 % –"
    assert templates.env.from_string("{{ 0.251|width }} {{ -1|width }} {{ 7|width }} {{ none|width }}").render() == (
        "25.1 0.0 100.0 0.0"
    )


def boxes(path: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, one)) for one in re.findall(r"M([\d.-]+) ([\d.-]+)h([\d.-]+)v([\d.-]+)", path)]


def test_heat_puts_each_patch_where_it_lies() -> None:
    view = View(rows=2, cols=3, box=[10, 20, 70, 60])
    drawn = heat(view, [[0, 8, 0], [None, 0, 1]], top=8, size=(100, 80), peak=[30, 20, 50, 40])
    assert dict(drawn.paths).keys() == {1, 8}
    assert boxes(dict(drawn.paths)[8]) == [(30, 20, 20, 20)]
    assert boxes(dict(drawn.paths)[1]) == [(50, 40, 20, 20)]
    assert drawn.peak and boxes(drawn.peak) == [(30, 20, 20, 20)]


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (1, 3), (24, 24), (5, 20)])
def test_a_map_of_places_has_each_place_at_its_level(rows: int, columns: int) -> None:
    mean = [float((7 * i) % 11) for i in range(rows * columns)]
    drawn = place_map({"rows": rows, "columns": columns, "mean": mean})
    assert drawn is not None
    cells: dict[tuple[int, int], list[float]] = {}
    spans = [min(SMALL_MAP, size) for size in (rows, columns)]
    starts = [sorted({i * size // SMALL_MAP for i in range(SMALL_MAP)}) for size in (rows, columns)]
    for at, value in enumerate(mean):
        row, column = divmod(at, columns)
        y, x = (sum(first <= at for first in s) - 1 for s, at in zip(starts, (row, column), strict=True))
        cells.setdefault((y, x), []).append(value)
    means = {at: sum(values) / len(values) for at, values in cells.items()}
    top = max(means.values())
    naive = {at: level(value, top) for at, value in means.items() if value}
    assert {(int(y), int(x)): k for k, d in drawn.paths for x, y, _, _ in boxes(d)} == naive
    assert [drawn.rows, drawn.columns] == spans
    first = mean.index(max(mean))
    assert f"strongest in row {first // columns}, column {first % columns} of {rows} × {columns}" in drawn.title


def test_a_feature_that_fires_nowhere_has_no_map() -> None:
    assert place_map(None) is None and place_map({"rows": 1, "columns": 2, "mean": [0.0, 0.0]}) is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(1, 64))
def test_chart_loses_no_count(counts: list[int], most: int) -> None:
    edges = [float(i) for i in range(len(counts) + 1)]
    drawn = chart(Histogram(edges=edges, counts=counts), mark=edges[len(counts) // 2], max_bars=most)
    shown = sum(int(bar.title.rsplit(": ", 1)[1].replace(",", "")) for bar in drawn.bars)
    assert shown == sum(counts) and len(drawn.bars) <= most
    assert all((bar.height >= 1) == (not bar.title.endswith(": 0")) for bar in drawn.bars)


def test_chart_splits_at_the_mark() -> None:
    drawn = chart(Histogram(edges=[0, 1, 2, 3, 4], counts=[1, 2, 3, 4]), mark=2)
    assert [bar.over for bar in drawn.bars] == [False, False, True, True]
    assert drawn.mark == pytest.approx(8)


def test_split_fills_the_bar() -> None:
    parts = verdict_bar({"cross-modal": 1, "dead": 3})
    assert [(p.x, p.width) for p in parts] == [(0, 250), (250, 750)]


def test_omega_scale_goes_below_zero_only_where_needed() -> None:
    up = omega_scale(0.5, 0.25, 0.1, 0.3)
    assert up is not None and (up.zero, up.omega, up.base) == (10, 160, 85)
    down = omega_scale(0.5, -0.5, 0.9, 1.1)
    assert down is not None and (down.zero, down.base) == (160, 85)
    assert omega_scale(None, None, None, None) is None


def test_address_leaves_out_what_is_empty() -> None:
    result = address("/features", [("q", ""), ("sort", "lift"), ("min", None), ("f", [1, 2]), ("x", 0.5)])
    assert result == "/features?sort=lift&f=1&f=2&x=0.5"


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_curves_share_an_axis_and_break_where_nothing_was_measured() -> None:
    drawn = curves([0, 5, 10], [("text", "t", [4.0, None, 1.0]), ("image", "p", [2.0, 2.0, 2.0])])
    assert (drawn.low, drawn.high, drawn.start, drawn.end) == (0.0, 4.0, 0, 10)
    text, image = drawn.lines
    assert points(text.path) == [(0, 0), (WIDTH, HEIGHT * 0.75)] and text.path.count("M") == 2
    assert points(image.path) == [(0, HEIGHT / 2), (WIDTH / 2, HEIGHT / 2), (WIDTH, HEIGHT / 2)]
    assert image.path.count("M") == 1 and (text.last, image.last) == (1.0, 2.0)
    log = curves([1, 2, 3], [("loss", "b", [100.0, 10.0, 0.0])], log=True)
    assert points(log.lines[0].path) == [(0, 0), (WIDTH / 2, HEIGHT)] and log.low == 10


def test_long_curves_are_thinned_but_keep_their_end() -> None:
    n = 10_001
    drawn = curves(list(range(n)), [("a", "b", [float(i) for i in range(n)])], max_points=100)
    result = points(drawn.lines[0].path)
    assert 100 <= len(result) <= 102 and result[-1] == (WIDTH, 0) and drawn.lines[0].last == n - 1
    assert curves([], [("a", "b", [])]).lines == [] == curves([1], [("a", "b", [None])]).lines
