"""Geometry of a model family: the patch of a view that an image token stands for, and its box in the image.

One function per family, `(processor, config, sizes, n_tokens) -> Layout`; `FAMILIES` is the registry, keyed by
`config.model_type`. To add a family, write such a function and register it: nothing else knows of families.
"""

from precompute.errors import SaevxError
from precompute.geometry.base import Geometry, Layout, View, patch_box, square, text_only
from precompute.geometry.grids import fixed_square, gemma4, qwen_vl
from precompute.geometry.llava import llava, llava_next, llava_onevision
from precompute.geometry.tiles import idefics3, internvl

__all__ = ["FAMILIES", "Geometry", "Layout", "View", "find", "patch_box", "square", "text_only"]

FAMILIES: dict[str, Geometry] = {
    "chameleon": fixed_square,
    "gemma3": fixed_square,
    "gemma4": gemma4,
    "idefics3": idefics3,
    "internvl": internvl,
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_5_vl": qwen_vl,
    "qwen3_vl": qwen_vl,
    "smolvlm": idefics3,
}


def find(model_type: str, *, multimodal: bool, setting: str | None = None) -> tuple[str, Geometry]:
    """Name and function of the family's geometry.

    Args:
        setting: `--geometry`: "square", or the name of a family to treat this model as.

    Raises:
        SaevxError: an unknown family, with how to add one.
    """
    if setting is not None and setting != "square" and setting not in FAMILIES:
        raise SaevxError(f"No geometry is called {setting!r}: choose from square, {', '.join(sorted(FAMILIES))}.")
    if not multimodal:
        return "text-only", text_only
    if setting == "square":
        return "square", square
    name = setting or model_type
    if name not in FAMILIES:
        raise SaevxError(
            f"The geometry of model family {name!r} is not known (known: {', '.join(sorted(FAMILIES))}): if its "
            "image tokens are one square grid run with --geometry square, else add a function to "
            "precompute/geometry."
        )
    return name, FAMILIES[name]
