"""SAEs that SAELens does not read, or reads otherwise than they were trained, as SAELens' configuration and weights.

- sparsify's folders: `cfg.json` beside `sae.safetensors`;
- dictionary_learning's folders: `config.json`, whose `trainer` says the class, beside `ae.pt` or `ae.safetensors`;
- plain weights: one `.safetensors` file.

What a file does not say, and would change z, is refused here, never guessed.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precompute.errors import SaevxError
from precompute.sae.config import NOT_LEARNT, kinds, ks, resolve_config
from precompute.sae.values import check_types
from precompute.utils.reading import read_json, read_tensors, reading, refuse_pointers

SPARSIFY = "sae.safetensors"
DICTIONARY_CONFIG = "config.json"
DICTIONARY_WEIGHTS = ("ae.safetensors", "ae.pt")
ConfigAndWeights = tuple[dict[str, Any], dict[str, Tensor]]
"""Configuration and weights as SAELens names them, W_enc [d, F], W_dec [F, d]."""

_NAMES = {
    "encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc", "decoder.bias": "b_dec",
    "bias": "b_dec", "decoder_bias": "b_dec", "gate_bias": "b_gate", "mag_bias": "b_mag",
}  # fmt: skip
"""Names of `torch.nn.Linear` and of dictionary_learning, under SAELens' names."""
_DICTIONARIES = {
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", False),
    "GatedAutoEncoder": ("gated", True),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
}
"""Classes of dictionary_learning: SAELens' architecture, and whether the decoder's bias is taken off the input."""
_TENSORS = {
    "standard": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "topk": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "jumprelu": {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"},
    "gated": {"W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"},
}
_UNUSED = {"topk": {"threshold"}, "jumprelu": set(), "standard": set(), "gated": set()}
"""What dictionary_learning keeps beside the weights and its own encoder does not use."""


def sparsify(folder: Path) -> ConfigAndWeights:
    """A folder of sparsify. Its encoder takes the decoder's bias off the input, whatever `normalize_decoder` says, and
    the name of its folder is its hook.

    Raises:
        SaevxError: it cannot be read.
    """
    config = read_json(folder / "cfg.json")
    tensors = read_tensors(folder / SPARSIFY)
    if "W_skip" in tensors:
        raise SaevxError("The SAE reads one place of the model and writes to another: choose another.")
    state = _weights(tensors, "topk", folder / SPARSIFY)
    name = re.sub(r"(layers|h)_(\d+)", r"\1.\2", folder.resolve().name)
    hook = name if re.search(r"(layers|h)\.\d+", name) or name == "embed_tokens" else ""
    names = ("k", "activation", "signed", "transcode", "skip_connection")
    settings = {name: config[name] for name in names if name in config}
    return {**settings, **_sizes(state), "architecture": "topk", "metadata": {"hook_name": hook}}, state


def dictionary_learning(folder: Path) -> ConfigAndWeights:
    """A folder of dictionary_learning: `config.json` beside `ae.pt` (of which only tensors are read, no code is run) or
    `ae.safetensors`.

    Raises:
        SaevxError: it cannot be read, its class is not known, or k or the threshold is missing.
    """
    config = read_json(folder / DICTIONARY_CONFIG)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else config
    kind = str(trainer.get("dict_class", "")).rsplit(".", 1)[-1]
    if kind not in _DICTIONARIES:
        raise SaevxError(
            f"{folder / DICTIONARY_CONFIG} says dict_class = {kind or None!r}, and of dictionary_learning "
            f"{', '.join(_DICTIONARIES)} are read: choose another SAE."
        )
    architecture, subtracts_decoder_bias = _DICTIONARIES[kind]
    path = next((folder / name for name in DICTIONARY_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise SaevxError(
            f"{folder} holds {DICTIONARY_CONFIG} and none of {', '.join(DICTIONARY_WEIGHTS)}: put its weights there."
        )
    tensors = read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    tensors = {name.removeprefix("_orig_mod."): tensor for name, tensor in tensors.items()}
    k = tensors.pop("k", None)
    tensors.pop("group_sizes", None)
    if "BatchTopK" in kind and not _is_learnt(tensors):
        raise SaevxError(NOT_LEARNT)
    state = _weights(tensors, architecture, path)
    hook = _hook_of(trainer, config.get("buffer"))
    settings: dict[str, Any] = {
        **_sizes(state),
        "architecture": architecture,
        "apply_b_dec_to_input": subtracts_decoder_bias,
        "metadata": {"hook_name": hook, "training_architecture": kind},
    }
    if architecture == "topk":
        settings["k"] = trainer.get("k")
        settings["weights"] = {"k": None if k is None else k.item()}  # both are one k, or it is refused
    return settings, state


def _hook_of(trainer: dict[str, Any], buffer: Any) -> str:
    """The place in the model, under TransformerLens' name where it is the residual stream; "" where none is named."""
    layer, module = trainer.get("layer"), str(trainer.get("submodule_name") or "")
    if not isinstance(layer, int):
        return module
    if module and not re.search(r"resid|layers\.\d+$", module):
        return f"{module} of layer {layer}"
    reads_input = isinstance(buffer, dict) and buffer.get("io") == "in"
    is_input = "resid_pre" in module or (reads_input and "resid_post" not in module)
    return f"blocks.{layer}.hook_resid_{'pre' if is_input else 'post'}"


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` file, read by torch's restricted reader: no code in it is run.

    Raises:
        SaevxError: it is a pointer, cut, or holds more than tensors.
    """
    refuse_pointers([path])
    advice = "code in it is never run, so save its tensors alone, best as .safetensors"
    with reading(f"The file {path}", path, advice):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SaevxError(f"{path} holds more than tensors by name: save the SAE's state_dict alone.")
    return state


def plain_weights(place: Path, *, assume_relu: bool) -> ConfigAndWeights:
    """One `.safetensors` file, or a folder with one: W_enc [d, F], b_enc, W_dec [F, d], b_dec, or the names of
    `torch.nn.Linear`, whose matrices lie the other way. What else decides z stands in the file's own metadata or in
    a `.json` beside it, under SAELens' names.

    Args:
        assume_relu: where nothing says an architecture, take it for a ReLU.

    Raises:
        SaevxError: it cannot be read, or says no architecture.
    """
    path = plain_file(place)
    tensors = read_tensors(path)
    config = {**_header(path), **_separate_config(path, place)}
    subtracts_decoder_bias = "decoder.bias" not in tensors  # a Linear's own bias is not taken off the input
    if (k := tensors.pop("k", None)) is not None:
        config["weights"] = {"k": k.item()}
    name = config.get("architecture") or _implied_architecture(config, tensors)
    if name is None and not (assume_relu and "threshold" not in tensors):
        raise SaevxError(
            f"{path} does not say its architecture: name it in {path.with_suffix('.json').name} beside it, such as "
            '{"architecture": "topk", "k": 32}; --sae-format plain takes the four tensors alone for a ReLU.'
        )
    architecture = str(name or "standard")
    metadata = {"training_architecture": architecture}
    if "batchtopk" in architecture.lower().replace("_", ""):
        architecture = "jumprelu"
        if not _is_learnt(tensors):
            raise SaevxError(NOT_LEARNT)
    config = {**config, "architecture": architecture}
    state = _weights(tensors, str(resolve_config(config)["architecture"]), path)
    settings = {"apply_b_dec_to_input": subtracts_decoder_bias, **config, **_sizes(state)}
    return {**settings, "metadata": {"hook_name": _hook_name(config), **metadata}}, state


def _implied_architecture(config: dict[str, Any], tensors: dict[str, Tensor]) -> str | None:
    """The architecture that k or the tensors alone leave possible."""
    if {"topk", "batchtopk"} & set(kinds(config)) or ks(config):
        # With both k and a threshold it may be a TopK or a BatchTopK.
        return None if "threshold" in tensors else "topk"
    if "r_mag" in tensors:
        return "gated"
    if {"threshold", "log_threshold"} & set(tensors):
        return "jumprelu"
    return "standard" if "relu" in kinds(config) else None


def _hook_name(config: dict[str, Any]) -> str:
    metadata = config.get("metadata")
    places = [config, metadata if isinstance(metadata, dict) else {}]
    for place in places:
        if isinstance(hook := place.get("hook_name") or place.get("hook_point"), str):
            return hook
    layer = next((place[name] for place in places for name in ("hook_layer", "layer") if name in place), None)
    return f"blocks.{layer}.hook_resid_post" if isinstance(layer, int) else ""


def plain_file(place: Path) -> Path:
    """The one `.safetensors` file that is meant.

    Raises:
        SaevxError: there is none, or several.
    """
    if place.is_file():
        return place
    files = sorted(place.glob("*.safetensors"))
    if len(files) != 1:
        raise SaevxError(f"{place} holds {len(files)} .safetensors files: name the one with the SAE's weights.")
    return files[0]


def _header(path: Path) -> dict[str, Any]:
    """A safetensors file's own metadata, numbers and flags among its strings as such."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    config: dict[str, Any] = {}
    for name, text in metadata.items():
        try:
            config[name] = json.loads(text)
        except ValueError:
            config[name] = text
    config.pop("format", None)  # the library that wrote it
    return config


def _separate_config(path: Path, place: Path) -> dict[str, Any]:
    """The configuration beside the weights; of a file named itself only what has its name."""
    names = [path.with_suffix(".json"), *([] if place.is_file() else [place / "cfg.json", place / DICTIONARY_CONFIG])]
    return next((read_json(name) for name in names if name.is_file()), {})


def _is_learnt(tensors: dict[str, Tensor]) -> bool:
    return "threshold" in tensors and bool((tensors["threshold"] > 0).any())


def _sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    width, d_in = state["W_dec"].shape
    return {"d_in": d_in, "d_sae": width}


def _weights(tensors: dict[str, Tensor], architecture: str, path: Path) -> dict[str, Tensor]:
    """The tensors of an architecture under SAELens' names, in float32 and lying as SAELens has them.

    Raises:
        SaevxError: one is missing, one is not known, or their shapes do not fit.
    """
    check_types({name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items() if tensor.ndim})
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own_name = _NAMES.get(name, name)
        if own_name in state:
            raise SaevxError(f"{path} holds {own_name} under two names: leave one.")
        state[own_name] = tensor.float()
    if "log_threshold" in state:
        state["threshold"] = state.pop("log_threshold").exp()
    if architecture not in _TENSORS:
        raise SaevxError(f"{path} is of the architecture {architecture!r}: give such an SAE as a SAELens folder.")
    names = _TENSORS[architecture]
    clause = f"which an SAE of the architecture {architecture}"
    if absent := sorted(names - set(state)):
        raise SaevxError(f"{path} lacks {', '.join(absent)}, {clause} has: name its architecture, or choose another.")
    if surplus := sorted(set(state) - names - _UNUSED[architecture]):
        listing = ", ".join(surplus)
        raise SaevxError(f"{path} holds {listing}, {clause} has not: name its architecture, or choose another.")
    state = {name: state[name] for name in names}
    return _orient(state, "encoder.weight" in tensors, "decoder.weight" in tensors, path)


def _orient(state: dict[str, Tensor], linear_encoder: bool, linear_decoder: bool, path: Path) -> dict[str, Tensor]:
    """W_enc [d, F] and W_dec [F, d], whichever way they lay; where d = F, as their names say."""
    d_in = state["b_dec"].numel()
    if state["W_enc"].ndim != 2 or state["W_dec"].ndim != 2:
        raise SaevxError(f"{path} holds matrices of more than one layer: name a file with one SAE.")
    for name, is_linear, axis in (("W_enc", linear_encoder, 0), ("W_dec", linear_decoder, 1)):
        rows, columns = state[name].shape
        if is_linear if rows == columns else state[name].shape[axis] != d_in:
            state[name] = state[name].T
        state[name] = state[name].contiguous()
    width = len(state["W_dec"])
    if "threshold" in state and state["threshold"].numel() == 1:
        state["threshold"] = state["threshold"].reshape(1).expand(width).clone()
    shape_of = {"W_enc": (d_in, width), "W_dec": (width, d_in), "b_dec": (d_in,)}
    for name, tensor in state.items():
        if tuple(tensor.shape) != shape_of.get(name, (width,)):
            shape = " × ".join(map(str, tensor.shape)) or "one number"
            raise SaevxError(f"{path} holds {name} of {shape}, which does not fit a width of {width} and {d_in}.")
    return state
