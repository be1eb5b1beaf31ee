"""Questions about scenes that neither the demo's model nor its SAE-V has seen, for `saevx patches`.

    python -m precompute.experiments.questions DIR --n 300

writes DIR/images/*.png and DIR/metadata.jsonl: `file_name`, `text` (the question), `answer`, `kind` and `id`.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic_settings import CliPositionalArg

from precompute.demo.scenes import Scene, ask, scenes_from
from precompute.demo.training.scene_data import write_imagefolder
from precompute.errors import SaevxError
from precompute.experiments.script import run_script
from precompute.utils.command_line import CommandOptions, Count

FIRST = 500_000
"""Number of the first validation scene: no other measurement of the demo looks there."""
KINDS = ("object", "shape", "shape-colour", "background")


class Question(NamedTuple):
    """A scene and what is asked about it."""

    scene: Scene
    text: str
    answer: str
    kind: str


def kind_of(question: str) -> str:
    if "background" in question:
        return "background"
    if "color" in question:
        return "shape-colour"
    return "shape" if "shape" in question else "object"


def questions(n: int) -> list[Question]:
    """The first n that have one sure answer, as many of each kind (of the first kinds one more where n is no multiple
    of four): asked as they come, most would be about the background, which most patches answer."""
    n_questions = {kind: n // len(KINDS) + (i < n % len(KINDS)) for i, kind in enumerate(KINDS)}
    result: list[Question] = []
    n_of_kind: Counter[str] = Counter()
    for scene in scenes_from("validation", FIRST):
        if len(result) == n:
            break
        text, answer = ask(np.random.default_rng([67, scene.index]), scene)
        kind = kind_of(text)
        is_sure = kind != "object" or len(scene.entities) == 1  # of two dogs `dogs` would be as right as `dog`
        if is_sure and n_of_kind[kind] < n_questions[kind]:
            result.append(Question(scene, text, answer, kind))
            n_of_kind[kind] += 1
    return result


def write(folder: Path, n: int) -> None:
    """The questions as an imagefolder; the same bytes each time.

    Raises:
        SaevxError: the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SaevxError(f"{folder} is not empty: choose another folder or delete it.")
    write_imagefolder(folder, (
        (q.scene, {
            "file_name": f"images/{q.scene.index}.png", "text": q.text, "answer": q.answer, "kind": q.kind,
            "id": f"question-{q.scene.index}",
        })
        for q in questions(n)
    ))  # fmt: skip


class Options(CommandOptions):
    """Which questions are written."""

    folder: CliPositionalArg[Path]
    """Folder to write; it must be empty or not exist."""
    n: Count = 300
    """Questions to write."""

    def cli_cmd(self) -> None:
        write(self.folder, self.n)
        print(self.folder)


if __name__ == "__main__":
    run_script(Options, __doc__)
