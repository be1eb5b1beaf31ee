"""Options of `saevx export`."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from precompute.utils.command_line import CommandOptions


class StaticSiteOptions(CommandOptions):
    """Which pages of a store to write, and where."""

    store: CliPositionalArg[Path]
    """A finished store."""
    out: Path
    """Folder to write; it must not exist yet."""
    features: int = Field(default=1000, ge=1)
    """Pages of features: those that the list of features begins with, then those that these lead to."""
    samples: int = Field(default=1000, ge=0)
    """Pages of samples: those in which these features fire, then those that the list of samples begins with."""
    pairs: int = Field(default=200, ge=0)
    """Pages of two features that fire together, the clearest first."""
