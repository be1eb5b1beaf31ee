"""Options of `saevx precompute`."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field
from pydantic_settings import CliPositionalArg

from precompute.options.shared import ModelLoading, Output, RayWorkers, SaeFile, Scoring, Sinks, TextOnly
from precompute.utils.command_line import Count, Seed

Step = Literal["collect", "weigh", "score", "flag", "cooccur", "index", "sample-map", "families", "label"]
PASS_OPTIONS = {
    "batch_tokens", "shard_samples", "ds", "sinks", "seed", "nll", "geometry", "device", "dtype", "quantize",
    "shuffle_images", "text_alone",
}  # fmt: skip
LATER: tuple[Step, ...] = get_args(Step)[1:]
"""The steps after the pass, in the order in which they are run."""
LATER_OPTIONS = {
    "name", "model_name", "sae_name", "data_name", "delta", "omega", "repeat_samples", "labeller", "labeller_model",
    "events", "max_store_gb",
}  # fmt: skip


class PrecomputeOptions(TextOnly, ModelLoading, SaeFile, Sinks, Scoring, RayWorkers, Output):
    """Make a store: every pair through the model and the SAE-V once, and from it all that pages show."""

    data: CliPositionalArg[str]
    """Pairs: an imagefolder, JSONL, Parquet, WebDataset tars (a folder or a glob) or a data set of the hub."""
    model: str
    """Model: a transformers folder or hub id."""
    sae: str
    """SAE-V: a SAELens folder, RELEASE:SAE_ID of SAELens' list, or a hub id."""
    out: Path
    """Folder of the finished store; it must not exist yet."""
    name: str | None = None
    """The store's short name in the explorer; default: the folder's."""
    model_name: str | None = None
    """What pages call the model; default: its folder's name or hub id. Likewise the next two."""
    sae_name: str | None = None
    """What pages call the SAE-V."""
    data_name: str | None = None
    """What pages call the data."""
    layer: int | None = Field(default=None, ge=0)
    """Decoder layer L to read, counted from 0; default: the one in the SAE's own config."""
    batch_tokens: Count | None = None
    """Most tokens in a batch, padding counted; default: 4096, and 1024 where the model runs on a CPU."""
    ds: Count = 1000
    """Samples in D_s, from which ω is computed."""
    delta: float | None = Field(default=None, ge=0)
    """Activation threshold δ for ω, in units of z; default: 10 % of each feature's 99.9th percentile."""
    omega: Literal["paired", "all-pairs"] = "paired"
    """Which ω the scores use."""
    repeat_samples: bool = False
    """Let a sample give several of the tokens behind ω, as the authors do; default: one per modality."""
    seed: Seed = 0
    """Seed of every choice by chance."""
    shuffle_images: bool = False
    """Control: exchange the images among the pairs before the pass, none keeping its own; the store says so."""
    text_alone: bool = True
    """Also run each text without its image, so that a verdict can say what does not hang on attention to the image."""
    labeller: str | None = None
    """Let a model name the features, with images sent to it: base URL of an OpenAI-compatible API, such as
    http://localhost:8000/v1. The key, where it wants one, is read from SAEVX_LABELLER_KEY."""
    labeller_model: str | None = None
    """Name of that model; default: the first that the URL lists."""
    events: Literal["all", "examples", "none"] | None = None
    """Which samples' per-token activations the store keeps: all; examples, those that a feature's page or a flag shows;
    none. A server with the model computes the others again. Default: the first of these that fits --max-store-gb."""
    max_store_gb: float | None = Field(default=None, gt=0)
    """Most GB (10⁹ bytes) that the finished store may take, estimated before the pass; default: no limit."""
    exact_products: bool = False
    """Compute every large product in float32, also where this processor has units for bfloat16. The store is the same:
    in bfloat16 only what cannot win is left out."""
    only: Step | None = None
    """Run this step alone on the unfinished store (OUT.part)."""
    dry_run: bool = False
    """Say what it would take in time, memory and disk, from a few samples, and write nothing."""
