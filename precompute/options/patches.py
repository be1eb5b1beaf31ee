"""Options of `saevx patches`, apart from the work so that `--help` need not load a model's libraries."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from precompute.options.shared import FromStore, Output
from precompute.utils.command_line import Count, Percent, Seed

Removed = Literal["drop", "mean", "black"]


class PatchesOptions(FromStore, Output):
    """Measure how much of a task a model can still do with the best patches of each image alone."""

    data: CliPositionalArg[str]
    """Questions about images, as rows that `saevx precompute` takes, with their answer in a field of its own."""
    out: Path
    """JSON file to write; it must not exist yet."""
    answer_column: str = "answer"
    """Field with the answer that counts as right, in the words in which the model gives it."""
    keep: list[Percent] = Field(default=[75.0, 50.0, 25.0], min_length=1)
    """Percent of the patches to keep; give it several times, or as 75,50,25."""
    knock_out: list[Percent] = Field(default_factory=list)
    """Also leave out the best so many percent of the patches, and keep the others: what the best are needed for."""
    removed: list[Removed] = Field(default=["black"], min_length=1)
    """What becomes of the other patches: black paint (the paper's), mean paint (the processor's mean colour), or drop:
    their tokens are left out, and the others keep their positions; give it several times, or as drop,mean,black."""
    max_samples: Count | None = None
    """Questions to ask, those with the smallest SHA-256 of the sample id; default: all."""
    resamples: Count = 2000
    """Bootstrap resamples of the questions, for the 95 % intervals."""
    seed: Seed = 0
    """Seed of the random control and of the resamples."""
