"""`saevx experiment`: the paper's experiments on the demo's model."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliApp, CliSubCommand

from precompute.experiments.options import Figure3Options, FilteringOptions, HallucinationOptions
from precompute.utils.ownership import exclusive, exclusive_file


class Filtering(FilteringOptions):
    """Tune the demo's model on the pairs that each score keeps, and measure what it then gets right."""

    def cli_cmd(self) -> None:
        from precompute.experiments.filtering.run import run

        with exclusive(self.work), exclusive_file(self.out):
            run(self)


class Figure3(Figure3Options):
    """Train SAEs on text and an SAE-V, and measure each in the text-only and in the multimodal model."""

    def cli_cmd(self) -> None:
        from precompute.experiments.figure3.run import run

        with exclusive(self.work), exclusive_file(self.out):
            run(self)


class Hallucination(HallucinationOptions):
    """Ask whether objects are there; find the features that tell right from hallucinated answers, and steer them."""

    def cli_cmd(self) -> None:
        from precompute.experiments.hallucination.run import run

        with exclusive_file(self.out):
            run(self)


class Experiment(BaseModel):
    """Rerun one of the paper's experiments at the demo's scale."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    filtering: CliSubCommand[Filtering] = Field(description="Data filtering for alignment.")
    figure3: CliSubCommand[Figure3] = Field(description="Quality of an SAE-V beside SAEs of text (Figure 3).")

    hallucination: CliSubCommand[Hallucination] = Field(description="Objects that are not there, and features of it.")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)
