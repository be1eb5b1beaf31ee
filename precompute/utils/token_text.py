"""Tokens as text, also those that hold only some bytes of a character.

A byte-level tokenizer cuts "猫" into up to three tokens, none of which is text by itself. In the vocabulary such
bytes are written as marks, `⟨E7⟩⟨8C⟩`, so that tokens can be told apart; among its neighbours a token shows the
characters that begin in it, and marks for the bytes that go on with one.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

NEIGHBOURS = 3
"""Tokens on either side that can share a character with one: it has four bytes at most."""
MARKS = re.compile("((?:⟨[0-9A-F]{2}⟩)+)")
"""Bytes that `mark` wrote out, in a text."""
_BYTE_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's token for a byte
_MARKED = "saevx.marked"


def mark(data: bytes) -> str:
    """Bytes written out: b"\\xe7\\x8c" is ⟨E7⟩⟨8C⟩."""
    return "".join(f"⟨{byte:02X}⟩" for byte in data)


codecs.register_error(_MARKED, lambda error: (mark(error.object[error.start : error.end]), error.end))  # type: ignore[attr-defined]


def text_of_bytes(data: bytes) -> str:
    """UTF-8 as text, with a mark for each byte that belongs to no whole character."""
    return data.decode("utf-8", _MARKED)


def bytes_of_text(text: str) -> bytes:
    """What `text_of_bytes` was made from."""
    parts = MARKS.split(text)  # every second part is marks
    return b"".join(
        bytes.fromhex(part.replace("⟨", "").replace("⟩", "")) if i % 2 else part.encode("utf-8", "replace")
        for i, part in enumerate(parts)
    )


def has_marks(text: str) -> bool:
    """Whether some of its bytes are no whole character."""
    return "⟨" in text and MARKS.search(text) is not None


@cache
def _byte_of_letter() -> dict[str, int]:
    """The alphabet in which byte-level vocabularies are written: printable bytes are their own letter, the rest take
    letters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other_bytes = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(other_bytes)}


def bytes_of_token(token: str) -> bytes | None:
    """The bytes of a vocabulary entry: of a byte fallback, or of a byte-level piece; None where it is neither."""
    if fallback := _BYTE_FALLBACK.fullmatch(token):
        return bytes([int(fallback[1], 16)])
    byte_of = _byte_of_letter()
    return bytes(byte_of[letter] for letter in token) if all(letter in byte_of for letter in token) else None


def text_of_token(token: str, to_string: Callable[[list[str]], str]) -> str:
    """A vocabulary entry as text: a word's first piece keeps its space, bytes of a character are marks.

    Args:
        to_string: the tokenizer's `convert_tokens_to_string`, which puts U+FFFD for bytes that are no whole character.
    """
    if "\u2581" in token:  # SentencePiece's space
        return token.replace("\u2581", " ")
    text = to_string([token])
    if "\ufffd" in text and (data := bytes_of_token(token)) is not None:
        return text_of_bytes(data)
    return text


class JoinedText(NamedTuple):
    """Tokens in a row, as the text that they make together.

    Token i has some bytes of the characters `text[start[i]:stop[i]]`; a character that several tokens share belongs to
    each of them."""

    text: str
    start: list[int]
    stop: list[int]
    visible: list[str]
    """Each token's own: the characters that begin in it, marks for bytes of one that began before."""

    def characters(self, i: int) -> str:
        """The characters of which token i holds at least a byte."""
        return self.text[self.start[i] : self.stop[i]]


def join(pieces: Sequence[str]) -> JoinedText:
    """Tokens' texts, as the vocabulary has them, put together to whole characters."""
    if "⟨" not in "".join(pieces):
        stop = list(accumulate(map(len, pieces)))
        return JoinedText("".join(pieces), [0, *stop[:-1]][: len(pieces)], stop, list(pieces))
    texts: list[str] = []
    start, stop, visible_texts = [], [], []
    at, i = 0, 0
    while i < len(pieces):
        end = i
        while end < len(pieces) and has_marks(pieces[end]):
            end += 1
        if end == i:
            text, spans, own_texts = pieces[i], [(0, len(pieces[i]))], [pieces[i]]
            end = i + 1
        else:  # only tokens with marks can share a character
            text, spans, own_texts = _characters([bytes_of_text(piece) for piece in pieces[i:end]])
        texts.append(text)
        start += [at + first for first, _ in spans]
        stop += [at + last for _, last in spans]
        visible_texts += own_texts
        at, i = at + len(text), end
    return JoinedText("".join(texts), start, stop, visible_texts)


def _characters(parts: list[bytes]) -> tuple[str, list[tuple[int, int]], list[str]]:
    """(text, place of each part's characters in it, what each part shows)."""
    owner = [number for number, part in enumerate(parts) for _ in part]
    data, text, at = b"".join(parts), "", 0
    first, last = [-1] * len(parts), [0] * len(parts)
    visible_texts = [""] * len(parts)
    for character, n_bytes in _walk(data):
        for number in range(owner[at], owner[at + n_bytes - 1] + 1):
            first[number] = len(text) if first[number] < 0 else first[number]
            last[number] = len(text) + len(character)
            own_bytes = [byte for byte in range(at, at + n_bytes) if owner[byte] == number]
            visible_texts[number] += character if own_bytes[0] == at else mark(data[own_bytes[0] : own_bytes[-1] + 1])
        text, at = text + character, at + n_bytes
    return text, list(zip(first, last, strict=True)), visible_texts


def _walk(data: bytes) -> Iterator[tuple[str, int]]:
    """Characters of UTF-8 with their length in bytes; a mark for a byte that is part of none."""
    at = 0
    while at < len(data):
        lead = data[at]
        n = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        try:
            character = data[at : at + n].decode("utf-8")
            if len(character) != 1:
                raise ValueError
        except ValueError:
            character, n = mark(data[at : at + 1]), 1
        yield character, n
        at += n


def whole_token(pieces: Sequence[str], at: int) -> str:
    """Token `at` among its neighbours, with the rest of the characters that it shares with them."""
    if not has_marks(pieces[at]):
        return pieces[at]
    low = high = at
    while low > 0 and has_marks(pieces[low - 1]):
        low -= 1
    while high + 1 < len(pieces) and has_marks(pieces[high + 1]):
        high += 1
    return join(pieces[low : high + 1]).characters(at - low)
