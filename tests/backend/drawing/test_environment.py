"""The pages' Jinja environment gives what Jinja's own gives."""

from typing import Any, NamedTuple

import pytest
from jinja2 import Environment, StrictUndefined, UndefinedError, select_autoescape
from markupsafe import Markup, escape

from backend.drawing.environment import PageEnvironment, escaped
from backend.schemas.features import FeatureRef

OPTIONS: dict[str, Any] = {"autoescape": select_autoescape(), "undefined": StrictUndefined}
HOSTILE = "<script>alert('1')</script> & \"two\" > \x00 ü 字"


class Link(NamedTuple):
    """A value with an attribute."""

    url: str


class Drawing:
    """A value that is HTML by itself."""

    def __html__(self) -> str:
        return "<b>&amp;</b>"


@pytest.mark.parametrize(
    "value", [HOSTILE, "", "plain", Markup("<b>'</b>"), Drawing(), 3, -1.5, None, True, ["<", HOSTILE], Link("<a>")]
)
def test_a_value_is_escaped_as_markupsafe_does(value: object) -> None:
    assert escaped(value) == str(escape(value))


def test_jinja_still_asks_the_environment_for_the_text_of_a_value() -> None:
    code = PageEnvironment(**OPTIONS).compile("{{ value }}", "page.html", raw=True)
    assert "environment.escaped(" in code and "escape(" not in code.replace("environment.escaped(", "")


TEMPLATE = """{% macro bold(text) %}<b title="{{ text }}">{{ text }}</b>
{{ caller() if caller is defined }}{% endmacro %}
{{ hostile }} {{ bold(hostile) }} {% call bold(1) %}{{ hostile }}{% endcall %} {% set part %}{{ hostile }}{% endset %}
{{ part }} {{ part|length }} {{ bold(part) ~ hostile }} {{ drawing }} {{ hostile|forceescape }} {{ hostile|safe }}
{% autoescape false %}{{ hostile }}{% endautoescape %} {% filter upper %}{{ hostile }}{% endfilter %}
{% for key, value in table.items() %}{{ key }}={{ value }} {% endfor %}
{{ table["items"] }} {{ table.name }} {{ table.get("x", 2) }}
{{ link.url }} {{ feature.label }} {{ feature["label"] }} {{ table.missing is defined }} {{ none.x is defined }}"""


@pytest.mark.parametrize("name", [None, "part.html", "part.xml", "part.css"])
def test_templates_give_the_same_text(name: str | None) -> None:
    values = {
        "hostile": HOSTILE,
        "drawing": Drawing(),
        "link": Link("/a?b&c"),
        "feature": FeatureRef(id=1, label="<i>"),
        "table": {"items": "an entry", "name": "'", "<": HOSTILE, "keys": 1},
    }
    texts = []
    for kind in (Environment, PageEnvironment):
        env = kind(**OPTIONS)
        template = env.template_class.from_code(env, env.compile(TEMPLATE, name), env.make_globals(None))
        texts.append(template.render(values))
    assert texts[0] == texts[1]
    assert "an entry" in texts[1] and "keys=1" in texts[1]


def test_what_is_missing_is_an_error_as_before() -> None:
    env = PageEnvironment(**OPTIONS)
    for text in ("{{ table.missing }}", "{{ missing }}", "{{ link.missing }}"):
        with pytest.raises(UndefinedError):
            env.from_string(text).render(table={}, link=Link(""))
