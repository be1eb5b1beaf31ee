"""Options of `saevx annotations`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from precompute.utils.command_line import CommandOptions


class AnnotationsOptions(CommandOptions):
    """What to do with the annotations of a store."""

    action: CliPositionalArg[Literal["export", "import", "carry"]]
    """export, import: to and from `--file`; carry: from other stores of the database, such as one at the same path."""
    store: CliPositionalArg[Path]
    """A finished store."""
    file: Path | None = None
    """JSON file to write or read; `export` without it prints."""
    annotations: str | None = None
    """Database, as for `saevx serve`; default: the SQLite file beside the store."""
    history: bool = False
    """Export every version, not only what holds."""
    min_cosine: float = Field(default=0.9, ge=0, le=1)
    """Smallest cosine of a feature's decoder direction and that of its counterpart in the store."""
    from_store: str | None = None
    """Content id of the store to carry from, or the beginning of it; default: all others in the database."""
