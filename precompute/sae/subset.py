"""A narrower SAE, to try a wide one with: every `stride`-th feature.

Of an SAE in a folder the others are not even read, so that one beyond the machine's memory can be asked about."""

from __future__ import annotations

from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import torch

from precompute.errors import SaevxError
from precompute.options.shared import SaeFormat
from precompute.sae import loading as sae_load
from precompute.sae.config import compare, resolve_config
from precompute.sae.sae import SaeV
from precompute.utils import memory
from precompute.utils.reading import cause, read_json

MOST_FEATURES = 8192


def config_of(source: str) -> dict[str, Any] | None:
    """A folder's config, its sizes under SAELens' names; None of what is no folder."""
    path = Path(source) / sae_load.CONFIG
    return read_json(path) if path.is_file() else None


def narrow(source: str, layer: int | None, device: str, format: SaeFormat = "auto") -> tuple[SaeV, int]:
    """The SAE, or where it is wider than MOST_FEATURES one of every stride-th feature; and the stride.

    Raises:
        SaevxError: as `SaeV.load`.
    """
    config = config_of(source)
    width = int((config or {}).get("d_sae") or 0)
    weights = Path(source) / sae_load.WEIGHTS
    if config is not None and width > MOST_FEATURES and weights.is_file():
        with suppress(SaevxError):  # what SAELens must first convert is read whole
            stride = ceil(width / MOST_FEATURES)
            check_meaning(config)
            state = cut_weights(weights, width, stride)
            return thin(resolve_config(config), state, stride, source, layer, device), stride
        if (size := weights.stat().st_size) > memory.available():
            raise SaevxError(
                f"The SAE {source} takes {size / 1e9:.1f} GB, more than this machine has free: take a larger one."
            )
    sae = SaeV.load(source, device, layer=layer, format=format)
    stride = ceil(sae.n_features / MOST_FEATURES)
    if stride == 1:
        return sae, 1
    inner = sae.sae
    state = {name: strided(tensor, int(inner.cfg.d_sae), stride) for name, tensor in inner.state_dict().items()}
    told = {**inner.cfg.to_dict(), "architecture": inner.cfg.architecture()}
    return thin(told, state, stride, source, sae.layer, device), stride


def check_meaning(config: dict[str, Any]) -> None:
    """Raises SaevxError where SAELens would not run the whole SAE as its configuration says."""
    from sae_lens import SAE

    try:
        whole = SAE.from_dict({**resolve_config(config), "device": "meta"})
    except SaevxError:
        raise
    except Exception as error:  # a configuration of another version: SAELens converts it where it reads the weights
        raise SaevxError(f"The SAE cannot be tried in part ({cause(error)}): run without --dry-run.") from error
    compare(config, whole)


def strided(tensor: torch.Tensor, width: int, stride: int) -> torch.Tensor:
    """Every stride-th entry along the axes of the features."""
    return tensor[tuple(slice(None, None, stride) if n == width else slice(None) for n in tensor.shape)]


def cut_weights(weights: Path, width: int, stride: int) -> dict[str, torch.Tensor]:
    """As `strided`, of a file of which no more is read."""
    from safetensors import safe_open

    found = {}
    with safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            part = file.get_slice(name)
            at = tuple(slice(None, None, stride) if n == width else slice(None) for n in part.get_shape())
            found[name] = part[at].float() if at else file.get_tensor(name).float()
    return found


def thin(
    config: dict[str, Any], state: dict[str, torch.Tensor], stride: int, source: str, layer: int | None, device: str
) -> SaeV:
    """An SAE of every stride-th feature; of a top-k one as many times fewer are active.

    Args:
        state: of these features only.

    Raises:
        SaevxError: SAELens does not take it so.
    """
    from sae_lens import SAE

    from precompute.model.loading import pick_device

    told = {
        **config, "d_sae": ceil(int(config["d_sae"]) / stride), "device": pick_device(device), "dtype": "float32"
    }  # fmt: skip
    if told.get("k"):
        told["k"] = max(1, round(int(told["k"]) / stride))
    try:
        inner = SAE.from_dict(told)
        inner.load_state_dict(state)
    except Exception as error:
        raise SaevxError(
            f"The SAE {source} cannot be tried in part ({cause(error)}): run without --dry-run."
        ) from error
    return SaeV(inner, source, layer)
