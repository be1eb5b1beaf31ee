"""The filtering experiment's pairs: scenes that neither the demo's adapter nor its SAE-V has seen, some of them with
another's caption."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from precompute.demo.dataset import share_nothing
from precompute.demo.scenes import Scene, make_scene
from precompute.demo.training.scene_data import write_imagefolder

FIRST_PAIR = 50_000
"""The adapter was trained on train scenes below 11,000, the SAE-V on some of these."""
FIRST_TEST = 800_000
SEED = 17


class Pair(NamedTuple):
    """A scene beside the caption it goes with in training."""

    sample_id: str
    scene: Scene
    caption: str
    swapped: bool


def make_pairs(n: int, swapped: float) -> list[Pair]:
    """n pairs; the given share of them, seeded, has the caption of another that shows nothing in common."""
    scenes = [make_scene("train", FIRST_PAIR + i) for i in range(n)]
    rng = np.random.default_rng([SEED, n])
    wrong = set(rng.permutation(n)[: round(swapped * n)].tolist())
    pairs = []
    for i, scene in enumerate(scenes):
        caption = scene.caption
        if i in wrong:
            caption = next(scenes[j].caption for j in rng.permutation(n) if share_nothing(scene, scenes[j]))
        pairs.append(Pair(f"pair-{i:05d}", scene, caption, i in wrong))
    return pairs


def image_name(sample_id: str) -> str:
    return f"images/{sample_id}.png"


def write_pairs(folder: Path, pairs: list[Pair]) -> None:
    """An imagefolder; `swapped` stands beside each pair and is not read by the pass."""
    write_imagefolder(folder, (
        (p.scene, {
            "file_name": image_name(p.sample_id), "text": p.caption, "id": p.sample_id, "swapped": p.swapped,
        })
        for p in pairs
    ))  # fmt: skip


def held_out(n: int) -> list[Scene]:
    """Held-out validation scenes."""
    return [make_scene("validation", FIRST_TEST + i) for i in range(n)]
