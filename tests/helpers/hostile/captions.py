"""Captions of a hostile data set: what no keyboard writes, and far too much of it."""

from typing import NamedTuple

USED = ""


class CaptionCase(NamedTuple):
    """A caption as it stands in a line of JSON, and words of the reason for which its row is rejected."""

    name: str
    json: str
    """Between the quotation marks, so that what is not valid Unicode can be written."""
    must: str


CASES = [
    CaptionCase("100 kB of words", "red dog " * 12_500, "more than the model's context"),
    CaptionCase("100 kB without a space", "a" * 100_000, "more than the model's context"),
    CaptionCase("100 kB of one emoji's joiners", "\\u200d" * 33_000, "more than the model's context"),
    CaptionCase("control characters", "".join(f"\\u{i:04x}" for i in range(32)) + "\\u007f\\u0080\\u009f", USED),
    CaptionCase("a terminal's commands", "\\u001b[2J\\u001b]0;owned\\u0007\\u001b[31mred", USED),
    CaptionCase("NUL alone", "\\u0000", USED),
    CaptionCase("right to left", "\\u202etxet neddih\\u202c \\u2067a\\u2069 \\u200f", USED),
    CaptionCase("zero width", "a\\u200bred\\u200c\\u200d\\u2060\\ufeff dog", USED),
    CaptionCase("marks on marks", "Z" + "\\u0301" * 60, USED),
    CaptionCase("no characters", "\\ufffe\\uffff\\ufdd0", USED),
    CaptionCase("private characters", "\\ue000\\udbff\\udfff", USED),
    CaptionCase("a high surrogate alone", "a \\ud800 dog", "not valid Unicode"),
    CaptionCase("a low surrogate alone", "a \\udc00 dog", "not valid Unicode"),
    CaptionCase("surrogates the wrong way", "\\udc00\\ud800", "not valid Unicode"),
    CaptionCase("separators of lines", "a\\u2028red\\u2029dog\\u0085", USED),
    CaptionCase("spaces alone", " \\t\\n\\u00a0\\u3000", USED),
    CaptionCase("the model's own mark", "a <image> dog", "mark for an image"),
    CaptionCase("special tokens", "<s></s><pad>", USED),
    CaptionCase("SQL", "'; DROP TABLE samples; --", USED),
    CaptionCase("a format", "{text} %s {0.__class__} ${HOME} {{ 7 * 7 }}", USED),
    CaptionCase("a formula", "=cmd|' /C calc'!A0", USED),
]
