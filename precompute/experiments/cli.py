"""`saevx experiment`: the paper's experiments on the demo's model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliApp, CliSubCommand

from precompute.experiments.options import FilteringOptions


class Filtering(FilteringOptions):
    """Tune the demo's model on the pairs that each score keeps, and measure what it then gets right."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    def cli_cmd(self) -> None:
        from precompute.experiments.filtering import run

        run(self)


class Experiment(BaseModel):
    """Rerun one of the paper's experiments at the demo's scale."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    filtering: CliSubCommand[Filtering] = Field(description="Data filtering for alignment.")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)
