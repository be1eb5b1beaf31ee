"""The parts of pages that are drawn in Python, beside the same as Jinja macros (macros.html): every byte."""

from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from backend.drawing import figures, parts
from backend.drawing.charts import Bar, bar_rects, place_map
from backend.drawing.heat import Heat, HeatImage, TokenRun
from backend.drawing.links import Linked
from backend.drawing.text import display_caption, visible
from backend.links import sample_path
from backend.schemas.features import Feature, FeatureRef
from backend.schemas.samples import SampleFamily
from backend.templating import address
from precompute.store.schema import GOOD_NAME, POSSIBLE_NAME

HOSTILE = "\"><script>alert('1')</script> &amp; \x07ü字"
ID = "a/b?c\"'<\n>"
OWN = {7: "<b>mine</b>"}


def page(path: str, **params: Any) -> str:
    return address(f"/tool{path}", [*params.items(), ("store", "a&b")])


def again(**params: Any) -> str:
    return address("/here", [*params.items(), ("q", HOSTILE)])


@pytest.fixture(scope="module")
def macros() -> Any:
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "n": figures.format_number, "big": figures.format_count, "pct": figures.format_percent,
        "width": figures.width_of, "bar_rects": lambda bars, *classes: bar_rects(tuple(bars), *classes),
        "visible": visible, "caption": display_caption,
        "sample_path": sample_path,
    }  # fmt: skip
    values = {
        "u": page, "again": again, "own_labels": OWN, "verdict_help": parts.VERDICT_HELP, "good_name": GOOD_NAME,
        "possible_name": POSSIBLE_NAME,
    }  # fmt: skip
    return env.get_template("macros.html").make_module(values)


def feature(**fields: Any) -> Feature:
    figures = dict.fromkeys(("density_text", "density_image", "max_activation", "p999"), 0.25)
    return Feature.model_validate({"id": 3, "verdict": "cross-modal", "n_samples": 9, **figures, **fields})


HEAT = Heat(20.0, 10, [(1, "M0 0h1v1h-1z"), (8, HOSTILE)], "M1 1h1", "M2 2h3")
NAMES: list[Any] = [
    feature(label=HOSTILE, label_score=0.87), feature(label="dog", label_score=0.6), feature(label="dog"),
    feature(label=HOSTILE, label_score=0.4, description=HOSTILE),
    feature(label=HOSTILE, label_score=0.56, description=HOSTILE), feature(description="fires on & <here>"), feature(),
    feature(id=7, label=HOSTILE, label_score=0.9), feature(id=7), FeatureRef(id=2, label="", label_score=1.0),
    {"id": 5, "label": HOSTILE, "label_score": None, "description": None, "verdict": "dead", "max_activation": 1.0},
]  # fmt: skip
FAMILY = SampleFamily(id=7, label="dog", n_alike=2, members=[7, 8, 9])
CARD = {
    "sample_id": ID, "text": HOSTILE, "url": f"/image?{HOSTILE}", "value": 0.123456, "flags": [], "reason": "",
    "own_label": None, "tags": [], "reviewed": False,
}  # fmt: skip
SIDES: list[tuple[str, float | None]] = [("text", 0.5), ("image", None)]
CASES: dict[str, list[tuple[Any, ...]]] = {
    "verdict": [("cross-modal",), (None,), (HOSTILE,)],
    "why": [("ω", "cross-modal-weight-ω"), (HOSTILE, HOSTILE)],
    "by_person": [()],
    "name_text": [(f,) for f in NAMES],
    "feature_name": [(f, link) for f in NAMES for link in (True, False)],
    "tag_chips": [
        ("/features", feature()), ("/features", feature(tags=[HOSTILE, "two words"])), ("/a", feature(reviewed=True)),
        ("/samples", {**CARD, "tags": ["<i>"], "reviewed": True}),
    ],
    "place_map": [(place_map({"rows": 2, "columns": 3, "mean": [0.0, 1.0, 2.0, 0.5, 0.0, 3.0]}),)],
    "share": [(0.25,), (None, "text"), (2.0, "image"), (-1, HOSTILE)],
    "image": [
        ("/a?b&c", HOSTILE), (HOSTILE, "", HEAT), ("/a", "x", Heat(3, 4.5, []), False, "square"),
        ("/a", "", Heat(3, 4, [(2, "M")], "M1"), True, HOSTILE),
    ],
    "tokens": [
        ([],),
        ([TokenRun(False, HOSTILE, 0, None, 0), TokenRun(True, "<b>", 1, 1.5, 3), TokenRun(True, "x", 2, 0.0, 8)], 2),
    ],
    "hist": [
        ([Bar(40.0, "1 to 2: 3"), Bar(0.0, ""), Bar(0.06, "2 to 3: 1", True)], HOSTILE, 3.25, "t", "p", -1.5),
        ([], "none"),
    ],
    "preview": [([HeatImage(HOSTILE, HEAT), HeatImage("/b", None)], []), ([], [HOSTILE, "b"]), ([], [])],
    "top_words": [({"text": {"word": HOSTILE, "n": 3, "of": 4}, "image": None},), ({"text": None, "image": None},)],
    "preview_link": [(3, Markup("<b>&amp;</b>")), (3, HOSTILE)],
    "feature_card": [
        (feature(label="dog", agreement=0.5), Markup("<i></i>"), Markup(" <b>word</b> ")), (feature(lift=-0.1), ""),
        (feature(place=HOSTILE), "", " "), (feature(place=HOSTILE), "", HOSTILE), (NAMES[-1], HOSTILE),
    ],
    "json_link": [(HOSTILE,)],
    "max_button": [()],
    "sample_link": [(CARD,), ({**CARD, "url": None},)],
    "sample_id_link": [(CARD,)],
    "sample_card": [
        (CARD,), ({**CARD, "url": None, "value": None, "flags": [HOSTILE, "b"]},), ({**CARD, "reason": HOSTILE},),
        ({**CARD, "own_label": HOSTILE, "tags": [HOSTILE], "reviewed": True, "text": ""},),
        ({name: CARD[name] for name in ("sample_id", "text", "url", "value", "flags", "reason")},),
    ],
    "hue": [(3, [3]), (3, [2, 3]), (3, [1, 2])],
    "alike": [([3, 4],), ([*range(600)],)],
    "pick_row": [
        (FAMILY, SIDES, [2, 7], lambda id: f"{id},3"), (NAMES[0], [], [], lambda id: None, "−0.5", 0.3),
        (FeatureRef(id=1, label=HOSTILE), [("text", 0.1), ("image", 1.5)], [1], lambda id: HOSTILE, HOSTILE),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_part_is_drawn_as_its_macro_draws_it(macros: Any, name: str) -> None:
    drawn = getattr(Linked(page, again, OWN), name, None) or getattr(parts, name)
    for arguments in CASES[name]:
        html = drawn(*arguments)
        assert isinstance(html, Markup)
        assert str(html) == str(getattr(macros, name)(*arguments)), arguments
        assert "<script" not in html


def test_a_card_ends_with_what_the_template_puts_in() -> None:
    def caller() -> Markup:
        return Markup("<form></form>")

    assert Linked(page, again, {}).sample_card(CARD, caller=caller).endswith("</div>\n<form></form></li>")
