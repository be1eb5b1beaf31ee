"""A part of an SAE: every k-th feature, to try a wide one with; or z of a few features alone, to steer with them."""

import copy
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from precompute.errors import SaevxError
from precompute.options.shared import SaeFormat
from precompute.sae import loading
from precompute.sae.config import compare, resolve_config
from precompute.sae.sae import SaeV
from precompute.utils import memory
from precompute.utils.reading import cause, read_json

MAX_FEATURES = 8192
INDEPENDENT = {
    "standard": ("W_enc", "b_enc"),
    "jumprelu": ("W_enc", "b_enc", "threshold"),  # BatchTopK too, as SAELens saves it
    "gated": ("W_enc", "b_gate", "r_mag", "b_mag"),
}
"""Architectures whose features are independent of each other: their parameters with features as the last dimension."""


# ---- every k-th feature


def sae_subset(source: str, layer: int | None, device: str, format: SaeFormat = "auto") -> tuple[SaeV, int, int]:
    """An SAE with at most MAX_FEATURES features: every k-th one.

    Of a SAELens folder the other features are not even read, so that an SAE beyond the machine's memory can be tried.

    Returns:
        the narrow SAE, k, and the number of features of the whole one.

    Raises:
        SaevxError: as `SaeV.load`.
    """
    config = _config_of(source)
    width = int((config or {}).get("d_sae") or 0)
    weights = Path(source) / loading.WEIGHTS
    if config is not None and width > MAX_FEATURES and weights.is_file():
        with suppress(SaevxError):  # what SAELens must first convert is read whole
            stride = ceil(width / MAX_FEATURES)
            _check_config(config)
            state = _read_every_kth(weights, width, stride)
            sae = _build(resolve_config(config), state, stride, source, layer, device)
            return sae, stride, width * (2 if sae.signed else 1)
        if (size := weights.stat().st_size) > memory.available():
            raise SaevxError(
                f"The SAE {source} takes {size / 1e9:.1f} GB, more than this machine has free: take a larger one."
            )
    sae = SaeV.load(source, device, layer=layer, format=format)
    stride = ceil(sae.n_features / MAX_FEATURES)
    return (sae, 1, sae.n_features) if stride == 1 else (every_kth_feature(sae, stride), stride, sae.n_features)


def every_kth_feature(sae: SaeV, k: int) -> SaeV:
    """A narrower SAE of the same kind; of a TopK only one k-th as many features are active on a token."""
    module = sae.sae
    width = int(module.cfg.d_sae)
    state = {name: tensor[_every_kth(tensor.shape, width, k)] for name, tensor in module.state_dict().items()}
    config = {**module.cfg.to_dict(), "architecture": module.cfg.architecture()}
    return _build(config, state, k, sae.name, sae.layer, str(sae.device))


def _config_of(source: str) -> dict[str, Any] | None:
    """A SAELens folder's config, its sizes under SAELens' names; None of what is no such folder."""
    path = Path(source) / loading.CONFIG
    return read_json(path) if path.is_file() else None


def _check_config(config: dict[str, Any]) -> None:
    """Raises SaevxError where SAELens would not run the SAE as its configuration says."""
    from sae_lens import SAE

    try:
        sae = SAE.from_dict({**resolve_config(config), "device": "meta"})
    except SaevxError:
        raise
    except Exception as error:  # a configuration of another version: SAELens converts it where it reads the weights
        raise SaevxError(f"The SAE cannot be tried in part ({cause(error)}): run without --dry-run.") from error
    compare(config, sae)


def _every_kth(shape: Any, width: int, k: int) -> tuple[slice, ...]:
    """The index of every k-th entry along the axes of the features, which are those of length `width`."""
    return tuple(slice(None, None, k) if n == width else slice(None) for n in shape)


def _read_every_kth(weights: Path, width: int, k: int) -> dict[str, Tensor]:
    """float32 tensors of every k-th feature; no more of the file is read."""
    from safetensors import safe_open

    state = {}
    with safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            part = file.get_slice(name)
            at = _every_kth(part.get_shape(), width, k)
            state[name] = part[at].float() if at else file.get_tensor(name).float()
    return state


def _build(
    config: dict[str, Any], state: dict[str, Tensor], k: int, source: str, layer: int | None, device: str
) -> SaeV:
    """The SAE of every k-th feature.

    Args:
        config: of the whole SAE. state: of these features only.

    Raises:
        SaevxError: SAELens does not take it so.
    """
    from sae_lens import SAE

    from precompute.model.loading import pick_device

    narrow_cfg = {**config, "d_sae": ceil(int(config["d_sae"]) / k), "device": pick_device(device), "dtype": "float32"}
    if narrow_cfg.get("k"):
        narrow_cfg["k"] = max(1, round(int(narrow_cfg["k"]) / k))
    try:
        module = SAE.from_dict(narrow_cfg)
        module.load_state_dict(state)
    except Exception as error:
        raise SaevxError(
            f"The SAE {source} cannot be tried in part ({cause(error)}): run without --dry-run."
        ) from error
    return SaeV(module, source, layer)


# ---- z of a few features


def encoder_of(sae: SaeV, ids: Tensor) -> Callable[[Tensor], Tensor]:
    """The function from h [t, d] to z [t, k] float32 of the features `ids` int64 [k], on the SAE's device.

    Where the SAE decides on each feature by itself, a feature needs its own column of the encoder only, and SAELens'
    own `encode` runs over these columns, so input scaling and activation are its own. Where a feature's z depends on
    the others (TopK and what is derived from it, matching pursuit), all are encoded. The numbers are those of
    `sae.encode(h)[:, ids]` up to the last bits, which depend on a matrix product's shape."""
    names = INDEPENDENT.get(sae.architecture)
    ids = ids.to(sae.device)
    if names is None:
        return lambda hidden_td: sae.encode(hidden_td)[:, ids]
    subset = copy.copy(sae)
    subset.sae = copy.copy(sae.sae)  # shallow: only the parameters that are replaced below are not shared
    parameters = dict(sae.sae._parameters)
    for name in names:
        columns = parameters[name].detach().index_select(-1, ids).contiguous()
        parameters[name] = nn.Parameter(columns, requires_grad=False)
    subset.sae.__dict__["_parameters"] = parameters

    def encode(hidden_td: Tensor) -> Tensor:
        z_tk: Tensor = subset.encode(hidden_td)
        sae._clear_token_scales()  # SAELens' input scaling leaves its factors on the SAE that it was made for
        return z_tk

    return encode
