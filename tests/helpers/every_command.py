"""Every command that writes, with inputs of its own, and the one sentence in which it is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.helpers.in_process import CommandResult
from tests.helpers.tinies import Tiny


class World(NamedTuple):
    """Inputs of every command."""

    files: Tiny
    store: Path
    questions: Path


def pass_of(files: Tiny) -> tuple[object, ...]:
    args = ("precompute", files.data, "--model", files.model, "--sae", files.sae, "--device", "cpu")
    return (*args, "--shard-samples", 8, "--batch-tokens", 150, "--name", "store")


COMMANDS: dict[str, Callable[[World], tuple[object, ...]]] = {
    "precompute": lambda w: pass_of(w.files),
    "score": lambda w: ("score", w.files.data, "--store", w.store, "--device", "cpu"),
    "train": lambda w: (
        "train", w.files.data, "--model", w.files.model, "--layer", 2, "--device", "cpu", "--steps", 4,
        "--batch-size", 32, "--buffer-tokens", 256, "--expansion", 2, "--checkpoint-every", 2,
    ),
    "evaluate": lambda w: ("evaluate", w.files.sae, w.files.data, "--model", w.files.model, "--device", "cpu"),
    "filter": lambda w: ("filter", w.store, "--by", "l0"),
    "patches": lambda w: (
        "patches", w.files.data, "--store", w.store, "--answer-column", "kind", "--device", "cpu", "--keep", 50,
        "--max-samples", 12, "--resamples", 50,
    ),
    "controls": lambda w: ("controls", w.store, "--device", "cpu", "--derangements", 2, "--samples", 10),
    "export": lambda w: ("export", w.store, "--features", 3, "--samples", 2, "--pairs", 1),
}  # fmt: skip
NAMES = {
    "score": "out.jsonl",
    "filter": "out.jsonl",
    "evaluate": "out.json",
    "patches": "out.json",
    "controls": "out.json",
}
CONTINUES = ("precompute", "score", "train", "patches")
"""Commands whose unfinished result is OUT.part, which the same command goes on with."""
MAKES_NEW = (*CONTINUES, "export")
"""Commands whose --out must not exist yet; the others write a file anew."""


def report(result: CommandResult, *words: str) -> str:
    """The one sentence of a command that was refused."""
    lines = [line for line in result.err.splitlines() if line.startswith("saevx: ")]
    assert result.status == 1 and len(lines) == 1 and "Traceback" not in result.err, (result.status, result.err[-2000:])
    assert lines[0].endswith(".") and all(word in lines[0] for word in words), lines[0]
    return lines[0]
