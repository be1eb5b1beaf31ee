"""What can be told of a text without the model."""

from __future__ import annotations

import re
from itertools import pairwise


def has_letters(text: str) -> bool:
    """Whether a letter or a digit is in it."""
    return any(map(str.isalnum, text))


def repeated_share(text: str) -> float:
    """Share of the text's word pairs that occurred before in it; 0 for texts of fewer than four words."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < 4:
        return 0.0
    seen = list(pairwise(words))
    return 1 - len(set(seen)) / len(seen)
