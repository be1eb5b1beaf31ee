"""What the configuration of an SAE says, held against the SAE that SAELens makes of it. loading.py and formats.py read
the files.

Libraries and their versions name the same things differently and put them in different places, and SAELens passes over
what it does not know: a TopK without its k runs as a ReLU. So there is no list of bad names here. Whatever the file
says of the activation function, of k, or under a name of SAELens' own configuration, wherever, must be so in the SAE.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from precompute.errors import SaevxError

TOPK = ("topk", "abstopk")
"""Architectures that cannot be run without k."""
_KINDS = (
    "abstopk", "batchtopk", "signedtopk", "topk", "jumprelu", "tanhrelu", "leakyrelu", "gated", "groupmax",
    "matchingpursuit", "transcoder", "temporal", "gelu", "softplus", "sigmoid", "relu",
)  # fmt: skip
"""Words for what an SAE does, the longer before those that they contain."""
_LACKING = frozenset({"signedtopk", "tanhrelu", "leakyrelu", "groupmax", "gelu", "softplus", "sigmoid"})
"""Activation functions that SAELens does not have."""
_FITS: dict[str, frozenset[str]] = {
    "standard": frozenset({"relu"}),
    "topk": frozenset({"topk", "relu"}),
    "abstopk": frozenset({"abstopk"}),
    "jumprelu": frozenset({"jumprelu", "batchtopk", "relu"}),  # BatchTopK is saved as JumpReLU at the end
    "gated": frozenset({"gated", "relu"}),
    "matching_pursuit": frozenset({"matchingpursuit"}),
    "temporal": frozenset({"temporal", "batchtopk", "topk", "relu"}),
}
_ACTIVATION = re.compile(r"activation(_?(fn|func|function))?(_?(str|name|type))?|act_?(fn|func|type)|nonlinearity")
_ABOUT = re.compile(
    r"name|path|(^|_)ids?$|project|wandb|dataset|tags?$|note|desc|comment|url|(^|_)dir|version|repo|author|group|"
    r"entity|prompt|loss|checkpoint|log"
)
"""Names of fields that tell of a run, not of what the SAE does."""
_TRAINING = frozenset({"training_architecture_details", "model_from_pretrained_kwargs"})
"""Fields of the training alone: what is saved at its end may differ from them."""
_UNCOMPARED = frozenset({"d_in", "d_sae", "dtype", "device", "metadata", "k"})
"""Fields of SAELens' configuration that the weights themselves prove, or that are compared by themselves."""


class Entry(NamedTuple):
    """One field of a configuration."""

    place: str
    """Its name, those of the objects around it before it."""
    name: str
    value: Any


def entries(config: dict[str, Any], around: str = "") -> Iterator[Entry]:
    """Every field of a configuration, in objects within objects too, those of the training alone left out."""
    for name, value in config.items():
        if name in _TRAINING:
            continue
        place = f"{around}{name}"
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from entries(part, f"{place}.")
            else:
                yield Entry(place, str(name), part)


def plain_word(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def kinds(config: dict[str, Any]) -> dict[str, str]:
    """What a configuration says that the SAE does, as one of _KINDS, and where it says so.

    Raises:
        SaevxError: an activation function that is none of them.
    """
    place_of: dict[str, str] = {}
    for place, name, value in entries(config):
        if not isinstance(value, str) or not value:
            continue
        is_activation = _ACTIVATION.fullmatch(name.lower()) is not None
        if not is_activation and _ABOUT.search(name.lower()):
            continue
        kind = next((kind for kind in _KINDS if kind in plain_word(value)), None)
        if is_activation and (kind is None or kind in _LACKING):
            raise _no_architecture(value)
        if kind is not None and (is_activation or kind not in ("relu", "gelu", "sigmoid", "temporal")):
            place_of.setdefault(kind, place)
    return place_of


def _no_architecture(activation: str) -> SaevxError:
    return SaevxError(f"The SAE's activation function is {activation!r}, which SAELens lacks: choose another.")


def ks(config: dict[str, Any]) -> dict[str, Any]:
    """Every k that a configuration names, by its place; what is null is none."""
    values = {place: value for place, name, value in entries(config) if plain_word(name) in ("k", "topk")}
    # A flag or a word of that name is no number of features.
    return {place: value for place, value in values.items() if not isinstance(value, bool | str | None)}


def k_of(config: dict[str, Any], width: int | None) -> int:
    """The one k of a TopK.

    Raises:
        SaevxError: none, several, or one that cannot be.
    """
    values = ks(config)
    if not values:
        raise SaevxError(
            "The SAE is a TopK and its configuration does not say k, the number of features that a token keeps: "
            "add it as `k`."
        )
    if len(set(values.values())) > 1:
        listing = " and ".join(f"{place} = {value}" for place, value in values.items())
        raise SaevxError(f"The SAE is a TopK and its configuration says {listing}: leave the one k that it has.")
    place, value = next(iter(values.items()))
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or value < 1 or (width is not None and value > width):
        limit = "" if width is None else f" to {width}"
        raise SaevxError(f"The SAE is a TopK and {place} = {value!r} is no k: it must be a whole number from 1{limit}.")
    return int(value)


def resolve_config(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the k of a TopK where SAELens looks for it, whatever place it stood in.

    Raises:
        SaevxError: what SAELens would run otherwise than it was trained.
    """
    _refuse_other_types(config)
    _refuse_other_places(config)
    architecture = _architecture(config)
    if architecture == "standard" and "topk" in kinds(config):
        architecture = "topk"
    if architecture not in TOPK:
        return {**config, "architecture": architecture}
    width = config.get("d_sae")
    k = k_of(config, width if isinstance(width, int) else None)
    # What SAELens before 6 read k from goes, so that it is not read twice.
    other_fields = {name: value for name, value in config.items() if not name.startswith("activation_fn")}
    return {**other_fields, "architecture": architecture, "k": k}


def _architecture(config: dict[str, Any]) -> str:
    """SAELens' name of a configuration's architecture; one that does not say is `standard`.

    Raises:
        SaevxError: SAELens has none of that name.
    """
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    name = config.get("architecture") or "standard"
    by_word = {plain_word(known_name): known_name for known_name in (*SAE_TRAINING_CLASS_REGISTRY, *SAE_CLASS_REGISTRY)}
    if not isinstance(name, str) or plain_word(name) not in by_word:
        raise SaevxError(f"The SAE's architecture is {name!r}, which SAELens lacks: choose another.")
    return by_word[plain_word(name)]


def _refuse_other_types(config: dict[str, Any]) -> None:
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise SaevxError(f"The SAE's configuration says metadata = {metadata!r:.40}, which is no object: correct it.")
    for name in ("d_in", "d_sae"):
        value = config.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SaevxError(
                f"The SAE's configuration says {name} = {value!r:.40}, which is no whole number above 0: correct it."
            )


def _refuse_other_places(config: dict[str, Any]) -> None:
    for _, name, value in entries(config):
        if name == "signed" and value:
            raise _no_architecture("signed topk")
        if name in ("hook_head_index", "hook_point_head_index") and value is not None:
            raise SaevxError(f"The SAE reads attention head {value} alone, not the residual stream: choose another.")
        if name in ("transcode", "skip_connection") and value:  # of sparsify
            raise SaevxError("The SAE reads one place of the model and writes to another: choose another.")


def compare(config: dict[str, Any], sae: Any) -> None:
    """Hold a file's configuration against SAELens' SAE, before anything is folded into its weights.

    Args:
        config: as the file has it, every field in its own place.
        sae: for inference.

    Raises:
        SaevxError: they differ, in a sentence that names the field and both values.
    """
    run = sae.cfg
    architecture = str(run.architecture())
    place_of = kinds(config)
    fits = _FITS.get(architecture)
    for kind, place in place_of.items():
        if fits is not None and kind not in fits:
            raise SaevxError(
                f"The SAE's configuration says {kind!r} ({place}) and SAELens would run it as {architecture!r}: "
                "correct the configuration, or choose another SAE."
            )
    if architecture in TOPK:
        k = k_of(config, int(run.d_sae))
        if k != run.k:
            raise SaevxError(f"The SAE is a TopK of k = {k} and SAELens would run it with k = {run.k}.")
    elif (stray := ks(config)) and "batchtopk" not in place_of and architecture != "temporal":
        place, value = next(iter(stray.items()))
        raise SaevxError(
            f"The SAE's configuration says {place} = {value}, the k of a TopK, and SAELens would run it as "
            f"{architecture!r}, which has none: name its `architecture`, or choose another SAE."
        )
    if run.reshape_activations != "none":
        raise SaevxError("The SAE reads attention heads, not the residual stream: choose another.")
    for field in fields(run):
        value = getattr(run, field.name)
        if field.type in (bool, "bool") and not isinstance(value, bool | int):
            raise SaevxError(
                f"The SAE's configuration says {field.name} = {value!r}, which is neither true nor false: correct it."
            )
    names = {field.name for field in fields(run)} - _UNCOMPARED
    for place, name, value in entries(config):
        if name in names and value is not None and _typed_value(name, value) != getattr(run, name):
            raise SaevxError(
                f"The SAE's configuration says {place} = {value!r} and SAELens would run it with "
                f"{getattr(run, name)!r}: correct the configuration, or choose another SAE."
            )
    _compare_threshold(place_of, sae)


def _typed_value(name: str, value: Any) -> Any:
    """The value under the names of SAELens 6."""
    if name == "normalize_activations" and isinstance(value, bool):
        return "expected_average_only_in" if value else "none"
    return value


NOT_LEARNT = (
    "The SAE is a BatchTopK whose threshold was never learnt, so every positive feature would stay instead of k: "
    "train it further, or choose another."
)


def _compare_threshold(place_of: dict[str, str], sae: Any) -> None:
    """BatchTopK keeps k features a token only by the threshold that it learns."""
    threshold_f = getattr(sae, "threshold", None)
    if threshold_f is None or threshold_f.is_meta:
        return
    if "batchtopk" in place_of and not bool((threshold_f > 0).any()):
        raise SaevxError(NOT_LEARNT)
