"""`saevx bench NAME`: runs one benchmark and writes its result file.

A benchmark is a module of this folder with `run(setup) -> {"options": …, "figures": [Figure, …], …}`; whatever else
it returns is kept beside, so that every figure can be followed to what was timed.
"""

import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from precompute.utils.files import write_text
from tests.bench.common import Setup, machine, met

HERE = Path(__file__).parent
NOT_BENCHMARKS = ("common", "run", "report", "reliability_report", "scale_report", "gpu")


def names() -> list[str]:
    """Every benchmark there is."""
    results = (path.stem for path in HERE.glob("*.py"))
    return sorted(
        name for name in results if name not in NOT_BENCHMARKS and not name.startswith(("test_", "_", "naive"))
    )


class Wanted(NamedTuple):
    """What the command line asks for."""

    demo: Path
    small: bool
    device: str
    command: str
    wide: Path | None = None
    only: tuple[str, ...] = ()
    before: dict[str, Any] | None = None


def bench(name: str, wanted: Wanted) -> dict[str, Any]:
    """The result of one benchmark, with where and how it was made."""
    demo, small, device, command, wide, only, before = wanted
    module = importlib.import_module(f"tests.bench.{name}")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        results = module.run(Setup(demo, Path(folder), small, device, wide or Path(folder) / "wide", only, before))
        seconds = time.monotonic() - begin
    return {"name": name, "command": command, "machine": machine(), "took_s": round(seconds, 1), **results}


def summary_line(result: dict[str, Any]) -> str:
    """A line for each figure."""
    marks = {True: "reached", False: "missed", None: "not measured"}
    return "\n".join(
        f"{f['what']}: {'–' if f['value'] is None else format(f['value'], '.4g')} {f['unit']} "
        f"(goal {f['sense']} {f['goal']:g}: {marks[met(f)]})"
        for f in result["figures"]
    )


def write(result: dict[str, Any], out: Path) -> None:
    write_text(out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
