"""Options of `saevx evaluate`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from precompute.options.shared import DataFields, ModelLoading, SaeFile, Sinks
from precompute.utils.command_line import Count, Seed, Texts


class EvaluateOptions(DataFields, ModelLoading, SaeFile, Sinks):
    """What an evaluation depends on."""

    sae: CliPositionalArg[str]
    """SAE: a SAELens folder, RELEASE:SAE_ID of SAELens' list, or a hub id."""
    data: CliPositionalArg[str]
    """Pairs or texts, as `saevx precompute` takes them; rows without an image are text alone."""
    model: str
    """Model to put the SAE into; for transfer the text-only model that the other one was made from."""
    layer: int | None = Field(default=None, ge=0)
    """Decoder layer L, counted from 0; default: the one in the SAE's own config."""
    text_alone: bool = False
    """Leave the images out and run the text without them."""
    text_only: bool = False
    """The same as --text-alone."""
    patch_special: bool = False
    """Replace special tokens and attention sinks too; most models fail without their sink, whatever the SAE."""
    max_samples: Count | None = None
    """Samples to use, those with the smallest SHA-256 of the sample id; default: all."""
    resamples: Count = 1000
    """Bootstrap resamples of the samples, for the 95 % intervals."""
    batch_tokens: Count = 4096
    """Most tokens in a batch, padding counted."""
    seed: Seed = 0
    """Seed of the resamples."""
    top: list[Count] = Field(default_factory=list)
    """Also measure the loss recovered with so many of a token's strongest features alone; give it several times, or as
    8,16,32. Each takes three more runs of the model."""
    store: Path | None = None
    """Store made with this SAE, for the scorecard's lines on pairs, texts alone and names."""
    boxes: Path | None = None
    """JSON lines {"id": …, "boxes": [{"word": …, "box": [x0, y0, x1, y1]}]}, in pixels, of the store's samples: for the
    scorecard's line on localisation."""
    embedding: Path | None = None
    """NumPy array [samples, d] of another model's embedding of the image of each of the store's samples, in its order:
    for the scorecard's line on monosemanticity."""
    other_sae: Texts = Field(default_factory=list)
    """The same SAE trained with another seed, for the scorecard's line on stability; give it several times."""
    patches: Path | None = None
    """What `saevx patches … --knock-out 25` wrote, for the scorecard's line on patches."""
    hallucination: Path | None = None
    """What `saevx experiment hallucination` wrote, for the scorecard's line on hallucination; default: the file
    STORE.hallucination.json, where the store has one."""
    line: Texts = Field(default_factory=list)
    """A line of the scorecard from a result file, as NAME=FILE#PATH, such as steering=steering.json#harmonic_mean; NAME
    is patches, hallucination or steering; PATH leads to a number or to {value, low, high}. Give it several times."""
    random_decoder: Path | None = None
    """What this command wrote for an SAE trained with --freeze-decoder, to stand beside each line of the scorecard."""
    untrained: Path | None = None
    """What this command wrote for an SAE of a model with random weights."""
    out: Path | None = None
    """JSON file to write; default: standard output. The page /sae shows SAE/evaluation.json."""

    @model_validator(mode="after")
    def one_name(self) -> Self:
        if self.text_only:
            self.text_alone = True
        return self
