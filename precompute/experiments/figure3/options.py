"""Options of `saevx experiment figure3`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from precompute.utils.command_line import CommandOptions, Count, Seed


class Figure3Options(CommandOptions):
    """What the experiment depends on; the three SAEs of a seed share all of it but model and data."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made; its model is the multimodal one."""
    work: Path = Path("demo/figure3")
    """Folder for data and trained SAEs; what it holds already is not made again."""
    out: Path = Path("docs/results/figure3.jsonl")
    """Result file: one line for each SAE, setting and seed, appended as it ends; lines it holds are not made again."""
    seeds: list[Seed] = Field(default=[0, 1, 2])
    """Seeds of an SAE's initial weights and order of data."""
    tokens: Count = 80_000
    """Tokens that each SAE learns from: of text for two, of image and text for the SAE-V."""
    n_plain: Count = 240
    """Plain texts to learn from, which the unchanged language model writes from 24 beginnings."""
    n_test: int = Field(default=48, ge=2)
    """Held-out pairs, and held-out captions without their images."""
    n_test_plain: Count = 48
    """Held-out plain texts."""
    layer: int = Field(default=16, ge=0)
    """Decoder layer L, counted from 0."""
    expansion: float = Field(default=4.0, gt=0)
    """Features per dimension of the residual stream."""
    batch_size: Count = 256
    """Tokens in a training step."""
    lr: float = Field(default=3e-3, gt=0)
    """Adam's learning rate."""
    l1: float = Field(default=2.0, ge=0)
    """λ, weight of Σ z·‖W_dec‖ beside the squared error."""
    resamples: Count = 1000
    """Bootstrap resamples of the held-out samples, for the 95 % intervals."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the models; auto is bfloat16 on a GPU and float32 elsewhere."""
    device: str = "auto"
    """Where to compute: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
