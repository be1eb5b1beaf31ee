"""Weights that no figure can be computed with: what is not a number, infinite, or so large that its square is."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from precompute.errors import SaevxError

LARGEST = 1e15
"""Beyond it a decoder row's square, or z times it, leaves float32."""
_OFF = {"b_enc": -torch.inf, "b_gate": -torch.inf, "threshold": torch.inf}
"""Values by which a feature is switched off: it is never active, and all that is computed stays finite."""
_CAN_BE_OFF = ("standard", "topk", "jumprelu", "gated")


def has_direction(rows_fd: Tensor) -> Tensor:
    """bool [F]: decoder rows [F, d] that are not zero."""
    return (rows_fd != 0).any(dim=-1)


def check_types(type_of: Mapping[str, str]) -> None:
    """Raises SaevxError where a tensor of an SAE's file holds anything but real floating-point numbers: SAELens would
    take the integers of a quantized file for its weights, and leave out the imaginary parts of complex ones.

    Args:
        type_of: of each tensor its type, as torch or safetensors calls it, such as bfloat16 or BF16.
    """
    for name, kind in type_of.items():
        if not re.match(r"b?f(loat)?\d", kind, re.IGNORECASE):
            raise SaevxError(
                f"The SAE's tensor {name} holds numbers of type {kind}, and weights are floating-point numbers: "
                "save it as float32, with its scale multiplied in where it is quantized."
            )


@torch.inference_mode()
def check_values(name: str, architecture: str, sae: Any) -> None:
    """Raises SaevxError, with the tensor and its first feature, where a weight of SAELens' `sae` is not finite or too
    large to compute with. Zeros are allowed, a decoder row of zeros too, and a feature may be switched off by a bias
    of −inf or a threshold of +inf."""
    can_be_off = architecture in _CAN_BE_OFF and not getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    for tensor_name, tensor in sae.state_dict().items():
        low, high = (float(end) for end in tensor.aminmax())  # NaN where there is one
        if low >= -LARGEST and high <= LARGEST:
            continue
        is_bad = ~(tensor.abs() <= LARGEST)
        is_off = tensor == _OFF.get(tensor_name, torch.nan)
        if can_be_off and not bool(is_off.all()):
            is_bad &= ~is_off
        if not bool(is_bad.any()):
            continue
        at = is_bad.nonzero()[0]
        value = float(tensor[tuple(at)])
        axis = _feature_axis(tensor_name, tensor, int(sae.cfg.d_sae))
        feature = "" if axis is None else f", first at feature {int(is_bad.nonzero()[:, axis].min())}"
        fault = f"too large for finite figures, {value:.0e}" if math.isfinite(value) else "not finite"
        raise SaevxError(
            f"The SAE {name} has weights that are {fault} ({tensor_name}{feature}): its file is damaged or its "
            "training failed, so download it again or choose another."
        )


def _feature_axis(name: str, tensor: Tensor, width: int) -> int | None:
    """The axis along which a tensor's features lie; None where it has none."""
    axes = [axis for axis, n in enumerate(tensor.shape) if n == width]
    if not axes or name == "b_dec":
        return None
    return axes[-1] if name == "W_enc" else axes[0]
