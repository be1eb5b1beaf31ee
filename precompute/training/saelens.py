"""SAELens' SAEs for training, its trainer, and the folder that it writes."""

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from precompute.errors import SaevxError
from precompute.utils.reading import cause

OWN_FIELDS = ("architecture", "d_in", "d_sae", "device", "hook", "metadata", "model_name")
"""What `make_sae` sets itself."""


def make_sae(architecture: str, d_in: int, d_sae: int, *, hook: str, model_name: str, **options: Any) -> Any:
    """A fresh SAE of SAELens for training, whose input the trainer scales to mean norm √d.

    Raises:
        SaevxError: an option that this architecture does not have, or a value that it refuses.
    """
    import sae_lens  # noqa: F401 (registers the architectures)
    from sae_lens.registry import get_sae_training_class

    sae_class, config_class = get_sae_training_class(architecture.replace("-", "_"))
    names = {f.name for f in fields(config_class)} - {"d_in", "d_sae", "metadata"}
    if unknown_names := sorted(set(options) - names):
        raise SaevxError(
            f"SAELens' {architecture} has no option {unknown_names[0]}: choose among {', '.join(sorted(names))}."
        )
    options = {"normalize_activations": "expected_average_only_in", **options}
    if options["normalize_activations"] == "covariance_whitening":
        raise SaevxError("Whitening is not offered here: leave normalize_activations as it is, or choose none.")
    kinds = get_type_hints(config_class)
    for name, value in options.items():
        try:
            TypeAdapter(kinds[name], config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise SaevxError(f"SAELens' {name} cannot be {value!r}: {error.errors()[0]['msg']}.") from error
    try:
        config = config_class(d_in=d_in, d_sae=d_sae, **options)
        config.metadata.hook_name = hook
        config.metadata.model_name = model_name
        return sae_class(config)
    except (ValueError, TypeError) as error:
        raise SaevxError(f"SAELens refuses these options of {architecture}: {cause(error).rstrip('.')}.") from error


@torch.no_grad()
def start_at_mean(sae: Any, hidden_td: Tensor, scale: float | None) -> None:
    """Set a fresh SAE's b_dec to the mean of its input, in the units in which the SAE sees it.

    Args:
        hidden_td: h [t, d] as the model gives it.
        scale: what the trainer multiplies it by; None: nothing.
    """
    total_d = torch.zeros(sae.cfg.d_in, dtype=torch.float64, device=hidden_td.device)
    for part_td in hidden_td.split(4096):
        total_d += sae.run_time_activation_norm_fn_in(part_td.float() * (scale or 1.0)).double().sum(0)
    sae.b_dec.copy_(total_d / len(hidden_td))


def make_trainer(
    sae: Any, provider: Iterator[Tensor], *, steps: int, batch_size: int, lr: float, **options: Any
) -> Any:
    """SAELens' trainer: Adam, a constant learning rate with warm-up and decay.

    Args:
        options: further ones of `SAETrainerConfig`.
    """
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = SAETrainerConfig(
        total_training_samples=steps * batch_size,
        train_batch_size_samples=batch_size,
        lr=lr,
        lr_end=lr / 10,  # must be given; a constant rate does not use it
        logger=LoggingConfig(log_to_wandb=False),
        **options,
    )
    return SAETrainer(config, sae, provider)


def save_sae(sae: Any, folder: Path, *, scale: float | None, dtype: str = "float32") -> None:
    """A SAELens inference folder with the input scale folded in; `sae` itself is left as it is.

    SAELens' own way, scale first, would change the decoder norms that `topk` and its kin multiply their activations
    by, and so leave a learnt threshold in other units. Here the norms are folded first, then the scale."""
    from sae_lens import SAE

    scratch = folder / "scratch"
    sae.save_inference_model(scratch)
    copy = SAE.load_from_disk(scratch)
    if scale is not None:
        copy.fold_activation_norm_scaling_factor(scale)
    copy.cfg.dtype, copy.cfg.device = dtype, "cpu"
    copy.to(getattr(torch, dtype)).save_model(folder)
    shutil.rmtree(scratch)
