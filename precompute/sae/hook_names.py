"""Which decoder layer the name of a hook means, and whether it means one at all."""

import re

from precompute.errors import SaevxError

_POST = re.compile(
    r"(?:(?P<around>.*)\.)?(?:blocks\.(?P<block>\d+)\.hook_resid_post|(?:layers|h)\.(?P<layer>\d+)(?:\.output)?)"
)
_PRE = re.compile(r"(?:(?P<around>.*)\.)?blocks\.(?P<block>\d+)\.hook_resid_pre")
_DECODER = re.compile(
    r"model|module|transformer|backbone|decoder|base_model|_orig_mod|gpt_?neox?|thinker|\w*(language|text|llm|lm)\w*"
    r"|\w*(llama|qwen|gemma|mistral|vicuna|phi|opt|bloom|falcon|gpt)\w*"
)
"""Modules in which transformers and those who wrap it keep the language model's layers."""
_OTHER = re.compile(
    r"vis|imag|vit|clip|siglip|encod|audio|speech|video|tower|project|connect|resampl|qformer|perceiver|adapter|"
    r"talker|mtp|draft|expert|mlp|attn|attention"
)
"""Words in names of modules that are none of the language model's own stack."""


def layer_of(hook: str) -> int:
    """L of a hook name of TransformerLens (`blocks.L.hook_resid_post`) or transformers
    (`model.language_model.layers.L`).

    Raises:
        SaevxError: the SAE reads something other than the residual stream after a decoder layer.
    """
    if (post := _POST.fullmatch(hook)) and _is_decoder(post["around"]):
        return int(post["block"] or post["layer"])
    pre = _PRE.fullmatch(hook)
    if pre and _is_decoder(pre["around"]) and int(pre["block"]) > 0:
        return int(pre["block"]) - 1  # what goes into a layer is what the one below it gave
    raise SaevxError(
        f"The SAE reads {hook!r}, which is not the residual stream after a decoder layer: choose another SAE, "
        "or name the layer with --layer if you know that it is."
    )


def _is_decoder(around: str | None) -> bool:
    """Whether every module on the way to the layers is one of the language model's."""
    return all(
        _DECODER.fullmatch(part) is not None and _OTHER.search(part) is None
        for part in (around or "").lower().split(".")
        if part
    )


def refuse_two_layers(hook: str, layer: object) -> None:
    """Raises SaevxError where a configuration's layer is another than the number in its hook's name."""
    number = re.search(r"(?:blocks|layers|h)\.(\d+)(?:\.|$)", hook)
    if number is not None and isinstance(layer, int) and int(number[1]) != layer:
        raise SaevxError(
            f"The SAE's configuration says layer {layer} and hook {hook!r}, which are two: correct the wrong one."
        )


def layer_warning(hook: str, layer: int) -> str | None:
    """A sentence where an SAE is read at a layer that is not its own hook's; None where it is, or names no hook."""
    if not hook:
        return None
    try:
        hook_layer = layer_of(hook)
    except SaevxError:
        return (
            f"The SAE's own hook is {hook!r}, no decoder layer's residual stream, and it is read after layer {layer} "
            "as --layer says: its features mean what it was trained for only if both are the same."
        )
    if hook_layer == layer:
        return None
    return (
        f"The SAE's own hook {hook!r} is layer {hook_layer}, and it is read after layer {layer} as --layer says: its "
        "features mean what it was trained for only there."
    )
