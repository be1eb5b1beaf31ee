"""What steering changes (METHOD, *Steering*): how strongly which features act, and at which tokens of the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, TEXT, Batch
from precompute.sae.sae import SaeV
from precompute.sae.subset import encoder_of

Mode = Literal["set", "add", "ablate"]
Scope = Literal["image", "prompt", "generated"]


@dataclass(frozen=True)
class Intervention:
    """How one feature is steered."""

    feature: int
    mode: Mode
    strength: float
    """In units of the feature's p99.9; ignored by `ablate`."""
    p999: float
    """The feature's p99.9 on the store's data, in units of z."""


@dataclass
class Steer:
    """h → h + Δ, as a function of the residuals of one row.

    Raises:
        SaevxError: a feature that the SAE does not have, that is never active (so strength has no unit), or whose
            decoder row is zero; a feature named twice.
    """

    sae: SaeV
    interventions: Sequence[Intervention]
    ratios: list[Tensor] = field(default_factory=list)
    """float32 [t] per call: ‖Δ‖/‖h‖ of every steered token, before the cap."""
    control: int | None = None
    """A feature along whose direction Δ lies instead, as long on every token; None: Δ itself."""

    def __post_init__(self) -> None:
        for edit in self.interventions:
            if not 0 <= edit.feature < self.sae.n_features:
                raise SaevxError(f"There is no feature {edit.feature}: choose one from 0 to {self.sae.n_features - 1}.")
            if not edit.p999 > 0 and edit.mode != "ablate" and edit.strength:
                raise SaevxError(
                    f"Feature {edit.feature} is never active here, so strength has no unit: choose another."
                )
        ids = [edit.feature for edit in self.interventions]
        if (reason := self.sae.missing_direction_reason(ids)) is not None:
            raise SaevxError(reason)
        if len(set(ids)) < len(ids):
            raise SaevxError("A feature stands twice in the list: name each feature once.")
        is_add_k = [edit.mode == "add" for edit in self.interventions]
        self.target_k = torch.tensor(
            [0.0 if edit.mode == "ablate" else edit.strength * edit.p999 for edit in self.interventions]
        )
        self.clamped = [k for k, is_add in enumerate(is_add_k) if not is_add]
        """Indices of the interventions that need z: all but `add`."""
        self.encode = encoder_of(self.sae, torch.tensor([ids[k] for k in self.clamped], dtype=torch.long))
        self.directions_kd = self.sae.directions_fd[ids]
        if self.control is not None and (reason := self.sae.missing_direction_reason([self.control])) is not None:
            raise SaevxError(reason)

    def __call__(self, hidden_td: Tensor) -> Tensor:
        """h + Δ for tokens [t, d], in their dtype. Where Δ is 0 the bits of h stay as they are."""
        if not len(self.interventions) or not len(hidden_td):
            return hidden_td
        h_td = hidden_td.float()
        coefficient_tk = self.target_k.to(h_td.device).repeat(len(h_td), 1)
        if self.clamped:
            coefficient_tk[:, self.clamped] -= self.encode(h_td).to(h_td.device)
        delta_td = coefficient_tk @ self.directions_kd.to(h_td)
        scale_t1 = self.sae.token_scale(h_td)  # METHOD's c, where the SAE scales its input token by token
        if scale_t1 is not None:
            delta_td = delta_td * scale_t1.to(h_td.device)
        if self.control is not None:
            direction_d = self.sae.directions_fd[self.control].to(h_td)
            delta_td = delta_td.norm(dim=-1, keepdim=True) * direction_d / direction_d.norm()
        ratio_t = delta_td.norm(dim=-1) / h_td.norm(dim=-1).clamp_min(1e-12)
        self.ratios.append(ratio_t.cpu())
        delta_td = delta_td / ratio_t.clamp_min(1.0)[:, None]
        return torch.where(delta_td != 0, (h_td + delta_td).to(hidden_td.dtype), hidden_td)


def prompt_scope(
    batch: Batch, scope: Sequence[Scope], mask: Sequence[tuple[int, int, int]] | None
) -> NDArray[np.bool_]:
    """bool [s]: the prompt positions to steer, of a batch of one prompt.

    Args:
        scope: `generated` begins at the last prompt position, which predicts the first new token.
        mask: patches (view, row, column) to which `image` is narrowed.
    """
    modality_s = np.asarray(batch.modality_bs[0])
    in_scope = np.zeros(len(modality_s), dtype=bool)
    if "prompt" in scope:
        in_scope |= modality_s == TEXT
    if "image" in scope:
        image = np.flatnonzero(modality_s == IMAGE)
        if mask is None:
            in_scope[image] = True
        else:
            starts = np.cumsum([0, *(view.rows * view.cols for view in batch.views[0])])
            for view, row, col in mask:
                if not 0 <= view < len(batch.views[0]):
                    raise SaevxError(f"The image has no view {view}: choose one from 0 to {len(batch.views[0]) - 1}.")
                grid = batch.views[0][view]
                if not (0 <= row < grid.rows and 0 <= col < grid.cols):
                    raise SaevxError(f"View {view} has {grid.rows} × {grid.cols} patches: no row {row}, column {col}.")
                in_scope[image[starts[view] + row * grid.cols + col]] = True
    if "generated" in scope:
        in_scope[-1] = True
    return in_scope


def check_scope(batch: Batch, scope: Sequence[Scope], mask: Sequence[tuple[int, int, int]] | None) -> None:
    """Raises SaevxError where there is nothing to steer: an empty mask, a mask without an image, a scope without a
    token, or a patch that does not exist."""
    if mask is not None and "image" in scope:
        if not batch.views[0]:
            raise SaevxError("There is no image for the mask: send one, or leave the mask out.")
        if not len(mask):
            raise SaevxError("The mask is empty: mark a patch, or leave the mask out to steer all of them.")
    if not prompt_scope(batch, scope, mask).any():
        reasons = {"image": "no image", "prompt": "no word in the prompt"}
        reason = " and ".join(reasons[name] for name in scope if name in reasons)
        raise SaevxError(f"There is nothing to steer in this scope, as there is {reason}: choose another scope.")
