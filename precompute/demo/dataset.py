"""The demo set: an `imagefolder` of scenes, some of its pairs spoilt on purpose.

`metadata.jsonl` keeps the truth beside each pair (`planted`, `background`, `entities`), so that the flags can
be held against it; the pass reads only `file_name`, `text` and `id`.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from precompute.demo.drawing import draw
from precompute.demo.scenes import COLOURS, NUMBERS, OBJECTS, SHAPES, SIZE, Scene, make_scene
from precompute.utils.files import write_text
from precompute.utils.processes.children import end_with_parent, without_interrupts

N_DEMO = 1500
# How many of 1,500 pairs are spoilt, and how.
PLANTED = {
    "swapped": 60,
    "one-word": 60,
    "near-duplicate": 12,
    "blank": 12,
    "blurred": 12,
    "tiny": 12,
    "empty-text": 12,
    "repeated-text": 12,
}
SWAP_GROUPS: tuple[tuple[str, ...], ...] = (
    tuple(OBJECTS),
    tuple(COLOURS),
    SHAPES,
    tuple(NUMBERS.values()),
    ("left", "right"),
    ("top", "bottom"),
    ("above", "below"),
)
SWAP_KINDS = ("noun", "colour", "noun", "number", "place", "place", "place")
"""What a word of each of SWAP_GROUPS is."""


@cache
def planted_kinds(n_samples: int) -> tuple[str, ...]:
    """What is wrong with each pair: "" or a key of PLANTED, at PLANTED's rate but at least 4 of each, fewer only
    where they would be half of the data."""
    n_each = min(4, n_samples // (2 * len(PLANTED)))
    counts = {kind: max(n_each, round(n * n_samples / N_DEMO)) for kind, n in PLANTED.items()}
    kinds = [kind for kind, n in counts.items() for _ in range(n)][:n_samples]
    kinds += [""] * (n_samples - len(kinds))
    order = np.random.default_rng([7, n_samples]).permutation(n_samples)
    # The first pair stays whole: a near-duplicate needs one before it.
    result = [kinds[i] for i in order]
    at_unchanged = result.index("")
    result[0], result[at_unchanged] = result[at_unchanged], result[0]
    return tuple(result)


def swap_one_word(caption: str, rng: np.random.Generator, kind: str | None = None) -> tuple[str, str]:
    """The caption with one noun, colour, number or place exchanged; and which kind it was.

    Args:
        kind: exchange a word of this kind, of which the caption must have one (`has_swappable_word`).
    """
    words = caption.replace(",", " ,").split(" ")
    groups = [(g, group) for g, group in enumerate(SWAP_GROUPS) if kind in (None, SWAP_KINDS[g])]
    choices = [(i, g) for i, word in enumerate(words) for g, group in groups if word in group]
    i, g = choices[rng.integers(len(choices))]
    alternatives = [w for w in SWAP_GROUPS[g] if w != words[i] and w not in words]
    words[i] = alternatives[rng.integers(len(alternatives))]
    if i and words[i - 1] in ("a", "an"):
        words[i - 1] = "an" if words[i][0] in "aeiou" else "a"
    return " ".join(words).replace(" ,", ","), SWAP_KINDS[g]


def has_swappable_word(caption: str, kind: str | None = None) -> bool:
    """Whether `swap_one_word` finds a word, of that kind if one is named."""
    groups = [group for g, group in enumerate(SWAP_GROUPS) if kind in (None, SWAP_KINDS[g])]
    return any(w in group for w in caption.replace(",", " ").split() for group in groups)


def share_nothing(a: Scene, b: Scene) -> bool:
    """True where the two scenes share no noun and no shape's colour: a swap is then plainly wrong."""
    words_a, words_b = ({w for e in s.entities for w in (e.noun, e.colour) if w} for s in (a, b))
    return not words_a & words_b


def spoil(kind: str, scene: Scene, image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, str]:
    """Image and caption of a pair of one of the kinds that need no other pair."""
    caption = scene.caption
    if kind == "blank":
        image = Image.new("RGB", (SIZE, SIZE), COLOURS[scene.background])
    elif kind == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(9))
    elif kind == "tiny":
        image = image.resize((24, 24), Image.Resampling.LANCZOS)
    elif kind == "empty-text":
        caption = ""
    elif kind == "repeated-text":
        caption = " ".join([caption] * int(rng.integers(4, 7)))
    return image, caption


def build_dataset(
    folder: Path, n_samples: int, say: Callable[[str], None] = print, stop: threading.Event | None = None
) -> None:
    """Writes FOLDER/images/*.png and FOLDER/metadata.jsonl, a process a core; the same bytes each time.

    Args:
        stop: set by another thread that wants no more of them.

    Raises:
        CancelledError: it was set.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        with without_interrupts():
            pairs = pool.map(partial(make_pair, folder, n_samples), range(n_samples), chunksize=20)
        for row in pairs:
            if stop is not None and stop.is_set():
                pool.shutdown(cancel_futures=True)
                raise CancelledError
            rows.append(json.dumps(row, ensure_ascii=False))
            if len(rows) % 500 == 0:
                say(f"  {len(rows)} of {n_samples} scenes drawn")
    write_text(folder / "metadata.jsonl", "\n".join(rows) + "\n")


def make_pair(folder: Path, n_samples: int, i: int) -> dict[str, Any]:
    """Writes the image of pair i of n_samples and returns its row."""
    kinds = planted_kinds(n_samples)
    kind, scene = kinds[i], scene_of(i)
    rng = np.random.default_rng([41, i])
    image, text, detail = draw(scene), scene.caption, kind
    if kind == "swapped":
        partner = next(j for j in rng.permutation(n_samples) if share_nothing(scene, scene_of(int(j))))
        text = scene_of(int(partner)).caption
    elif kind == "one-word" and has_swappable_word(text):
        text, swap = swap_one_word(text, rng)
        detail = f"one-word: {swap}"
    elif kind == "near-duplicate":
        earlier = [j for j in range(i) if kinds[j] == ""]
        scene = scene_of(earlier[rng.integers(len(earlier))])
        text = scene.caption
        image = ImageEnhance.Brightness(draw(scene)).enhance(float(rng.uniform(1.02, 1.06)))
    elif kind:
        image, text = spoil(kind, scene, image, rng)
    name = f"images/{i:05d}.png"
    image.save(folder / name, compress_level=1)
    return {"file_name": name, "text": text, "id": f"scene-{i:05d}", "planted": detail, **scene.truth()}


@cache
def scene_of(i: int) -> Scene:
    return make_scene("demo", i)
