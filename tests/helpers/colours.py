"""The colours of tokens.css, their contrast, and how they look to other eyes."""

import math
import re

import numpy as np

from backend.app import FRONTEND
from precompute.utils.types import Array

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Linear sRGB → cones, and their cube roots → OKLab (Ottosson 2020)."""
COLOUR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear sRGB as it appears (Machado, Oliveira and Fernandes 2009, severity 1)."""
RAMPS = {
    ("p", 0): ((0.36, 0.92), (0.20, 0.19), (290, 460)),
    ("t", 0): ((0.96, 0.72), (0.025, 0.16), (290, 435)),
    ("t", 1): ((0.26, 0.52), (0.05, 0.13), (290, 435)),
}
"""The scales of activation, by prefix and theme: lightness, chroma and hue of OKLCH at the first and the last of eight
steps; all grow evenly, and chroma is lowered to what sRGB has."""


def palette(theme: int) -> dict[str, str]:
    """Custom properties of tokens.css in the light (0) or the dark (1) theme."""
    source = (FRONTEND / "static" / "css" / "tokens.css").read_text()
    result = {}
    for name, value in re.findall(r"--([a-z0-9-]+):\s*([^;]+);", source):
        colours = re.findall(r"#[0-9a-f]{6}", value)
        if colours:
            result[name] = colours[theme] if len(colours) == 2 else colours[0]
    return result


def linear(colour: str) -> Array:
    """float64 [3]: a colour as linear sRGB, 0 to 1."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(colour_a: str, colour_b: str) -> float:
    low, high = sorted((luminance(colour_a), luminance(colour_b)))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: Array) -> Array:
    """float64 [3]: lightness, a and b of a colour in linear sRGB; a distance of .02 is just seen."""
    return TO_LAB @ np.cbrt(TO_LMS @ rgb)


def ramp(prefix: str, theme: int) -> list[str]:
    """The eight colours of a scale of activation, by its formula."""
    return [step_colour(*(a + (b - a) * k / 7 for a, b in RAMPS[prefix, theme])) for k in range(8)]


def step_colour(lightness: float, chroma: float, hue: float) -> str:
    """An OKLCH colour in sRGB, with the largest chroma up to the one given that sRGB has."""
    while True:
        lab = np.array([lightness, *(chroma * f(math.radians(hue)) for f in (math.cos, math.sin))])
        rgb = np.linalg.solve(TO_LMS, np.linalg.solve(TO_LAB, lab) ** 3)
        if rgb.min() >= -1e-4 and rgb.max() <= 1 + 1e-4:
            break
        chroma -= 0.002
    rgb = rgb.clip(0, 1)
    channels = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
