"""The SAE-V: SAELens' own classes for every architecture; ours is only what the method asks of one."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from precompute.errors import SaevxError
from precompute.options.shared import SAE_LENS, SaeFormat
from precompute.products.setting import Products
from precompute.sae import loading as sae_load
from precompute.sae.hook_names import layer_of, layer_warning
from precompute.sae.values import check_values, has_direction
from precompute.utils.reading import reading

_PER_TOKEN = ("constant_norm_rescale", "layer_norm")
_CHANGES_Z = (
    "rescale_acts_by_decoder_norm",
    "residual_threshold",
    "max_iterations",
    "stop_on_duplicate_support",
)
_NO_SAE = {"temporal": "encodes a token by its context, so its features are not those of one token"}


class SaeV:
    """A sparse autoencoder on the residual stream after layer `layer`. float32 throughout.

    Attributes:
        hook: the hook name in the SAE's own config.
        sha256: of its weights, as they were given, and of what in its config changes a value.
        architecture: SAELens' name. The features of `abstopk` fire in both directions; here each is two, k for
            its positive side and k + d_sae for its negative one.
        input_factor: number by which h is scaled, folded into the weights, and whether it was `stored` with the
            SAE or `estimated` on the data; None where there is none.
        format: how it is stored, one of `SaeFormat` but auto.
    """

    def __init__(
        self,
        sae: Any,
        name: str,
        layer: int | None = None,
        stored_factor: float | None = None,
        format: SaeFormat = SAE_LENS,
    ) -> None:
        self.sae, self.name, self.format = sae, name, format
        config = sae.cfg
        self.architecture = str(config.architecture())
        if self.architecture in _NO_SAE or self.architecture.endswith("transcoder"):
            why = _NO_SAE.get(self.architecture, "reads one place of the model and writes to another")
            raise SaevxError(f"The SAE {name} ({self.architecture}) {why}: choose another architecture.")
        check_values(name, self.architecture, sae)
        self.signed = self.architecture == "abstopk"
        self.d_model, self.n_features = int(config.d_in), int(config.d_sae) * (2 if self.signed else 1)
        self.hook = str(config.metadata.hook_name or "")
        if layer is None and not self.hook:
            raise SaevxError(f"The SAE {name} does not say which layer it reads: name it with --layer.")
        self.layer = layer_of(self.hook) if layer is None else layer
        self.normalize = str(config.normalize_activations)
        self.input_factor: dict[str, Any] | None = None
        if stored_factor is not None:
            self.input_factor = {"value": stored_factor, "source": "stored"}
        self.products = Products()
        """How its large products may be computed; z does not depend on it."""
        self.derived: dict[str, Any] = {}
        """What other modules made of the weights; emptied where these change."""
        self._check_directions()

    @classmethod
    def load(
        cls, path_or_release: str | Path, device: str = "cpu", *, layer: int | None = None, format: SaeFormat = "auto"
    ) -> Self:
        """A SAELens folder, `RELEASE:SAE_ID` of SAELens' list, or a hub repository, its sub-folder named or not; a
        folder of sparsify or dictionary_learning, or a plain `.safetensors` file.

        Args:
            layer: overrides the layer of the SAE's own hook name.

        Raises:
            SaevxError: nothing there, an SAE that cannot be read as it was trained or does not read a residual stream,
                weights that are not finite.
        """
        from precompute.model.loading import pick_device

        name, target = str(path_or_release), pick_device(device)
        with reading(f"The SAE {name}", name):
            source = sae_load.load(name, target, format)
        return cls(source.sae, name, layer, source.factor, source.format)

    @property
    def layer_warning(self) -> str | None:
        """A sentence where it is read at a layer that is not its own hook's."""
        return layer_warning(self.hook, self.layer)

    # ---- input scaling that is no run-time norm of SAELens'

    @property
    def lacks_factor(self) -> bool:
        """It expects inputs scaled by a factor that it does not bring: one must be estimated before it is used."""
        return self.normalize == sae_load.AVERAGE

    def fold_input_factor(self, factor: float) -> None:
        """Fold the estimated factor √d / mean‖h‖ into the weights of an SAE that lacks it."""
        if not self.lacks_factor:
            return
        _ = self.sha256  # it names the SAE as it was given, whatever the data
        sae_load.fold(self.sae, factor)
        self.normalize = str(self.sae.cfg.normalize_activations)
        self.input_factor = {"value": factor, "source": "estimated"}
        for property_name in ("directions_fd", "decode_zero_d"):
            self.__dict__.pop(property_name, None)
        self.derived.clear()

    def fold_factor_of_store(self, manifest: dict[str, Any]) -> None:
        """As `fold_input_factor`, with the factor of a store's manifest."""
        if self.lacks_factor:
            factor = manifest.get("input_factor")
            if not factor:
                raise SaevxError(f"The SAE {self.name} lacks its input factor, and so does the store: make it again.")
            self.fold_input_factor(float(factor["value"]))

    def check(self, d_model: int) -> None:
        """Raises SaevxError where the model's width is not the SAE's."""
        if d_model != self.d_model:
            raise SaevxError(
                f"The SAE reads vectors of width {self.d_model}, the model's are {d_model} wide: "
                "this SAE was trained on another model."
            )

    @property
    def device(self) -> torch.device:
        return self.sae.W_dec.device

    @torch.inference_mode()
    def encode(self, hidden_td: Tensor) -> Tensor:
        """z [t, F] float32 of h [t, d], with the SAE's own run-time input scaling."""
        if self.lacks_factor:
            raise SaevxError(f"The SAE {self.name} expects scaled inputs and its factor is not known yet.")
        acts_tf: Tensor = self.sae.encode(hidden_td.to(self.device, torch.float32))
        self._clear_token_scales()
        return torch.cat([acts_tf.relu(), (-acts_tf).relu()], dim=-1) if self.signed else acts_tf

    @torch.inference_mode()
    def decode(self, acts_tf: Tensor, hidden_td: Tensor | None = None) -> Tensor:
        """ĥ [t, d] of z [t, F]; decoder norms are not folded.

        Args:
            hidden_td: the h that was encoded; needed only by an SAE that scales every token by itself.
        """
        if self.normalize in _PER_TOKEN:
            if hidden_td is None:
                raise SaevxError("This SAE scales each token by itself: give decode the h of the tokens too.")
            self.sae.run_time_activation_norm_fn_in(hidden_td.to(self.device, torch.float32))
        return self._decode(acts_tf.to(self.device, torch.float32))

    def _decode(self, acts_tf: Tensor) -> Tensor:
        if self.signed:
            n_half = self.n_features // 2
            acts_tf = acts_tf[:, :n_half] - acts_tf[:, n_half:]
        if self._rescales and self._has_zero_row:  # SAELens divides by its norm, which makes every token NaN
            rows_fd = self.sae.W_dec.detach() / self.sae.get_W_dec_norm().detach()[:, None]
            return self.sae.run_time_activation_norm_fn_out(acts_tf @ rows_fd + self.sae.b_dec)
        return self.sae.decode(acts_tf)

    @property
    def _rescales(self) -> bool:
        """Whether z is in units of the decoder row's length."""
        return bool(getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False))

    @cached_property
    def _has_zero_row(self) -> bool:
        return not bool(has_direction(self.sae.W_dec).all())

    def _clear_token_scales(self) -> None:
        """SAELens keeps the last token scales on the SAE until it decodes."""
        for name in ("x_norm_coeff", "ln_mu", "ln_std"):
            self.sae.__dict__.pop(name, None)

    @cached_property
    def directions_fd(self) -> Tensor:
        """d_k = decode(e_k) − decode(0), float32 [F, d] (METHOD, *Notation*).

        For an SAE that scales every token by itself, the direction at scale 1; times `token_scale(h)`."""
        directions_fd: Tensor = self.sae.W_dec.detach()
        if self._rescales:
            directions_fd = directions_fd / self.sae.get_W_dec_norm().detach()[:, None]
        return torch.cat([directions_fd, -directions_fd]) if self.signed else directions_fd

    def missing_direction_reason(self, features: Sequence[int]) -> str | None:
        """A sentence where one of the features has a decoder row of zeros, so that steering with it does nothing."""
        width = int(self.sae.cfg.d_sae)
        idle = [k for k in features if 0 <= k < self.n_features and not bool(self.sae.W_dec[k % width].any())]
        if not idle:
            return None
        return f"Feature {idle[0]} has no direction, its decoder row is zero, so it steers nothing: choose another."

    @cached_property
    def decode_zero_d(self) -> Tensor:
        """decode(0), float32 [d], without a token's own scale."""
        return self._decode_unscaled(torch.zeros(1, self.n_features, device=self.device))[0]

    @torch.no_grad()
    def _decode_unscaled(self, acts_tf: Tensor) -> Tensor:
        """`decode` at scale 1, for an SAE that scales every token by itself."""
        self.sae.x_norm_coeff = self.sae.ln_std = torch.ones(1, device=self.device)
        self.sae.ln_mu = torch.zeros(1, device=self.device)
        hidden_td = self._decode(acts_tf)
        self._clear_token_scales()
        return hidden_td

    def token_scale(self, hidden_td: Tensor) -> Tensor | None:
        """Factor [t, 1] by which run-time input scaling stretches d_k at these tokens; None where it is 1."""
        h_td = hidden_td.to(self.device, torch.float32)
        if self.normalize == "constant_norm_rescale":
            return h_td.norm(dim=-1, keepdim=True) / self.d_model**0.5
        if self.normalize == "layer_norm":
            return h_td.std(dim=-1, keepdim=True)
        return None

    @torch.inference_mode()
    def reconstruct(self, offset_t: Tensor, feature_e: Tensor, z_e: Tensor, hidden_td: Tensor) -> Tensor:
        """ĥ [t, d] from sparse z (CSR rows): as `decode`, at the cost of the active features only."""
        if self.normalize in _PER_TOKEN:
            acts_tf = torch.zeros(len(hidden_td), self.n_features, device=self.device)
            token_e = torch.repeat_interleave(torch.arange(len(hidden_td), device=self.device), offset_t.diff())
            acts_tf[token_e, feature_e] = z_e
            return self.decode(acts_tf, hidden_td)
        summed_td = torch.nn.functional.embedding_bag(
            feature_e,
            self.directions_fd,
            offset_t,
            mode="sum",
            per_sample_weights=z_e,
            include_last_offset=True,
        )
        return summed_td + self.decode_zero_d

    @torch.inference_mode()
    def _check_directions(self) -> None:
        """The decoder must be what the method takes it for: linear, with `directions_fd` as its rows."""
        probes = torch.linspace(0, self.n_features - 1, min(8, self.n_features), device=self.device).long()
        acts_tf = torch.zeros(len(probes) + 1, self.n_features, device=self.device)
        acts_tf[torch.arange(len(probes)), probes] = 1.0
        decoded_td = self._decode_unscaled(acts_tf)
        rounding = 1e-4 + 1e-6 * float(decoded_td.abs().max())  # a large decoder bias leaves fewer digits to the rest
        if not torch.allclose(decoded_td[:-1] - decoded_td[-1], self.directions_fd[probes], rtol=1e-3, atol=rounding):
            raise SaevxError(
                f"The decoder of SAE {self.name} ({self.architecture}) is not linear in its features, "
                "so its features have no directions: choose another architecture."
            )

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        config = self.sae.cfg
        meaning = {
            "architecture": self.architecture,
            "normalize_activations": self.normalize,
            "apply_b_dec_to_input": bool(config.apply_b_dec_to_input),
            "k": getattr(config, "k", None),
            "layer": self.layer,
            **{name: getattr(config, name) for name in _CHANGES_Z if hasattr(config, name)},
        }
        digest.update(json.dumps(meaning, sort_keys=True).encode())
        for name, tensor in sorted(self.sae.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
