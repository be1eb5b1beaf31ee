"""What the demo's SAE-V is worth: features for the thirty words, answers turned by steering, quality."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.demo.drawing import draw
from precompute.demo.evaluation.evaluate_model import DemoEvaluation, answers, ratio
from precompute.demo.scenes import COLOURS, Scene, make_scene
from precompute.demo.training.scene_data import write_pairs
from precompute.demo.training.word_tokens import Tokens, activations, gather, word_f1
from precompute.demo.training.words import ALL_WORDS, F1, WORDS, scenes_with_words
from precompute.live.intervention import Intervention, Steer
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.sae.sae import SaeV
from precompute.training.evaluate import evaluate

# ---- the thirty words

N_CANDIDATES = 6
"""Features per word that steering may choose from: the best on the word's tokens."""


def top_precision(
    value_t: NDArray[np.floating], scene_t: NDArray[np.int64], here_t: NDArray[np.bool_], n: int = 16
) -> tuple[float, NDArray[np.int64]]:
    """Share of the n strongest patches, one a scene, that show the word; and their places."""
    order = np.argsort(-value_t, kind="stable")
    order = order[value_t[order] > 0]
    _, first = np.unique(scene_t[order], return_index=True)
    best = order[np.sort(first)][:n]
    return (float(here_t[best].mean()) if len(best) == n else 0.0), best


def words(mllm: Mllm, sae: SaeV, o: DemoEvaluation) -> dict[str, Any]:
    """The feature with the largest min(F1 on tokens, on patches) on half of the scenes, tested on the other half.

    It passes when it is active on at least half of the word's tokens, and its top 16 patches, from 16 images, show the
    word with precision ≥ .7 and above the 99th percentile of the same choice with the scenes' truth exchanged.
    """
    scenes = scenes_with_words("validation", o.n_each_word)
    first, second = (gather(mllm, scenes[i::2]) for i in (0, 1))
    f1_words = F1(word_f1(sae, first.of(TEXT)), word_f1(sae, first.of(IMAGE)))
    best_w = f1_words.both_wf.argmax(axis=1)
    test = TestHalf.of(sae, second, best_w)
    patches = first.of(IMAGE)
    rng = np.random.default_rng(o.seed)
    rows = {}
    for w, word in enumerate(ALL_WORDS):
        here = torch.from_numpy(patches.label_tw[:, w])
        direction_d = patches.hidden_td[here].mean(0) - patches.hidden_td[~here].mean(0)
        by_text = np.argsort(-f1_words.text_wf[w], kind="stable")[:N_CANDIDATES].tolist()
        k = int(best_w[w])
        rows[word] = {
            "feature": k,
            "candidates": sorted({k, *by_text}),
            "f1_text": round(float(f1_words.text_wf[w, k]), 3),
            "f1_image": round(float(f1_words.image_wf[w, k]), 3),
            **test.row(w, direction_d, rng),
        }
    return {"words": rows, "words_passed": sum(r["passes"] for r in rows.values()), "n_scenes": len(scenes)}


class TestHalf(NamedTuple):
    """The scenes on which the words' features are tested."""

    text: Tokens
    image: Tokens
    z_text_tw: NDArray[np.float32]
    """[t, W]: activation of each word's feature on the text tokens."""
    z_image_tw: NDArray[np.float32]
    """[t, W]: the same on the patches."""
    truth_spw: NDArray[np.bool_]
    """[scenes, patches, W]: whether a patch, counted without sinks, shows the word."""

    @classmethod
    def of(cls, sae: SaeV, tokens: Tokens, feature_w: NDArray[np.int64]) -> TestHalf:
        """Of tokens, and the feature [W] of each word."""
        text, image = tokens.of(TEXT), tokens.of(IMAGE)
        patch_t = np.concatenate([np.arange(n) for n in np.bincount(image.scene_t) if n])
        truth_spw = np.zeros((image.scene_t.max() + 1, patch_t.max() + 1, len(ALL_WORDS)), dtype=bool)
        truth_spw[image.scene_t, patch_t] = image.label_tw
        z_text_tw, z_image_tw = (activations(sae, one.hidden_td, feature_w).numpy() for one in (text, image))
        return cls(text, image, z_text_tw, z_image_tw, truth_spw)

    def row(self, w: int, direction_d: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """How well the word's feature does; `direction_d` is what it is compared with, a direction of h without SAE."""
        token_rate = float((self.z_text_tw[:, w] > 0)[self.text.label_tw[:, w]].mean())
        here_t, scene_t = self.image.label_tw[:, w], self.image.scene_t
        precision, best = top_precision(self.z_image_tw[:, w], scene_t, here_t)
        patch = np.arange(len(scene_t)) - np.searchsorted(scene_t, scene_t)
        chance = []
        for _ in range(500):
            other = rng.permutation(len(self.truth_spw))
            chance.append(self.truth_spw[other[scene_t[best]], patch[best], w].mean() if len(best) else 0.0)
        p99 = float(np.percentile(chance, 99))
        raw, _ = top_precision((self.image.hidden_td @ direction_d).numpy() + 1e6, scene_t, here_t)
        return {
            "token_rate": round(token_rate, 3),
            "precision": round(precision, 3),
            "chance_p99": round(p99, 3),
            "box_share": round(float(here_t.mean()), 4),
            "raw_direction_precision": round(raw, 3),
            "passes": token_rate >= 0.5 and precision >= 0.7 and precision > p99,
        }


# ---- steering


def apply(steer: Steer, hidden_td: Tensor, modality_t: Tensor) -> Tensor:
    """h [t, d] steered, whatever the modality."""
    return steer(hidden_td)


STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0)


def steering(mllm: Mllm, sae: SaeV, candidates: dict[str, list[int]], o: DemoEvaluation) -> dict[str, Any]:
    """Does "what colour / shape" get the target as its answer? 30 held-out scenes of one shape each; the features
    that fire on the target's word are added together, on every text and image token. Controls: no steering, and five
    random sets of as many features whose Δ is as long. Each word's strength is the one that turns most answers on
    other scenes.

    Args:
        candidates: features that fire on the word, per word.
    """
    scenes = (make_scene("validation", index) for index in count(100_000))
    single_shapes = (scene for scene in scenes if len(scene.entities) == 1 and scene.entities[0].colour)
    test, tuning = list(islice(single_shapes, o.n_steer)), list(islice(single_shapes, o.n_tuning))
    p999 = typical_maximum(mllm, sae, sorted({k for features in candidates.values() for k in features}))

    def hits(scenes: Sequence[Scene], target: str, unit: dict[int, float], strength: float) -> int:
        interventions = [Intervention(k, "add", strength, size) for k, size in unit.items()]
        change = partial(apply, Steer(sae, interventions))
        return answers(mllm, [question(s, target) for s in scenes], change).count(target)

    chosen: dict[str, dict[str, Any]] = {}
    units: dict[str, dict[int, float]] = {}
    for word in [*WORDS["colours"], *WORDS["shapes"]]:
        fitting = [s for s in tuning if could_become(s, word)]
        units[word] = {k: p999[k] for k in candidates[word] if p999[k] > 0}
        n_hits = {strength: hits(fitting, word, units[word], strength) for strength in STRENGTHS}
        strength = max(n_hits, key=lambda s: (n_hits[s], -s))
        chosen[word] = {
            "features": list(units[word]), "strength": strength, "tuning_hits": n_hits[strength], "of": len(fitting)
        }  # fmt: skip
    rng = np.random.default_rng(o.seed)
    steered = controls = none = 0
    examples = []
    for i, scene in enumerate(test):
        target = str(rng.choice([w for w in WORDS["colours" if i % 2 else "shapes"] if could_become(scene, w)]))
        strength = float(chosen[target]["strength"])
        hit = hits([scene], target, units[target], strength)
        steered += hit
        none += hits([scene], target, units[target], 0.0)
        for _ in range(5):
            controls += hits([scene], target, as_long(sae, units[target], rng), strength)
        examples.append([scene.entities[0].words, target, bool(hit)])
    return {
        "steering": ratio(steered, len(test)),
        "steering_random_features": ratio(controls, 5 * len(test)),
        "steering_none": ratio(none, len(test)),
        "steering_choices": chosen,
        "steering_scenes": examples,
    }


def as_long(sae: SaeV, unit: dict[int, float], rng: np.random.Generator) -> dict[int, float]:
    """Random features with sizes such that their sum is as long as that of `unit`."""
    others = [int(k) for k in rng.choice(sae.n_features, len(unit), replace=False)]
    directions_fd = sae.directions_fd
    wanted_d = sum(size * directions_fd[k] for k, size in unit.items())
    length = {k: float(directions_fd[k].norm()) for k in others}
    sum_d = sum(directions_fd[k] / length[k] for k in others)
    scale = float(torch.as_tensor(wanted_d).norm() / torch.as_tensor(sum_d).norm())
    return {k: scale / length[k] for k in others}


def could_become(scene: Scene, word: str) -> bool:
    entity = scene.entities[0]
    return word not in (entity.colour, entity.noun, scene.background)


def question(scene: Scene, target: str) -> Pair:
    is_colour = target in COLOURS
    text = f"What color is the {scene.entities[0].noun}?" if is_colour else "What shape is in the picture?"
    return Pair(text, [draw(scene)])


def typical_maximum(mllm: Mllm, sae: SaeV, features: list[int]) -> dict[int, float]:
    """99.9th percentile of each feature's positive activations over train scenes: the unit of strength."""
    tokens = gather(mllm, [make_scene("train", i) for i in range(300)])
    z_tn = activations(sae, tokens.hidden_td, features).numpy()
    return {
        k: float(np.percentile(z_t[z_t > 0], 99.9)) if (z_t > 0).any() else 0.0
        for k, z_t in zip(features, z_tn.T, strict=True)
    }


# ---- quality of the SAE-V


def quality(o: DemoEvaluation) -> dict[str, Any]:
    """What `saevx evaluate` measures on validation scenes: FVU, L0, dead features and loss recovered."""
    with TemporaryDirectory() as scratch:
        pairs = Path(scratch) / "pairs"
        write_pairs(pairs, [make_scene("validation", 50_000 + i) for i in range(200)])
        result = evaluate(
            EvaluateOptions(sae=str(o.sae), model=str(o.model), data=str(pairs), dtype="float32", seed=o.seed)
        )

    def value(group: str, key: str, digits: int = 4) -> float:
        return round(float(result[group][key]["value"]), digits)

    runs = ("original", "zero", "patched", "patched_text", "patched_image")
    parts = {"patched": "all", "patched_text": "text", "patched_image": "image"}
    return {
        "sae_quality": {
            **{
                name: {"fvu": value("fvu", name), "l0": value("l0", name, 1), "dead": result["dead"][name]}
                for name in ("text", "image")
            },
            "dead": result["dead"]["both"],
            "n_features": result["sae"]["n_features"],
            "cross_entropy": {run: value("cross_entropy", run) for run in runs},
            "loss_recovered": {name: value("loss_recovered", part) for name, part in parts.items()},
        }
    }
