"""What the images alone say: blank, dark, blurred, tiny, and a hash for near-duplicates.

`cleanvision` scores 1 = good; here higher is worse, as in every flag score. Thresholds are its published
defaults. Two of its scores misread images with plain backgrounds (little entropy, yet a subject; strong
contrast, yet no edge), so each has a second witness here.
"""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from precompute.utils.stats import ratio
from precompute.utils.types import Array

# cleanvision's issue → our flag, and 1 − its published threshold.
ISSUES = {"low_information": ("blank", 0.7), "dark": ("dark", 0.68), "blurry": ("blurred", 0.71)}
TINY_SIDE = 64  # pixels; `tiny` = this over the shorter side
HASH_BITS = 64
_LEAST_CONTRAST = 0.05  # below it there is nothing whose edge could be sharp


class ImageDataset:
    """Images as a data set that cleanvision takes. Paths it would take for URLs, so that a folder's `~` or `::` would
    lead it elsewhere."""

    KEY = "image"
    features = (KEY,)

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> dict[str, Image.Image]:
        with Image.open(self.files[at]) as image:
            return {self.KEY: image.copy()}


def cleanvision_scores(files: list[Path]) -> dict[str, Array]:
    """1 − cleanvision's score per flag, float64 [n] in [0, 1], NaN where it cannot read the image."""
    from cleanvision import Imagelab  # pandas and matplotlib: only where images are looked at

    def scores_of(part: list[Path]) -> dict[str, dict[Path, float]]:
        lab = Imagelab(hf_dataset=ImageDataset(part), image_key=ImageDataset.KEY, verbose=False)
        lab.find_issues({issue: {} for issue in ISSUES}, n_jobs=1, verbose=False)
        columns = {issue: lab.issues[f"{issue}_score"].to_dict() for issue in ISSUES}
        return {issue: {path: column[i] for i, path in enumerate(part)} for issue, column in columns.items()}

    distinct = list(dict.fromkeys(files))
    # It scores each image alone. Its own processes are forks, which a program with torch's threads should not make;
    # and of more threads than two the Python in between leaves nothing to win.
    parts = [part for part in (distinct[::2], distinct[1::2]) if part]
    scores: dict[str, dict[Path, float]] = {issue: {} for issue in ISSUES}
    with contextlib.redirect_stderr(io.StringIO()), ThreadPoolExecutor(2) as pool:  # its bar knows no off switch
        for of_part in pool.map(scores_of, parts):
            for issue, of_path in of_part.items():
                scores[issue] |= of_path
    return {
        flag: 1 - np.array([scores[issue][path] for path in files], dtype=np.float64)
        for issue, (flag, _) in ISSUES.items()
    }


def contrast_and_edge(path: Path) -> tuple[float, float]:
    """(range of the middle 99 % of a channel, strongest Laplacian), both in units of full brightness."""
    with Image.open(path) as image:
        level = np.asarray(image.convert("RGB"))
    low, high = np.quantile(level, [0.005, 0.995], axis=(0, 1))
    level16 = level.astype(np.int16)
    centre = level16[1:-1, 1:-1]
    around = level16[2:, 1:-1] + level16[:-2, 1:-1] + level16[1:-1, 2:] + level16[1:-1, :-2]
    return float((high - low).max()) / 255, float(np.abs(around - 4 * centre).max(initial=0)) / 255


def pixel_flags(files: list[Path]) -> dict[str, Array]:
    """blank, dark and blurred of each image, float64 [n] in [0, 1]; higher is worse.

    blank: 1 − the larger of cleanvision's information and the contrast.
    blurred: the larger of 1 − cleanvision's score and 1 − strongest edge / contrast.
    """
    if not files:
        return {flag: np.zeros(0) for flag, _ in ISSUES.values()}
    with ThreadPoolExecutor() as pool:  # decoding and sorting let other threads run
        results = pool.map(contrast_and_edge, files)
        scores = cleanvision_scores(files)
        contrast, edge = np.array(list(results)).T
    scores["blank"] = np.fmin(scores["blank"], 1 - contrast)
    softness = np.where(contrast > _LEAST_CONTRAST, 1 - np.minimum(edge / np.maximum(contrast, 1e-9), 1), 0.0)
    scores["blurred"] = np.fmax(scores["blurred"], softness)
    return scores


def pixel_hashes(files: list[Path]) -> Array:
    """Perceptual hashes (64-bit DCT) as bool [n, 64]."""
    import imagehash

    def pixel_hash(path: Path) -> Array:
        with Image.open(path) as image:
            bits: Array = imagehash.phash(image.convert("RGB")).hash.ravel()
        return bits

    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(pixel_hash, files))
    return np.array(hashes, dtype=bool).reshape(len(files), HASH_BITS)


def tiny(width: Array, height: Array) -> Array:
    """64 px over the shorter side; NaN without an image."""
    return ratio(TINY_SIDE, np.minimum(width, height), np.nan)
