"""What the pictures alone say: blank, dark, blurred, tiny, and a hash for near-duplicates.

`cleanvision` scores 1 = good; here higher is worse, like every flag score. Its thresholds are its published defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

# cleanvision's issue → our flag, and 1 − its published threshold.
ISSUES = {"low_information": ("blank", 0.7), "dark": ("dark", 0.68), "blurry": ("blurred", 0.71)}
TINY_SIDE = 64  # pixels; `tiny` = this over the shorter side
HASH_BITS = 64


def pixel_flags(files: list[Path]) -> dict[str, Array]:
    """blank, dark, blurred for each picture, float64 in [0, 1], NaN where it cannot be read; higher is worse."""
    from cleanvision import Imagelab  # pandas and matplotlib: only where pictures are looked at

    found = {flag: np.full(len(files), np.nan) for flag, _ in ISSUES.values()}
    paths = [str(path) for path in files]
    if not paths:
        return found
    lab = Imagelab(filepaths=paths, verbose=False)
    lab.find_issues({issue: {} for issue in ISSUES}, n_jobs=1, verbose=False)
    for issue, (flag, _) in ISSUES.items():
        scores = lab.issues[f"{issue}_score"].to_dict()
        found[flag] = 1 - np.array([scores.get(path, np.nan) for path in paths], dtype=np.float64)
    return found


def pixel_hashes(files: list[Path]) -> Array:
    """Perceptual hashes (64-bit DCT) as bool [n, 64]."""
    import imagehash

    hashes = np.zeros((len(files), HASH_BITS), dtype=bool)
    for i, path in enumerate(files):
        with Image.open(path) as picture:
            hashes[i] = imagehash.phash(picture.convert("RGB")).hash.ravel()
    return hashes


def tiny(width: Array, height: Array) -> Array:
    """64 px over the shorter side; NaN without a picture."""
    shorter = np.minimum(width, height).astype(np.float64)
    return np.divide(TINY_SIDE, shorter, out=np.full(len(shorter), np.nan), where=shorter > 0)
