"""How pages show text that would be invisible or would garble what stands around it: tokens, captions, ids.

The API gives text as it is; these are signs for people's eyes."""

from __future__ import annotations

import regex

from precompute.utils.text import is_blank
from precompute.utils.token_text import MARKS

_ACCENT = regex.compile(r"[\p{M}--\p{Default_Ignorable_Code_Point}]", regex.V1)
"""Of a letter that is not there."""
_BREAKING = regex.compile(r"[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]")  # lines, and the direction of what follows
_CONTROL = regex.compile(r"[\p{Cc}--[\n\t\r]]", regex.V1)
_SIGNS = {"\n": "⏎", "\t": "⇥", "\x7f": "␡", " ": "␣"}


def visible(text: str) -> str:
    """A token or an id with signs for line breaks and control characters and, where there is nothing else to see, for
    each character."""
    if not is_blank(text):
        return _BREAKING.sub(lambda match: _sign(match[0]), text)
    if _ACCENT.match(text.lstrip(" ")):
        return "◌" + text.lstrip(" ")
    return "".join(map(_sign, text)) or "∅"


def _sign(character: str) -> str:
    if character < " ":
        return _SIGNS.get(character) or chr(0x2400 + ord(character))
    return _SIGNS.get(character) or f"⟨U+{ord(character):04X}⟩"


def drawn_token(text: str) -> tuple[bool, str]:
    """(whether a space stands before it, what is drawn) of a token in running text; a dot stands for bytes of a
    character that an earlier token shows."""
    spaced = len(text) > 1 and text[0] == " " and not is_blank(text)
    return spaced, MARKS.sub("·", visible(text[spaced:]))


def running_text(text: str) -> str:
    """Tokens in a row where nothing tells them apart: without such bytes."""
    return MARKS.sub("", text)


def shown_caption(text: str) -> str:
    """A caption with its control characters as signs, or that there is nothing to read in it."""
    if not is_blank(text):
        return _CONTROL.sub(lambda match: _sign(match[0]), text)
    return f"(only {visible(text)})" if text else "(no caption)"
