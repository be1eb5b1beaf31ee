"""Where an SAE comes from: a folder or file, a release of SAELens' list, a hub repository.

SAELens reads the weights of its own folders. Ours is what its reader leaves out: checkpoints of its trainer, keys that
only its older versions knew, and factors by which the input was scaled in training. In every case the SAE that results
is compared with what the file says (config.py).
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from precompute.errors import SaevxError
from precompute.options.shared import DICTIONARY_LEARNING, PLAIN_WEIGHTS, SAE_LENS, SaeFormat
from precompute.sae import formats
from precompute.sae.config import compare, resolve_config
from precompute.sae.hook_names import refuse_two_layers
from precompute.sae.values import check_types
from precompute.utils.reading import read_json, read_tensors, refuse_pointers

CONFIG, WEIGHTS, SPARSIFY = "cfg.json", "sae_weights.safetensors", formats.SPARSIFY
SAE_LENS_6 = "6.0.0"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
STORE_STATE = "activations_store_state.safetensors"
"""Where SAELens before 6 kept the factor of an unfinished training."""
FILES = (CONFIG, WEIGHTS, SPARSIFY, SCALER, WHITENING, STORE_STATE)
HOOK_NAMES = ("hook_name", "hook_point", "hook_layer", "hook_point_layer")
AVERAGE, WHITEN = "expected_average_only_in", "covariance_whitening"


class LoadedSae(NamedTuple):
    """An SAE as it was read."""

    sae: Any
    """SAELens' own, float32."""
    factor: float | None
    """The input factor that came with it and is folded into its weights, if any."""
    format: SaeFormat
    """One of `SaeFormat`, never auto."""


def load(name: str, device: str, kind: SaeFormat = "auto") -> LoadedSae:
    """An SAE of a folder, a file, SAELens' list or the hub.

    Raises:
        SaevxError: nothing there, or something that is not read as it was trained. SAELens and the hub raise
            errors of all kinds besides.
    """
    path = Path(name)
    if path.is_dir() or path.is_file():
        return from_path(path, device, kind)
    release, colon, sae_id = name.partition(":")
    if colon and "/" not in release:
        if kind not in ("auto", SAE_LENS):
            raise SaevxError(f"There is no folder {name}, and what SAELens lists is read with --sae-format sae-lens.")
        return LoadedSae(from_release(release, sae_id, device), None, SAE_LENS)
    return from_hub(f"{release}/{sae_id}" if colon else name, device, kind)


def from_release(release: str, sae_id: str, device: str) -> Any:
    """`RELEASE:SAE_ID` of SAELens' list; it folds the factors that its list names."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    listed_config: dict[str, Any] = {}

    def converter(**arguments: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
        convert = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
        config, state, sparsity = convert(**arguments)
        listed_config.update(config)
        return resolve_config(config), state, sparsity

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a factor that is missing there is estimated here
        sae = SAE.from_pretrained(release, sae_id, device=device, dtype="float32", converter=converter)
    listed_config.pop("normalize_activations", None)  # folded already
    compare(listed_config, sae)
    return sae


def from_hub(name: str, device: str, kind: SaeFormat = "auto") -> LoadedSae:
    """`OWNER/REPO[/SUB/FOLDER]`: by SAELens' list where it knows the place, else as a folder; or one `.safetensors`
    file of a repository."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    owner, _, repo_and_folder = name.partition("/")
    repo, _, sub = repo_and_folder.partition("/")
    if not owner or not repo:
        raise SaevxError(f"There is no folder {name}: give a SAELens folder, RELEASE:SAE_ID or a hub id.")
    if kind in ("auto", SAE_LENS):
        for release, entry in get_pretrained_saes_directory().items():
            for sae_id, place in entry.saes_map.items():
                if (entry.repo_id, place) == (f"{owner}/{repo}", sub.rstrip("/")):
                    return LoadedSae(from_release(release, sae_id, device), None, SAE_LENS)
    repository = f"{owner}/{repo}"
    if sub.endswith(".safetensors"):
        folder, _, file = sub.rpartition("/")
        if files := fetch_files(repository, folder, (file, file.removesuffix(".safetensors") + ".json")):
            return from_path(files[0], device, kind)
    files = [] if kind == DICTIONARY_LEARNING else fetch_files(repository, sub, FILES)
    if not files and kind != SAE_LENS:
        files = fetch_files(repository, sub, (formats.DICTIONARY_CONFIG, *formats.DICTIONARY_WEIGHTS))
    if not files:
        raise SaevxError(f"The hub has no SAE at {name}, or cannot be reached: name the folder that holds {CONFIG}.")
    return from_path(files[0].parent, device, kind)


def fetch_files(repository: str, folder: str, names: Sequence[str]) -> list[Path]:
    """The files that are there, by name: a repository of SAEs may hold terabytes."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    prefix = f"{folder.rstrip('/')}/" if folder else ""
    files: list[Path] = []
    for name in names:
        with suppress(EntryNotFoundError):
            files.append(Path(hf_hub_download(repository, prefix + name)))
    return files


def format_of(path: Path) -> SaeFormat:
    """The format that the names of the files tell."""
    if path.is_file():
        return PLAIN_WEIGHTS
    if (path / CONFIG).is_file():
        return SAE_LENS
    names = (formats.DICTIONARY_CONFIG, *formats.DICTIONARY_WEIGHTS)
    if (path / names[0]).is_file() and any((path / name).is_file() for name in names[1:]):
        return DICTIONARY_LEARNING
    return PLAIN_WEIGHTS if len(list(path.glob("*.safetensors"))) == 1 else SAE_LENS


def from_path(path: Path, device: str, kind: SaeFormat = "auto") -> LoadedSae:
    """A folder or a file of any format.

    Raises:
        SaevxError: it holds no SAE of the format, or one that is not read as it was trained.
    """
    config = path.parent / formats.DICTIONARY_CONFIG
    if path.is_file() and path.name in formats.DICTIONARY_WEIGHTS and config.is_file():
        path = path.parent
    kind_option = kind
    kind = format_of(path) if kind == "auto" else kind
    if path.is_file() and (kind != PLAIN_WEIGHTS or path.suffix != ".safetensors"):
        raise SaevxError(f"{path} is a file: name the SAE's folder, or a .safetensors file with --sae-format plain.")
    if kind == DICTIONARY_LEARNING:
        return LoadedSae(build_sae(*formats.dictionary_learning(path), device), None, kind)
    if kind == PLAIN_WEIGHTS:
        content = formats.plain_weights(path, assume_relu=kind_option == PLAIN_WEIGHTS)
        return LoadedSae(build_sae(*content, device), None, kind)
    return LoadedSae(*from_folder(path, device), SAE_LENS)


def build_sae(config: dict[str, Any], state: dict[str, torch.Tensor], device: str) -> Any:
    """SAELens' SAE of a configuration and weights under its own names."""
    from sae_lens import SAE

    metadata = {"sae_lens_version": SAE_LENS_6, **config.get("metadata", {})}
    full_config = {**resolve_config(config), "metadata": metadata, "device": device, "dtype": "float32"}
    sae = SAE.load_from_disk(".", device, converter=lambda *_, **__: (full_config, state))
    compare(config, sae)
    return sae


def from_folder(folder: Path, device: str) -> tuple[Any, float | None]:
    """A folder of SAELens, of any version, or of sparsify."""
    from sae_lens import SAE, TrainingSAE
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    if not (folder / CONFIG).is_file():
        raise SaevxError(f"{folder} holds no {CONFIG}: give a SAELens folder, RELEASE:SAE_ID or a hub id.")
    refuse_pointers(folder / name for name in FILES)
    config = read_json(folder / CONFIG)
    if (folder / SPARSIFY).is_file() and not (folder / WEIGHTS).is_file():
        return build_sae(*formats.sparsify(folder), device), None
    architecture = resolve_config(config)["architecture"]
    if not (folder / WEIGHTS).is_file():
        raise SaevxError(f"{folder} holds {CONFIG} and no {WEIGHTS}: copy the whole folder.")
    check_types(tensor_types(folder / WEIGHTS))  # before SAELens, which warns of some in words of its own
    how = {"device": device, "dtype": "float32", "converter": read_any_version}
    if architecture in SAE_TRAINING_CLASS_REGISTRY and architecture not in SAE_CLASS_REGISTRY:
        sae = for_inference(TrainingSAE.load_from_disk(folder, **how))
    else:
        sae = SAE.load_from_disk(folder, **how)
    compare(config, sae)
    if sae.cfg.normalize_activations == WHITEN:
        fold_whitening(sae, folder)
    factor = stored_factor(folder, config) if sae.cfg.normalize_activations == AVERAGE else None
    if factor is not None:
        fold(sae, factor)
    return sae, factor


def tensor_types(path: Path) -> dict[str, str]:
    """safetensors' names of the types of a file's tensors; without those of single numbers."""
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return {name: part.get_dtype() for name, part in slices.items() if part.get_shape()}


def read_any_version(
    path: str | Path, device: str, cfg_overrides: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """SAELens' reader, with five things that it passes over: a byte-order mark, the k of a TopK in another place, a
    hook name in `metadata` without a version, `{layer}` in a hook name, and a factor per feature learnt after the
    training, which belongs into the decoder."""
    from sae_lens.loading.pretrained_sae_loaders import read_sae_components_from_disk

    config = {**read_json(Path(path) / CONFIG), "device": device, **(cfg_overrides or {})}
    config, state = read_sae_components_from_disk(config, Path(path) / WEIGHTS, device)
    metadata = config.get("metadata") or {}
    if not (config.get("sae_lens_version") or metadata.get("sae_lens_version")):
        # SAELens takes this for an old file, of which it reads no `metadata`.
        config = {**{name: metadata[name] for name in HOOK_NAMES if name in metadata}, **config}
    for name in HOOK_NAMES[:2]:
        layer = config.get("hook_layer", config.get("hook_point_layer"))
        if isinstance(config.get(name), str) and layer is not None:
            config[name] = config[name].replace("{layer}", str(layer))
            refuse_two_layers(config[name], layer)
    factor_f = state.pop("finetuning_scaling_factor", None)
    if factor_f is not None:
        state["W_dec"] = state["W_dec"] * factor_f[:, None]
    optional = ("hook_name", "hook_point", "metadata")
    return {k: v for k, v in resolve_config(config).items() if v is not None or k not in optional}, state


def for_inference(training_sae: Any) -> Any:
    """A trainer's checkpoint as the SAE that SAELens would save at the end: (matryoshka) BatchTopK becomes JumpReLU."""
    from sae_lens import SAE

    state = training_sae.state_dict()
    training_sae.process_state_dict_for_saving_inference(state)
    sae = SAE.from_dict(training_sae.cfg.get_inference_sae_cfg_dict())
    sae.load_state_dict(state)
    return sae


def stored_factor(folder: Path, config: dict[str, Any]) -> float | None:
    """√d / mean‖h‖ of the training data, wherever a version of SAELens left it; None where none did."""
    factors = [config.get("norm_scaling_factor"), config.get("scaling_factor")]
    if (folder / SCALER).is_file():
        factors.append(read_json(folder / SCALER).get("scaling_factor"))
    if (folder / STORE_STATE).is_file():
        factors.append(read_tensors(folder / STORE_STATE).get("estimated_norm_scaling_factor"))
    for value in factors:
        if value is not None and math.isfinite(float(value)) and float(value) > 0:
            return float(value)
    return None


def fold(sae: Any, factor: float) -> None:
    """h ↦ factor · h, taken into the weights."""
    if sae.cfg.architecture() == "matching_pursuit":  # tied weights cannot hold it; its units and its end can
        sae.cfg.residual_threshold /= factor
    sae.fold_activation_norm_scaling_factor(factor)


def fold_whitening(sae: Any, folder: Path) -> None:
    if not (folder / WHITENING).is_file():
        raise SaevxError(f"The SAE in {folder} expects whitened inputs, and {WHITENING} is missing: choose another.")
    tensors = read_tensors(folder / WHITENING)
    sae.fold_activation_whitening(tensors["mean"], tensors["matrix"], tensors["inverse_matrix"])
