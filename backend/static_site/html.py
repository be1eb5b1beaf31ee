"""A rendered page as a page of a site without a server: links lead to files, and what needs the server is left out."""

from collections.abc import Callable
from html import escape
from html.parser import HTMLParser

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
CONTROLS = frozenset(["button", "form", "input", "label", "select", "textarea"])
LOCAL = frozenset(
    ["data-copy", "data-keys", "data-local", "data-max", "data-theme-toggle", "data-verdict", "data-zoom"]
)
"""Attributes of the controls that scripts answer without a server."""
SCRIPTS = frozenset(f"js/{name}.js" for name in ("theme", "app", "cooccurrence", "feature", "map/index", "sample"))
"""Scripts that work without a server; what they import comes with them."""
DEAD_LINKS = frozenset(["alike", "btn", "chip", "door", "explain", "go", "more", "tool"])
"""Classes of links that are nothing without their target; of any other link the text stays."""
TEXT_LINKS = frozenset(["tok"])
"""Classes of links that are the text itself, whatever they lead to: the tokens of a caption."""
DEAD_DATA = frozenset(("data-feature", "data-position", "data-testid"))
"""Attributes that a link without a target may have and stay as text."""

Attributes = dict[str, str | None]
Resolve = Callable[[str], str | None]
"""Address in a page → where it is in the site, seen from that page; None for what the site has not."""


class StaticPage(HTMLParser):
    """Writes a page while it reads it.

    Args:
        resolve: called with each address of the page.
        add: attributes to add to the elements with these ids; `html` is the root.
    """

    def __init__(self, resolve: Resolve, add: dict[str, dict[str, str]]) -> None:
        super().__init__(convert_charrefs=False)
        self.resolve, self.add = resolve, add
        self.parts: list[str] = []
        self.left_out_tags: list[str] = []
        """The open elements of the one that is left out, from the outermost to the innermost."""

    @classmethod
    def convert(cls, page: str, resolve: Resolve, add: dict[str, dict[str, str]]) -> str:
        """The page as it is written to a file."""
        parser = cls(resolve, add)
        parser.feed(page)
        parser.close()
        return "".join(parser.parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if self.left_out_tags or self._left_out(tag, values):
            if tag not in VOID:
                self.left_out_tags.append(tag)
        elif tag != "template":  # what only such a site shows
            self.parts.append(self._start_tag(tag, values))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.left_out_tags:
            self.parts.append(str(self.get_starttag_text()))

    def handle_endtag(self, tag: str) -> None:
        if self.left_out_tags:
            if tag in self.left_out_tags:  # a paragraph or item may have been left open
                while self.left_out_tags.pop() != tag:
                    pass
        elif tag != "template":
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._write(data)

    def handle_entityref(self, name: str) -> None:
        self._write(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._write(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self._write(f"<!{decl}>")

    def _write(self, text: str) -> None:
        if not self.left_out_tags:
            self.parts.append(text)

    def _left_out(self, tag: str, values: Attributes) -> bool:
        if "data-server" in values:
            return True
        if tag in CONTROLS:
            return not values.keys() & LOCAL
        if tag == "script" or values.get("rel") in ("modulepreload", "preload"):
            return str(values.get("src")).partition("/static/")[2] not in SCRIPTS
        if tag != "a" or self.resolve(values.get("href") or "") is not None:
            return False
        classes = set((values.get("class") or "").split())
        if classes & TEXT_LINKS:
            return False
        return bool(classes & DEAD_LINKS or {name for name in values if name.startswith("data-")} - DEAD_DATA)

    def _start_tag(self, tag: str, values: Attributes) -> str:
        addresses = {name: values[name] for name in ("href", "src", "data-url", "data-next") if values.get(name)}
        extra_attributes = self.add.get("html" if tag == "html" else values.get("id") or "", {})
        if not addresses and not extra_attributes:
            return str(self.get_starttag_text())
        for name, address in addresses.items():
            if (target := self.resolve(str(address))) is None:
                del values[name]
                values.pop("data-swap", None)
            else:
                values[name] = target
            if "#" in str(target):  # a script shows the state that the fragment names
                values.pop("data-swap", None)
        values |= extra_attributes
        return f"<{tag}{''.join(_attribute(name, value) for name, value in values.items())}>"


def _attribute(name: str, value: str | None) -> str:
    return f" {name}" if value is None else f' {name}="{escape(value)}"'
