"""How pages show tokens, captions and ids that would be invisible or would garble the text around them.

The API returns text unchanged; the signs here are only for display."""

import regex

from precompute.utils.text import is_blank
from precompute.utils.token_text import MARKS

_ACCENT = regex.compile(r"[\p{M}--\p{Default_Ignorable_Code_Point}]", regex.V1)
"""A combining accent without a letter."""
_BREAKING = regex.compile(r"[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]")  # line breaks, writing direction
_CONTROL = regex.compile(r"[\p{Cc}--[\n\t\r]]", regex.V1)
_SIGNS = {"\n": "⏎", "\t": "⇥", "\x7f": "␡", " ": "␣"}


def visible(text: str) -> str:
    """A token or id with signs for line breaks and control characters; if it has only invisible characters, with a sign
    for each."""
    if is_plain(text):
        return text
    if not is_blank(text):
        return _BREAKING.sub(lambda match: _sign(match[0]), text)
    if _ACCENT.match(text.lstrip(" ")):
        return "◌" + text.lstrip(" ")
    return "".join(map(_sign, text)) or "∅"


def is_plain(text: str) -> bool:
    """Whether it is letters, digits and signs of ASCII, as most texts are: nothing to replace, and something to see."""
    return text.isascii() and text.isprintable() and not text.isspace() and text != ""


def _sign(character: str) -> str:
    if character < " ":
        return _SIGNS.get(character) or chr(0x2400 + ord(character))
    return _SIGNS.get(character) or f"⟨U+{ord(character):04X}⟩"


def display_token(text: str) -> tuple[bool, str]:
    """(whether a space precedes it, its text) of a token in running text; a dot stands for bytes of a character that an
    earlier token shows."""
    has_space = len(text) > 1 and text[0] == " " and (is_plain(text) or not is_blank(text))
    shown_text = visible(text[has_space:])
    return has_space, MARKS.sub("·", shown_text) if "⟨" in shown_text else shown_text


def running_text(text: str) -> str:
    """Text of consecutive tokens that are drawn as one: without the marks of such bytes."""
    return MARKS.sub("", text) if "⟨" in text else text


def cut_text(text: str, n: int) -> str:
    """At most n characters."""
    return text if len(text) <= n else text[: n - 1] + "…"


def display_caption(text: str) -> str:
    """A caption with signs for control characters, or a note that it has no visible text."""
    if is_plain(text):
        return text
    if not is_blank(text):
        return _CONTROL.sub(lambda match: _sign(match[0]), text)
    return f"(only {visible(text)})" if text else "(no text)"
