"""Where an SAE comes from: a folder, a release of SAELens' list, a hub repository.

SAELens reads the weights. Ours is what its reader leaves out: checkpoints of its trainer, keys that only its older
versions knew, and factors by which the input was scaled in training.
"""

from __future__ import annotations

import json
import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from precompute.errors import SaevxError

CONFIG, WEIGHTS, SPARSIFY = "cfg.json", "sae_weights.safetensors", "sae.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
STORE_STATE = "activations_store_state.safetensors"
"""Where SAELens before 6 kept the factor of an unfinished training."""
FILES = (CONFIG, WEIGHTS, SPARSIFY, SCALER, WHITENING, STORE_STATE)
AVERAGE, WHITEN = "expected_average_only_in", "covariance_whitening"


def load(name: str, device: str) -> tuple[Any, float | None]:
    """SAELens' SAE in float32, and the input factor that came with it and is folded into its weights, if any.

    Raises:
        SaevxError: nothing there, or something that is not read as it was trained. SAELens and the hub raise
            all kinds beside.
    """
    if Path(name).is_dir():
        return from_folder(Path(name), device)
    release, colon, sae_id = name.partition(":")
    if colon and "/" not in release:
        return from_release(release, sae_id, device), None
    return from_hub(f"{release}/{sae_id}" if colon else name, device)


def from_release(release: str, sae_id: str, device: str) -> Any:
    """`RELEASE:SAE_ID` of SAELens' list; it folds the factors that its list names."""
    from sae_lens import SAE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a factor that is missing there is estimated here
        return SAE.from_pretrained(release, sae_id, device=device, dtype="float32")


def from_hub(name: str, device: str) -> tuple[Any, float | None]:
    """`OWNER/REPO[/SUB/FOLDER]`: by SAELens' list where it knows the place, else as a folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    owner, _, rest = name.partition("/")
    repo, _, sub = rest.partition("/")
    if not owner or not repo:
        raise SaevxError(f"There is no folder {name}: give a SAELens folder, RELEASE:SAE_ID or a hub id.")
    for release, listed in get_pretrained_saes_directory().items():
        for sae_id, place in listed.saes_map.items():
            if (listed.repo_id, place) == (f"{owner}/{repo}", sub.rstrip("/")):
                return from_release(release, sae_id, device), None
    prefix = f"{sub.rstrip('/')}/" if sub else ""
    found: list[str] = []
    for file in FILES:  # by name: a repository of SAEs may hold terabytes
        with suppress(EntryNotFoundError):
            found.append(hf_hub_download(f"{owner}/{repo}", prefix + file))
    if not found:
        raise SaevxError(f"The hub has no SAE at {name}, or cannot be reached: name the folder that holds {CONFIG}.")
    return from_folder(Path(found[0]).parent, device)


def from_folder(folder: Path, device: str) -> tuple[Any, float | None]:
    """A folder of SAELens, of any version, or of sparsify."""
    from sae_lens import SAE, TrainingSAE
    from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    if not (folder / CONFIG).is_file():
        raise SaevxError(f"{folder} holds no {CONFIG}: give a SAELens folder, RELEASE:SAE_ID or a hub id.")
    config = json.loads((folder / CONFIG).read_text())
    refuse_unread(config)
    architecture = str(config.get("architecture") or "standard")
    how = {"device": device, "dtype": "float32"}
    if (folder / SPARSIFY).is_file() and not (folder / WEIGHTS).is_file():
        sae = SAE.load_from_disk(folder.resolve(), converter=sparsify_disk_loader, **how)
    elif architecture in SAE_TRAINING_CLASS_REGISTRY and architecture not in SAE_CLASS_REGISTRY:
        sae = for_inference(TrainingSAE.load_from_disk(folder, **how))
    else:
        sae = SAE.load_from_disk(folder, converter=read_any_version, **how)
    if sae.cfg.normalize_activations == WHITEN:
        fold_whitening(sae, folder)
    factor = stored_factor(folder, config) if sae.cfg.normalize_activations == AVERAGE else None
    if factor is not None:
        fold(sae, factor)
    return sae, factor


def refuse_unread(config: dict[str, Any]) -> None:
    """Raises SaevxError for what SAELens 6 would pass over in silence."""
    known = {**config, **(config.get("metadata") or {})}
    activation = next(
        (known[name] for name in ("activation_fn_str", "activation_fn", "activation") if known.get(name)), "relu"
    )
    if known.get("signed") or (known.get("activation_fn_kwargs") or {}).get("signed"):
        activation = "signed topk"
    if activation not in ("relu", "topk"):
        raise SaevxError(f"The SAE's activation function is {activation!r}, which SAELens lacks: choose another.")
    head = known.get("hook_head_index", known.get("hook_point_head_index"))
    if head is not None:
        raise SaevxError(f"The SAE reads attention head {head} alone, not the residual stream: choose another.")
    if known.get("transcode") or known.get("skip_connection"):  # of sparsify
        raise SaevxError("The SAE reads one place of the model and writes to another: choose another.")


def read_any_version(
    path: str | Path, device: str, cfg_overrides: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """SAELens' reader, with two things that it dropped in version 6: `{layer}` in a hook name, and a factor per
    feature learnt after the training, which belongs into the decoder."""
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    config, state = sae_lens_disk_loader(path, device, cfg_overrides)
    for name in ("hook_name", "hook_point"):
        layer = config.get("hook_layer", config.get("hook_point_layer"))
        if isinstance(config.get(name), str) and layer is not None:
            config[name] = config[name].replace("{layer}", str(layer))
    factor_f = state.pop("finetuning_scaling_factor", None)
    if factor_f is not None:
        state["W_dec"] = state["W_dec"] * factor_f[:, None]
    return config, state


def for_inference(trained: Any) -> Any:
    """A trainer's checkpoint as the SAE that SAELens would save at the end: (matryoshka) BatchTopK becomes JumpReLU."""
    from sae_lens import SAE

    state = trained.state_dict()
    trained.process_state_dict_for_saving_inference(state)
    sae = SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict())
    sae.load_state_dict(state)
    return sae


def stored_factor(folder: Path, config: dict[str, Any]) -> float | None:
    """√d / mean‖h‖ of the training data, wherever a version of SAELens left it; None where none did."""
    from safetensors.torch import load_file

    found = [config.get("norm_scaling_factor"), config.get("scaling_factor")]
    if (folder / SCALER).is_file():
        found.append(json.loads((folder / SCALER).read_text()).get("scaling_factor"))
    if (folder / STORE_STATE).is_file():
        found.append(load_file(folder / STORE_STATE).get("estimated_norm_scaling_factor"))
    for value in found:
        if value is not None and math.isfinite(float(value)) and float(value) > 0:
            return float(value)
    return None


def fold(sae: Any, factor: float) -> None:
    """h ↦ factor · h, taken into the weights."""
    if sae.cfg.architecture() == "matching_pursuit":  # tied weights cannot hold it; its units and its end can
        sae.cfg.residual_threshold /= factor
    sae.fold_activation_norm_scaling_factor(factor)


def fold_whitening(sae: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    if not (folder / WHITENING).is_file():
        raise SaevxError(f"The SAE in {folder} expects whitened inputs, and {WHITENING} is missing: choose another.")
    stored = load_file(folder / WHITENING)
    sae.fold_activation_whitening(stored["mean"], stored["matrix"], stored["inverse_matrix"])
