"""z of a few features, without encoding all of them.

Where the SAE decides on each feature by itself, a feature needs its own column of the encoder only. SAELens' own
`encode` runs over the columns, so input scaling and activation are its own. Where a feature's z depends on the others
(TopK and what is derived from it, matching pursuit), all are encoded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from precompute.sae.sae import SaeV

BY_ITSELF = {
    "standard": ("W_enc", "b_enc"),
    "jumprelu": ("W_enc", "b_enc", "threshold"),  # BatchTopK too, as SAELens saves it
    "gated": ("W_enc", "b_gate", "r_mag", "b_mag"),
}
"""Architectures whose features are independent of each other: their parameters with features as the last dimension."""


def encoder_of(sae: SaeV, ids: Tensor) -> Callable[[Tensor], Tensor]:
    """The function from h [t, d] to z [t, k] float32 of the features `ids` [k], on the SAE's device.

    The same numbers as `sae.encode(h)[:, ids]` up to the last bits, which depend on a matrix product's shape."""
    names = BY_ITSELF.get(sae.architecture)
    ids = ids.to(sae.device)
    if names is None:
        return lambda hidden_td: sae.encode(hidden_td)[:, ids]
    some = copy.copy(sae)
    some.sae = copy.copy(sae.sae)  # shallow: only what is cut below is not shared
    parameters = dict(sae.sae._parameters)
    for name in names:
        cut = parameters[name].detach().index_select(-1, ids).contiguous()
        parameters[name] = nn.Parameter(cut, requires_grad=False)
    some.sae.__dict__["_parameters"] = parameters

    def encode(hidden_td: Tensor) -> Tensor:
        z_tk: Tensor = some.encode(hidden_td)
        sae._forget()  # SAELens' input scaling leaves its factors on the SAE that it was made for
        return z_tk

    return encode


def all_of(sae: SaeV, ids: Tensor) -> Callable[[Tensor], Tensor]:
    """The naive reference of `encoder_of`."""
    return lambda hidden_td: sae.encode(hidden_td)[:, ids.to(sae.device)]
