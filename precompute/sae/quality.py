"""Whether the figures of an SAE on a store's data say that it should not be trusted there."""

from __future__ import annotations

import math
from typing import Any

NOWHERE = 1.0
"""FVU at which ĥ explains nothing: the mean of h alone would do as well."""


def sae_warning(quality: dict[str, Any]) -> str | None:
    """A sentence where ĥ leaves at least all of the variance unexplained on text tokens, on image tokens or on both
    together; or where image tokens' FVU exceeds twice the text's, or 0.5. None where neither is so.

    Args:
        quality: of a store's manifest.
    """
    figures = quality.get("fvu") or {}
    fvu = {name: value for name, value in figures.items() if isinstance(value, int | float) and not math.isnan(value)}
    worse = {name: value for name, value in fvu.items() if value >= NOWHERE and name in ("text", "image")}
    if not worse and fvu.get("both", 0.0) >= NOWHERE:
        worse = {"both kinds of": fvu["both"]}
    if worse:
        where = " and ".join(f"{name} tokens (FVU {value:.3g})" for name, value in worse.items())
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
        f"{beside_text}. Read what its features say about pictures with that in mind."
    )
