"""The command line of a module that is run with `python -m`: every field of its options is an option."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def parsed(options: type[Options], doc: str | None) -> Options:
    """Options from the command line, each of its default's type; `doc` is what `--help` says first."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in fields(options):
        kind = Path if isinstance(f.default, Path) else type(f.default)
        parser.add_argument("--" + f.name.replace("_", "-"), type=kind, default=f.default)
    return options(**vars(parser.parse_args()))
