"""Yes/no questions about objects, as POPE asks them: present ones, and absent ones of three kinds."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from precompute.data.images import open_image
from precompute.data.paths import ImageRoot
from precompute.data.records import BadRow
from precompute.demo.drawing import draw
from precompute.demo.scenes import article, plural, scenes_from
from precompute.errors import SaevxError
from precompute.utils.reading import read_regular

FIRST = 900_000
"""Number of the first validation scene; the drawings are those that training never showed."""
ABSENT = ("random", "popular", "adversarial")


class Seen(NamedTuple):
    """An image and the objects on it."""

    image: Image.Image
    objects: frozenset[str]


class Question(NamedTuple):
    """Whether an object is there."""

    scene: int
    kind: str
    """`present`, or one of ABSENT."""
    noun: str

    @property
    def text(self) -> str:
        return f"Is there {article(self.noun)} in the picture?"


def demo_scenes(n: int) -> list[Seen]:
    """The first n with an object."""
    scenes = scenes_from("validation", FIRST, second=True)
    candidates = ((scene, frozenset(e.noun for e in scene.entities if not e.colour)) for scene in scenes)
    return [Seen(draw(scene), objects) for scene, objects in islice((c for c in candidates if c[1]), n)]


def own_scenes(path: Path, n: int) -> list[Seen]:
    """The first n lines of a file. Raises SaevxError for a line that names no image or no object."""
    result: list[Seen] = []
    for number, line in enumerate(read_regular(path).splitlines()[:n], 1):
        try:
            row = json.loads(line)
            if not isinstance(row["objects"], list):
                raise TypeError(f"objects is {row['objects']!r:.60}")
            names = frozenset(str(item["name"] if isinstance(item, dict) else item) for item in row["objects"])
            image = open_image(ImageRoot(path.parent).file(row["image"])).image
        except (ValueError, LookupError, TypeError, RecursionError, BadRow) as error:
            advice = "give an image below the file's folder and a list of objects"
            raise SaevxError(f"{path}, line {number}: {advice} ({error}).") from error
        result.append(Seen(image, names))
    if len(result) < 4:
        raise SaevxError(f"{path} has {len(result)} images: give at least 4.")
    return result


def questions_about(scenes: Sequence[Seen], seed: int) -> list[Question]:
    """Every object of every scene, and three that are absent: any, the commonest of the data, and the one that stands
    most often beside the scene's own. Ties go by name."""
    rng = np.random.default_rng(seed)
    frequency = Counter(noun for scene in scenes for noun in scene.objects)
    company: dict[str, Counter[str]] = {noun: Counter() for noun in frequency}
    for scene in scenes:
        for noun in scene.objects:
            company[noun].update(scene.objects - {noun})
    result = []
    for i, scene in enumerate(scenes):
        absent = sorted(set(frequency) - scene.objects, key=lambda noun: (-frequency[noun], noun))
        result += [Question(i, "present", noun) for noun in sorted(scene.objects)]
        if absent:
            n_near = sum((company[noun] for noun in sorted(scene.objects)), Counter[str]())
            nouns = absent[rng.integers(len(absent))], absent[0], max(absent, key=lambda noun: n_near[noun])
            result += [Question(i, kind, noun) for kind, noun in zip(ABSENT, nouns, strict=True)]
    return result


def nouns_of(caption: str, vocabulary: Sequence[str]) -> set[str]:
    """The objects that a caption names, in the singular or the plural."""
    words = f" {' '.join(re.findall(r'[a-z]+', caption.lower()))} "
    return {noun for noun in vocabulary if any(f" {form} " in words for form in (noun, plural(noun)))}
