"""Options of `saevx experiment …`, apart from what runs them, so that `--help` answers at once."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from precompute.utils.command_line import CommandOptions, Count, Device, Percent, Seed


class FilteringOptions(CommandOptions):
    """What the filtering experiment depends on."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made: its model, SAE-V and store score the pairs."""
    work: Path = Path("demo/filtering")
    """Folder for the pairs, their scores and cached vision features; made again where it is missing."""
    out: Path = Path("docs/results/filtering.jsonl")
    """Result file: one line for each run, appended as it ends; runs that it holds already are not done again."""
    method: Literal["sft", "dpo"] = "sft"
    """sft: captions are learnt; dpo: after sft on all pairs, a caption is preferred to itself with one word changed."""
    scores: list[str] = Field(default=["cosine", "cooccurring-l0", "pooled-cosine", "facility-location", "random"])
    """Scores to keep by, or facility-location, which chooses a set; `baselines` adds `caption-nll` and `oracle`."""
    keep: list[Percent] = Field(default=[20.0, 50.0])
    """Percent of the pairs kept by each score."""
    baselines: bool = True
    """Also keep by caption-nll, which needs no SAE, and by an oracle that knows the swaps."""
    seeds: list[Seed] = Field(default=[0, 1, 2])
    """Seeds of a run's initial LoRA, order of data and random choice."""
    swapped: float = Field(default=0.3, ge=0, lt=1)
    """Share of the pairs that carry another pair's caption; 0 takes the pairs as they are."""
    n_pairs: int = Field(default=1000, ge=8)
    """Pairs to choose from."""
    steps: Count = 60
    """Training steps of every run, whatever the number of pairs kept."""
    n_test: Count = 200
    """Held-out scenes."""
    n_start: int = Field(default=4000, ge=32)
    """Train scenes from which the starting projector is learnt: half of the demo's own."""


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
    device: Device = "auto"
    """Where to compute: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""


class HallucinationOptions(CommandOptions):
    """What the hallucination experiment depends on."""

    store: Path = Path("demo/store")
    """Store whose model, SAE-V and units are used."""
    objects: Path | None = None
    """JSONL of own images: `image` (a path that starts at the file's folder) and `objects` (names, or objects with a
    `name`, such as boxes have); default: scenes of the demo that no training showed."""
    out: Path = Path("docs/results/hallucination.json")
    """Result file; an existing one is replaced."""
    attach: bool = False
    """Also write STORE.hallucination.json, with the separation of every feature, which the explorer shows."""
    n_scenes: int = Field(default=200, ge=4, lt=2**53)
    """Images; half of them choose features, threshold and strength, the others are reported."""
    n_features: Count = 8
    """Features that are steered together."""
    strengths: list[float] = Field(default=[0.25, 0.5, 1.0], min_length=1)
    """Strengths to choose from, in units of each feature's p99.9."""
    n_random: Count = 3
    """Random sets of as many features, with a change as long."""
    seed: Seed = 0
    """Seed of the questions, of random sets and of resamples."""
