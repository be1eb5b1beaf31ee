"""The colours of tokens.css and their contrast."""

from __future__ import annotations

import re

from backend.app import FRONTEND


def palette(theme: int) -> dict[str, str]:
    """Custom properties of tokens.css in the light (0) or the dark (1) theme."""
    source = (FRONTEND / "static" / "css" / "tokens.css").read_text()
    result = {}
    for name, value in re.findall(r"--([a-z0-9-]+):\s*([^;]+);", source):
        colours = re.findall(r"#[0-9a-f]{6}", value)
        if colours:
            result[name] = colours[theme] if len(colours) == 2 else colours[0]
    return result


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
