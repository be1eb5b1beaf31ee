"""The command line of an experiment that is run with `python -m`: its options are read as those of `saevx` are."""

import re
import sys
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, SettingsConfigDict

from precompute.errors import SaevxError
from precompute.options.shared import StoreModel
from precompute.utils.command_line import CommandOptions, WrongUsage, run_command


def run_script(options: type[CommandOptions], doc: str | None) -> None:
    """Reads `options` from the command line and does their `cli_cmd`; what is wrong is one line and exit status 1, a
    command line that cannot be read 2.

    Args:
        doc: what `--help` says first.
    """
    config = SettingsConfigDict(
        cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True,
        cli_enforce_required=True, cli_exit_on_error=False, use_attribute_docstrings=True, extra="forbid",
    )  # fmt: skip
    namespace: dict[str, Any] = {"model_config": config, "__doc__": doc, "__module__": options.__module__}
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
