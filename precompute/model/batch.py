"""Pairs of images and text as the model takes them, and what kind of token each is."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from precompute.geometry import View

TEXT, IMAGE, SPECIAL, SINK = 0, 1, 2, 3
"""Kinds of tokens; SINK is set only once ‖h‖ is known (calibration.py)."""


@dataclass
class Pair:
    """What the model reads: [images][text]."""

    text: str
    images: list[Image.Image] = field(default_factory=list)
    """RGB, upright."""


@dataclass
class Batch:
    """Pairs as the model takes them, padded on the right.

    Right padding and causal attention together mean that no token of a pair ever sees padding."""

    inputs: dict[str, Tensor]
    """input_ids and attention_mask [b, s], pixel_values …"""
    modality_bs: NDArray[np.uint8]
    """[b, s]: TEXT, IMAGE or SPECIAL; padding is SPECIAL."""
    views: list[list[View]]
    """Per pair; its IMAGE tokens, in order, walk these row by row."""
    length_b: NDArray[np.int64]
    """[b]: tokens of each pair without padding."""
