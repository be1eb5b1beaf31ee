"""A Jinja environment whose templates give the same text in less time: a page puts out some two thousand values."""

from collections.abc import Callable
from typing import Any

import markupsafe
from jinja2 import Environment, nodes
from jinja2.compiler import CodeGenerator, Frame

_escape_text: Callable[[str], str] = getattr(markupsafe, "_escape_inner", markupsafe.escape)
"""What `markupsafe.escape` calls of a plain text: without the object around it, which takes ten times as long. It is
private, and every public way is slower: a look at each of the five characters first takes two to three times as long
where there is none, `html.escape` four times. A MarkupSafe without it has `escape` in its place."""
OF_DICT = frozenset(dir(dict))


def escaped(value: Any) -> str:
    """The text of a value as HTML shows it, as `markupsafe.escape` has it; what is already HTML stays."""
    if type(value) is str:
        return _escape_text(value)
    if hasattr(value, "__html__"):
        html: str = value.__html__()
        return html
    return _escape_text(str(value))


class PageCode(CodeGenerator):
    """Compiles `{{ value }}` to `escaped(value)`. Templates join these texts, so that none needs to be `Markup`.

    The method is the one that `jinja2.nativetypes` overrides too, and has no public name. The public `finalize` cannot
    do this: without autoescape, macros and `~` no longer mark what is HTML already, and with it Jinja still makes a
    `Markup` of each value. A Jinja that does not call the method gives the same text, later; a test notices.
    """

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or not frame.eval_ctx.autoescape or finalize.src is not None:
            super()._output_child_pre(node, frame, finalize)
        else:
            self.write("environment.escaped(")


class PageEnvironment(Environment):
    """Jinja's environment with such templates."""

    code_generator_class = PageCode
    escaped = staticmethod(escaped)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja has it. A key of a dict is looked up first where it is no method: an attribute that is not there
        costs an exception each time."""
        if type(obj) is dict and attribute in obj and attribute not in OF_DICT:
            return obj[attribute]
        try:
            return getattr(obj, attribute)
        except AttributeError:
            return super().getattr(obj, attribute)
