"""The command line of an experiment that is run with `python -m`: its options are read as those of `saevx` are."""

import re
import sys
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from precompute.errors import SaevxError
from precompute.options.shared import StoreModel
from precompute.utils.command_line import COMMAND_CONFIG, CommandOptions, WrongUsage, run_command


def run_script(options: type[CommandOptions], doc: str | None) -> None:
    """Reads `options` from the command line and does their `cli_cmd`; what is wrong is one line and exit status 1, a
    command line that cannot be read 2.

    Args:
        doc: what `--help` says first.
    """
    namespace: dict[str, Any] = {"model_config": COMMAND_CONFIG, "__doc__": doc, "__module__": options.__module__}
    script = type(options.__name__, (options, BaseSettings), namespace)
    # The library gives a one-letter option one dash; with two it is taken too.
    arguments = [re.sub(r"^--(\w)(?==|$)", r"-\1", argument) for argument in sys.argv[1:]]
    try:
        run_command(script, arguments)
    except (SaevxError, WrongUsage) as error:
        print(f"saevx: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, WrongUsage) else 1)


def demo_engine(demo: Path) -> StoreModel:
    """Options of `load_engine` for the demo's model and SAE-V."""
    return StoreModel(store=demo / "store", model=str(demo / "model"), sae=str(demo / "sae"))
