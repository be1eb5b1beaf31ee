"""The folders of the demo store that many tests read; the fixture `demo` makes them."""

from pathlib import Path
from typing import NamedTuple

DEMO_SAMPLES = 360  # enough for planted pairs of every kind and words with features of their own; 240 are too few


class Demo(NamedTuple):
    """The folders `saevx demo` leaves."""

    root: Path
    model: Path
    sae: Path
    data: Path
    store: Path
