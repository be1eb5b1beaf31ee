"""Steers the demo's model towards colours, shapes and objects, and beside it what needs no SAE-V.

    python -m precompute.demo.evaluation.evaluate_steering --model demo/model --sae demo/sae

A success is a reply that names the target, still answers the question and is fluent: the harmonic mean of the three, as
AxBench takes it, by rules, since the truth of the scenes is known. The strength of each target is chosen on other
scenes. The figures go to docs/results/demo-steering.json. Each target is written as soon as it is measured, so that a
run that was interrupted goes on where it stopped. `--device cuda` runs the grid on a GPU.
"""

import json
import shutil
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic_settings import CliApp

from precompute.demo.drawing import draw
from precompute.demo.evaluation.results import Results
from precompute.demo.evaluation.steered_replies import Job, Worth, replies, worth
from precompute.demo.evaluation.steering_directions import Drawing, directions
from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES, Scene, make_scene, scenes_from
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.loading import pick_device
from precompute.model.mllm import Mllm
from precompute.products.rounding import quickest_dtype
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.utils.command_line import CommandOptions, Count, Seed
from precompute.utils.files import write_text
from precompute.utils.ownership import claim_folder, exclusive_file
from precompute.utils.progress import say
from precompute.utils.provenance import fingerprint
from precompute.utils.stats import bootstrap_rows, interval
from precompute.utils.types import Array

TARGETS = {
    "colours": list(COLOURS),
    "shapes": list(SHAPES),
    "objects": ["dog", "cat", "fish", "apple", "banana", "pizza", "car", "boat", "guitar", "umbrella"],
}
KINDS = {"colours": COLOURS, "shapes": SHAPES, "objects": OBJECTS}
QUESTIONS = {
    "colours": "What color is the {}?",
    "shapes": "What shape is in the picture?",
    "objects": "What is in the picture?",
}
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0)
METHODS = {
    "none": "no steering",
    "prompt": '"Say that it is …" before the question',
    "random": "a random direction, ‖Δ‖ as with the features",
    "means": "difference of means of h, no SAE-V",
    "feature": "the word's one feature",
    "family": "that feature's whole family of near-copies",
    "features": "all features that fire on the word",
    "features-image": "the same, on image patches only",
    "features-prompt": "the same, on the question only",
}
SCOPES = {"features-image": (IMAGE,), "features-prompt": (TEXT,)}
TUNED = ("means", "feature", "family", "features", "features-image", "features-prompt")
OTHERS = ("none", "features", "means")
"""Methods under which another question is asked."""
FIRST_SCENE = 100_000


class SteeringEvaluation(CommandOptions):
    """Measure steering with the demo's SAE-V and without it."""

    model: Path = Path("demo/model")
    """The demo's model."""
    sae: Path = Path("demo/sae")
    """Its SAE-V."""
    store: Path = Path("demo/store")
    """A store made with it, for its families."""
    out: Path = Path("docs/results/demo-steering.json")
    """File for the figures."""
    n_scenes: Count = 30
    """Scenes for each target."""
    n_tuning: Count = 8
    """Other scenes for each target, on which its strength is chosen."""
    n_each_word: Count = 15
    """Train captions that hold each target, at least: on them features, means and units are found."""
    objects: int = Field(default=10, ge=0, le=10)
    """How many of the objects are targets."""
    n_random: Count = 3
    """Random directions of each target."""
    device: str = "auto"
    """Where the model runs."""
    seed: Seed = 0
    """Seed of the random directions and of the bootstrap."""

    @property
    def part(self) -> Path:
        """Folder of the targets that are measured already."""
        return self.out.with_name(f"{self.out.name}.part")


# ---- scenes and questions


@cache
def picture(scene_index: int) -> Image.Image:
    return draw(make_scene("validation", scene_index))


def lone_scenes(group: str, target: str, n: int) -> list[Scene]:
    """The first n validation scenes of one thing of the group's kind that do not show the target yet."""
    candidates = (
        scene
        for scene in scenes_from("validation", FIRST_SCENE)
        if len(scene.entities) == 1
        and bool(scene.entities[0].colour) == (group != "objects")
        and target not in (scene.entities[0].colour, scene.entities[0].noun, scene.background)
    )
    return list(islice(candidates, n))


def question(scene: Scene, group: str, prefix: str = "") -> Pair:
    return Pair(prefix + QUESTIONS[group].format(scene.entities[0].noun), [picture(scene.index)])


def other_question(scene: Scene, group: str) -> tuple[Pair, str]:
    """A question whose answer steering ought not to change, and that answer."""
    thing = scene.entities[0]
    if group == "colours":
        return question(scene, "shapes"), thing.noun
    if group == "shapes":
        return Pair("What color is the shape?", [picture(scene.index)]), str(thing.colour)
    return Pair("What color is the background?", [picture(scene.index)]), scene.background


# ---- measuring


class Cell(NamedTuple):
    """One way to steer towards a target."""

    method: str
    strength: float
    draw: int = 0
    """Which of several directions."""


class Steering:
    """Targets, their scenes and directions."""

    def __init__(self, mllm: Mllm, sae: SaeV, family_f: Array, o: SteeringEvaluation) -> None:
        """Args: of `directions`."""
        self.mllm, self.o = mllm, o
        limit = {"objects": o.objects}
        self.group_of = {t: g for g, targets in TARGETS.items() for t in targets[: limit.get(g)]}
        drawing = Drawing(o.n_each_word, o.n_random, o.seed)
        self.directions = directions(mllm, sae, family_f, list(self.group_of), drawing)

    def worths(self, target: str, cells: Sequence[Cell], scenes: Sequence[Scene]) -> list[list[Worth]]:
        """Of each cell, the worth of the reply to every scene."""
        group, delta = self.group_of[target], self.directions[target].delta
        jobs = [
            Job(
                question(scene, group, f"Say that it is {target}. " if cell.method == "prompt" else ""),
                cell.strength * delta[cell.method][cell.draw],
                SCOPES.get(cell.method, (TEXT, IMAGE)),
            )
            for cell in cells
            for scene in scenes
        ]
        texts = iter(replies(self.mllm, jobs))
        return [[worth(next(texts), target, KINDS[group]) for _ in scenes] for _ in cells]

    def measure(self, target: str) -> dict[str, Any]:
        """All figures of one target, as a line of the unfinished run."""
        o, directions, group = self.o, self.directions[target], self.group_of[target]
        scenes = lone_scenes(group, target, o.n_scenes + o.n_tuning)
        report_scenes, tuning_scenes = scenes[: o.n_scenes], scenes[o.n_scenes :]
        tuning_cells = [Cell(m, x) for m in TUNED for x in STRENGTHS]
        worths_of_cells = self.worths(target, tuning_cells, tuning_scenes)
        mean = {
            cell: np.mean([worth.score for worth in cell_worths])
            for cell, cell_worths in zip(tuning_cells, worths_of_cells, strict=True)
        }
        # The strength that is worth most on the tuning scenes, the smallest of equals.
        strength = {m: max(STRENGTHS, key=lambda x, m=m: (mean[Cell(m, x)], -x)) for m in TUNED}  # type: ignore[misc]
        cells = [
            Cell(m, strength.get(m, strength["features"]), i) for m in METHODS for i in range(len(directions.delta[m]))
        ]
        worths: dict[str, list[Worth]] = {m: [] for m in METHODS}
        for cell, cell_worths in zip(cells, self.worths(target, cells, report_scenes), strict=True):
            worths[cell.method] += cell_worths
        return {
            "target": target, "group": group, "features": directions.features, "family": directions.family,
            "strength": strength, "worths": worths,
            "other_question": {m: self.other_question_hits(target, m, strength, report_scenes) for m in OTHERS},
        }  # fmt: skip

    def other_question_hits(self, target: str, method: str, strength: dict[str, float], scenes: Sequence[Scene]) -> int:
        """In how many of the scenes another question is answered rightly while the model is steered."""
        delta_d = strength.get(method, 0.0) * self.directions[target].delta[method][0]
        pairs = [other_question(scene, self.group_of[target]) for scene in scenes]
        answers = replies(self.mllm, [Job(pair, delta_d) for pair, _ in pairs])
        return sum(answer == truth for answer, (_, truth) in zip(answers, pairs, strict=True))

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """Every target, those first that the file has; each of the others is added to it once it is measured."""
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        line_of = {line["target"]: line for line in lines}
        for target in self.group_of:
            if target not in line_of:
                line_of[target] = json.loads(json.dumps(self.measure(target)))
                # The whole file is written each time, so that a killed run leaves no half line.
                write_text(path, "".join(json.dumps(line) + "\n" for line in line_of.values()))
                say(f"{target}: {len(line_of)} of {len(self.group_of)} targets")
        return [line_of[target] for target in self.group_of]


def summarise(lines: Sequence[dict[str, Any]], o: SteeringEvaluation) -> dict[str, Any]:
    """The result file's parts, made of the lines of all targets."""
    worths = {
        (line["target"], m): [Worth(*worth) for worth in rows] for line in lines for m, rows in line["worths"].items()
    }
    groups = {g: [line["target"] for line in lines if line["group"] == g] for g in TARGETS}
    groups["colours and shapes"] = groups["colours"] + groups["shapes"]
    return {
        "targets": {
            line["target"]: {
                **{name: line[name] for name in ("group", "features", "family", "strength")},
                "score": {m: round(float(np.mean([w.score for w in worths[line["target"], m]])), 4) for m in METHODS},
            }
            for line in lines
        },
        "groups": {
            group: {m: summary([w for t in targets for w in worths[t, m]], o.seed) for m in METHODS}
            for group, targets in groups.items()
            if targets
        },
        "other_question": {
            m: {"value": round(hits / n, 4), "hits": hits, "n": n}
            for m in OTHERS
            for hits, n in [(sum(line["other_question"][m] for line in lines), o.n_scenes * len(lines))]
        },
    }


def summary(worths: Sequence[Worth], seed: int) -> dict[str, Any]:
    """Mean score with its interval, and the means of its parts."""
    score = np.array([w.score for w in worths])
    draws = np.concatenate([score[rows].mean(axis=1) for rows in bootstrap_rows(len(score), 1000, seed)])
    parts = {name: round(float(np.mean([getattr(w, name) for w in worths])), 4) for name in Worth._fields}
    return {**(interval(float(score.mean()), draws) or {}), **parts, "n": len(score)}


def run(o: SteeringEvaluation) -> dict[str, Any]:
    """Measure every target, or go on with a run that was interrupted.

    Raises:
        SaevxError: the store is of another SAE, or the unfinished run one with other options.
    """
    sae, store = SaeV.load(o.sae), Store.open(o.store)
    family_f, is_own_sae = store.features.family, store.manifest["sae"]["sha256"] == sae.sha256
    store.close()
    if not is_own_sae:
        raise SaevxError(f"The store {o.store} was made with another SAE than {o.sae}: name one that was made with it.")
    options = o.model_dump(mode="json", exclude={"model", "sae", "store", "out", "device"})
    key = fingerprint(sae=sae.sha256, options=options, families=family_f.tolist(), methods=[*METHODS, *STRENGTHS])
    claim_folder(o.part, key, "plan.json", what="run", depends_on="SAE or options")
    mllm = Mllm.load(o.model, layer=sae.layer, full=True, dtype=quickest_dtype(pick_device(o.device)), device=o.device)
    return summarise(Steering(mllm, sae, family_f, o).lines(o.part / "targets.jsonl"), o)


def main() -> None:
    o = CliApp.run(SteeringEvaluation)
    paths = {"model", "sae", "store", "out", "device"}
    with exclusive_file(o.out):
        results = Results(o.out, "precompute.demo.evaluation.evaluate_steering", o, paths, [])
        results.measure("steering", lambda: run(o))
        shutil.rmtree(o.part)


if __name__ == "__main__":
    main()
