"""Options of the adapter's training."""

from pathlib import Path

from pydantic import Field

from precompute.demo.assemble import ADAPTER
from precompute.utils.command_line import CommandOptions, Count, Seed


class AdapterTraining(CommandOptions):
    """Train the demo's projector and LoRA."""

    out: Path = ADAPTER
    """Weights file to write."""
    log: Path = Path("docs/results/demo-adapter-training.json")
    """File for the losses."""
    resume: Path | None = None
    """Adapter to go on from, without stage 0."""
    first_scene: int = Field(default=0, ge=0)
    """Number of the first train scene."""
    n_scenes: Count = 8000
    """Train scenes."""
    n_easy_vqa: int = Field(default=1800, ge=0)
    """Images of easy-VQA."""
    stage0_steps: Count = 500
    """Steps of stage 0."""
    steps: Count = 1000
    """Steps of stage 1."""
    batch_size: Count = 16
    """Sequences in a step of stage 1."""
    n_patches: Count = 24
    """Patches shown of each image for the first 85 % of the steps, at their true positions; then all 49."""
    lora_rank: Count = 8
    """Rank of the LoRA."""
    lora_lr: float = Field(default=1.5e-3, gt=0)
    """Learning rate of the LoRA."""
    projector_lr: float = Field(default=5e-4, gt=0)
    """Learning rate of the projector in stage 1."""
    warm_up: Count = 60
    """Steps over which both rates rise."""
    seed: Seed = 0
    """Seed of the weights and of the order of the data."""
