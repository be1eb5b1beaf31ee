"""Steers the demo's model towards colours, shapes and objects, and beside it what needs no SAE-V.

    python -m precompute.demo.evaluation.evaluate_steering --model demo/model --sae demo/sae

A success is a reply that names the target, still answers the question and is fluent: the harmonic mean of the three, as
AxBench takes it, by rules, since the truth of the scenes is known. The strength of each target is chosen on other
scenes. The figures go to docs/results/demo-steering.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from pydantic_settings import CliApp
from torch import Tensor

from precompute.demo.drawing import draw
from precompute.demo.evaluation.results import Results
from precompute.demo.evaluation.steered_replies import Job, Worth, replies, worth
from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES, Scene, make_scene
from precompute.demo.training.word_test import N_CANDIDATES
from precompute.demo.training.word_tokens import Tokens, activations, gather, word_f1
from precompute.demo.training.words import F1, scenes_with_words
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.utils.command_line import CommandOptions, Count, Seed
from precompute.utils.stats import bootstrap_rows, interval

TARGETS = {
    "colours": list(COLOURS),
    "shapes": list(SHAPES),
    "objects": ["dog", "cat", "fish", "apple", "banana", "pizza", "car", "boat", "guitar", "umbrella"],
}
KINDS = {"colours": COLOURS, "shapes": SHAPES, "objects": OBJECTS}
QUESTIONS = {
    "colours": "What color is the {}?", "shapes": "What shape is in the picture?", "objects": "What is in the picture?"
}  # fmt: skip
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0)
METHODS = {
    "none": "no steering",
    "prompt": "\"Say that it is …\" before the question",
    "random": "a random direction, ‖Δ‖ as with the features",
    "means": "difference of means of h, no SAE-V",
    "feature": "the word's one feature",
    "features": "all features that fire on the word",
    "features-image": "the same, on image patches only",
    "features-prompt": "the same, on the question only",
}
SCOPES = {"features-image": (IMAGE,), "features-prompt": (TEXT,)}
TUNED = ("means", "feature", "features", "features-image", "features-prompt")
FIRST_SCENE = 100_000


class SteeringEvaluation(CommandOptions):
    """Measure steering with the demo's SAE-V and without it."""

    model: Path = Path("demo/model")
    """The demo's model."""
    sae: Path = Path("demo/sae")
    """Its SAE-V."""
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
    seed: Seed = 0
    """Seed of the random directions and of the bootstrap."""


class Direction(NamedTuple):
    """What is added for a target at strength 1, by method: float32 [d]."""

    features: list[int]
    """Those that fire on the word."""
    delta: dict[str, Tensor]
    """By method."""


def directions(mllm: Mllm, sae: SaeV, targets: Sequence[str], o: SteeringEvaluation) -> dict[str, Direction]:
    """By target. A feature's unit is the 99.9th percentile of its positive activations on train scenes."""
    scenes = scenes_with_words("train", o.n_each_word, targets)
    tokens = gather(mllm, scenes, words=targets)
    parts = [tokens.of(m) for m in (TEXT, IMAGE)]
    f1 = F1(*(word_f1(sae, part) for part in parts))
    best_w, rng = f1.both_wf.argmax(axis=1), np.random.default_rng(o.seed)
    result = {}
    for w, target in enumerate(targets):
        by_text = np.argsort(-f1.text_wf[w], kind="stable")[:N_CANDIDATES].tolist()
        features = sorted({int(best_w[w]), *by_text})
        unit = units(sae, tokens, features)
        own_d = unit[int(best_w[w])] * sae.directions_fd[int(best_w[w])]
        sum_d = torch.stack([unit[k] * sae.directions_fd[k] for k in features]).sum(0)
        random_d = torch.from_numpy(rng.standard_normal(len(sum_d)).astype(np.float32))
        delta = {
            "none": torch.zeros_like(sum_d), "prompt": torch.zeros_like(sum_d), "feature": own_d,
            "features": sum_d, "features-image": sum_d, "features-prompt": sum_d,
            "random": random_d * (sum_d.norm() / random_d.norm()), "means": difference_of_means(parts, w),
        }  # fmt: skip
        result[target] = Direction(features, delta)
    return result


def units(sae: SaeV, tokens: Tokens, features: list[int]) -> dict[int, float]:
    """99.9th percentile of each feature's positive activations; 0 where it has none."""
    z_tn = activations(sae, tokens.hidden_td, features).numpy()
    return {
        k: float(np.percentile(z_t[z_t > 0], 99.9)) if (z_t > 0).any() else 0.0
        for k, z_t in zip(features, z_tn.T, strict=True)
    }


def difference_of_means(parts: Sequence[Tokens], w: int) -> Tensor:
    """Mean h where the word is less mean h elsewhere, [d]: the mean over text tokens and patches."""
    differences = []
    for part in parts:
        here = torch.from_numpy(part.label_tw[:, w])
        differences.append(part.hidden_td[here].mean(0) - part.hidden_td[~here].mean(0))
    return torch.stack(differences).mean(0)


# ---- scenes and questions


@cache
def picture(scene_index: int) -> Image.Image:
    return draw(make_scene("validation", scene_index))


def lone_scenes(group: str, target: str, n: int) -> list[Scene]:
    """The first n validation scenes of one thing of the group's kind that do not show the target yet."""
    scenes = (make_scene("validation", index) for index in count(FIRST_SCENE))
    fitting = (
        scene
        for scene in scenes
        if len(scene.entities) == 1
        and bool(scene.entities[0].colour) == (group != "objects")
        and target not in (scene.entities[0].colour, scene.entities[0].noun, scene.background)
    )
    return list(islice(fitting, n))


def question(scene: Scene, group: str, before: str = "") -> Pair:
    return Pair(before + QUESTIONS[group].format(scene.entities[0].noun), [picture(scene.index)])


def other_question(scene: Scene, group: str) -> tuple[Pair, str]:
    """A question whose answer steering ought not to change, and that answer."""
    thing = scene.entities[0]
    if group == "colours":
        return question(scene, "shapes"), thing.noun
    if group == "shapes":
        return Pair("What color is the shape?", [picture(scene.index)]), str(thing.colour)
    return Pair("What color is the background?", [picture(scene.index)]), scene.background


# ---- measuring


class Steering:
    """Targets, their scenes and directions, and the strengths chosen."""

    def __init__(self, mllm: Mllm, sae: SaeV, o: SteeringEvaluation) -> None:
        self.mllm, self.o = mllm, o
        limit = {"objects": o.objects}
        self.group_of = {t: g for g, targets in TARGETS.items() for t in targets[: limit.get(g)]}
        self.directions = directions(mllm, sae, list(self.group_of), o)
        self.scenes = {t: lone_scenes(g, t, o.n_scenes + o.n_tuning) for t, g in self.group_of.items()}

    def job(self, scene: Scene, target: str, method: str, strength: float) -> Job:
        before = f"Say that it is {target}. " if method == "prompt" else ""
        delta_d = strength * self.directions[target].delta[method]
        return Job(question(scene, self.group_of[target], before), delta_d, SCOPES.get(method, (TEXT, IMAGE)))

    def worths(self, cells: Sequence[tuple[str, str, float]], tuning: bool) -> list[list[Worth]]:
        """Of each (target, method, strength), the worth of the reply to every scene."""
        begin, end = (self.o.n_scenes, None) if tuning else (0, self.o.n_scenes)
        jobs = [self.job(s, t, m, x) for t, m, x in cells for s in self.scenes[t][begin:end]]
        texts = iter(replies(self.mllm, jobs))
        return [
            [worth(next(texts), t, KINDS[self.group_of[t]]) for _ in self.scenes[t][begin:end]] for t, _, _ in cells
        ]

    def tuned(self) -> dict[tuple[str, str], float]:
        """The strength of each target and method that is worth most on the tuning scenes, the smallest of equals."""
        cells = [(t, m, x) for t in self.group_of for m in TUNED for x in STRENGTHS]
        mean = {
            cell: np.mean([w.score for w in of]) for cell, of in zip(cells, self.worths(cells, True), strict=True)
        }
        return {
            (t, m): max(STRENGTHS, key=lambda x: (mean[t, m, x], -x)) for t in self.group_of for m in TUNED
        }

    def run(self) -> dict[str, Any]:
        strength = self.tuned()
        cells = [(t, m, strength.get((t, m), strength[t, "features"])) for t in self.group_of for m in METHODS]
        worths = dict(zip([(t, m) for t, m, _ in cells], self.worths(cells, False), strict=True))
        targets = {
            target: {
                "group": group,
                "features": self.directions[target].features,
                "strength": {m: strength[target, m] for m in TUNED},
                "score": {m: round(float(np.mean([w.score for w in worths[target, m]])), 4) for m in METHODS},
            }
            for target, group in self.group_of.items()
        }
        groups = {**{g: [t for t in self.group_of if self.group_of[t] == g] for g in TARGETS}}
        groups["colours and shapes"] = groups["colours"] + groups["shapes"]
        return {
            "targets": targets,
            "groups": {
                group: {m: self.summary([w for t in of for w in worths[t, m]]) for m in METHODS}
                for group, of in groups.items() if of
            },
            "other_question": {
                m: self.others(m, strength) for m in ("none", "features", "means")
            },
        }  # fmt: skip

    def summary(self, worths: Sequence[Worth]) -> dict[str, Any]:
        """Mean score with its interval, and the means of its parts."""
        score = np.array([w.score for w in worths])
        drawn = np.concatenate([score[rows].mean(axis=1) for rows in bootstrap_rows(len(score), 1000, self.o.seed)])
        parts = {name: round(float(np.mean([getattr(w, name) for w in worths])), 4) for name in Worth._fields}
        return {**(interval(float(score.mean()), drawn) or {}), **parts, "n": len(score)}

    def others(self, method: str, strength: dict[tuple[str, str], float]) -> dict[str, Any]:
        """Share of the scenes in which another question is answered rightly while the model is steered."""
        jobs, truths = [], []
        for target, group in self.group_of.items():
            delta_d = strength.get((target, method), 0.0) * self.directions[target].delta[method]
            for scene in self.scenes[target][: self.o.n_scenes]:
                pair, truth = other_question(scene, group)
                jobs.append(Job(pair, delta_d))
                truths.append(truth)
        hits = sum(reply == truth for reply, truth in zip(replies(self.mllm, jobs), truths, strict=True))
        return {"value": round(hits / len(jobs), 4), "hits": hits, "n": len(jobs)}


def main() -> None:
    o = CliApp.run(SteeringEvaluation)
    results = Results(o.out, "precompute.demo.evaluation.evaluate_steering", o, {"model", "sae", "out"}, [])
    sae = SaeV.load(o.sae)
    mllm = Mllm.load(o.model, layer=sae.layer, full=True, dtype="bfloat16")
    results.measure("steering", Steering(mllm, sae, o).run)


if __name__ == "__main__":
    main()
