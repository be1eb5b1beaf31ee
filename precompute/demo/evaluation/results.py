"""A result file whose parts are measured one by one."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from precompute.utils.command_line import CommandOptions
from precompute.utils.files import check_file, write_json
from precompute.utils.provenance import machine


class Results:
    """The figures of a result file, written again whenever a part of them has been measured.

    Args:
        path: the file; what it holds already stays where it is not measured again.
        module: what is run with `python -m`.
        options: those that decide the figures are repeated in the file.
        paths: names of options that are paths or choose parts, which it does not repeat.
        parts: the parts to measure; empty: all.
    """

    def __init__(self, path: Path, module: str, options: CommandOptions, paths: set[str], parts: list[str]) -> None:
        check_file(path)  # before the work
        self.path, self.only = path, parts
        self.figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.figures["about"] = {
            "command": f"python -m {module}",
            "options": {name: str(value) for name, value in options.model_dump(exclude=paths).items()},
            "torch": torch.__version__,
            "machine": machine(),
        }

    def wants(self, *parts: str) -> bool:
        """Whether any of these parts is to be measured."""
        return not self.only or not {*parts}.isdisjoint(self.only)

    def measure(self, part: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure a part, unless others are named alone."""
        if not self.wants(part):
            return
        begin = time.monotonic()
        self.figures.update(work())
        print(part, f"{time.monotonic() - begin:.0f} s", flush=True)
        write_json(self.path, self.figures)
