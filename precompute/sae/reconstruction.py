"""How well an SAE rebuilds h: FVU and L0 (METHOD, *Quality*), and whether they say that it should not be trusted."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from precompute.utils.types import Array

WHICH: dict[str, list[int]] = {"text": [0], "image": [1], "both": [0, 1]}
"""Modalities behind each figure."""

NOWHERE = 1.0
"""FVU at which ĥ explains nothing: the mean of h alone would do as well."""


def variation(square: Array, total_d: Array, n: Array) -> Array:
    """float64 [...]: Σ‖h − mean h‖² = Σ‖h‖² − ‖Σh‖² / n of some tokens; NaN without a token.

    Args:
        square: [...] Σ‖h‖². total_d: [..., d] Σh. n: [...] number of tokens.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Array = square - np.square(total_d).sum(axis=-1) / n
    return result


def fvu(error: Array, square: Array, total_d: Array, n: Array) -> Array:
    """float64 [...]: Σ‖h − ĥ‖² / Σ‖h − mean h‖², the mean over the tokens counted; NaN where h does not vary.

    Args:
        error: [...] Σ‖h − ĥ‖². The others as of `variation`.
    """
    varies = variation(square, total_d, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(varies > 0, error / varies, np.nan)


@dataclass
class QualitySums:
    """The sums from which FVU and L0 follow, of text (0) and image (1) tokens apart."""

    tokens_m: Array
    """float64 [2]."""
    active_m: Array
    """float64 [2]: active features of these tokens."""
    error_m: Array
    """float64 [2]: Σ‖h − ĥ‖²."""
    square_m: Array
    """float64 [2]: Σ‖h‖²."""
    total_md: Array
    """float64 [2, d]: Σh."""

    @classmethod
    def zeros(cls, d_model: int) -> Self:
        return cls(np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros((2, d_model)))

    def update(self, m: int, n_active: float, error: float, h_td: Array) -> None:
        """Add tokens of one modality.

        Args:
            n_active: their active features. error: their Σ‖h − ĥ‖². h_td: float64 [t, d].
        """
        self.tokens_m[m] += len(h_td)
        self.active_m[m] += n_active
        self.error_m[m] += error
        self.square_m[m] += np.square(h_td).sum()
        self.total_md[m] += h_td.sum(axis=0)

    def figures(self) -> dict[str, dict[str, float | None]]:
        """`fvu` and `l0`, each of text, image and both; None without a token, or where h does not vary."""
        result: dict[str, dict[str, float | None]] = {"fvu": {}, "l0": {}}
        for name, m in WHICH.items():
            n = self.tokens_m[m].sum()
            ratio = float(fvu(self.error_m[m].sum(), self.square_m[m].sum(), self.total_md[m].sum(0), n))
            result["fvu"][name] = ratio if math.isfinite(ratio) else None
            result["l0"][name] = float(self.active_m[m].sum() / n) if n else None
        return result


def sae_warning(quality: dict[str, Any]) -> str | None:
    """A sentence where ĥ leaves at least all of the variance unexplained on text tokens, on image tokens or on both
    together; or where image tokens' FVU exceeds twice the text's, or 0.5. None where neither is so.

    Args:
        quality: of a store's manifest.
    """
    figures = quality.get("fvu") or {}
    fvu = {name: value for name, value in figures.items() if isinstance(value, int | float) and not math.isnan(value)}
    bad_fvu = {name: value for name, value in fvu.items() if value >= NOWHERE and name in ("text", "image")}
    if not bad_fvu and fvu.get("both", 0.0) >= NOWHERE:
        bad_fvu = {"both kinds of": fvu["both"]}
    if bad_fvu:
        where = " and ".join(f"{name} tokens (FVU {value:.3g})" for name, value in bad_fvu.items())
        return (
            f"This SAE explains nothing of {where}: it leaves at least as much of the variance unexplained as the mean "
            "alone would. Check that it was trained on this model, at this layer and hook, on inputs of this scale."
        )
    image, text = fvu.get("image"), fvu.get("text")
    if image is None or not (image > 0.5 or (text is not None and image > 2 * text)):
        return None
    beside_text = f", on text {text:.0%}" if text is not None else ""
    return (
        f"This SAE was not made for images: on image tokens it leaves {image:.0%} of the variance unexplained"
        f"{beside_text}. Read what its features say about images with that in mind."
    )
