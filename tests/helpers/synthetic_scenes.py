"""The pairs of the synthetic store before any model: what each image shows and what its caption says."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (240, 210, 40),
    "purple": (140, 60, 190), "orange": (245, 140, 30),
}  # fmt: skip
THINGS = ("dog", "cat", "car", "tree", "umbrella", "star", "boat", "house")
GRID = 4
SIDE = 64


class Scene(NamedTuple):
    """One pair before any model: what is drawn and what is said."""

    sample_id: str
    text: str
    caption_words: tuple[str, ...]
    drawn: tuple[str, ...]  # colour, thing
    cells: tuple[tuple[int, int], ...]
    planted: str | None
    jitter: int


def make_scenes(n: int, rng: np.random.Generator) -> list[Scene]:
    kinds: list[str | None] = [None] * n
    faults = (
        "caption",
        "caption",
        "caption",
        "near-duplicate",
        "blank",
        "dark",
        "tiny",
        "blurred",
        "empty",
        "repeated",
    )
    for i, where in enumerate(rng.permutation(np.arange(1, n))[: max(len(faults), n // 8)]):
        kinds[where] = faults[i % len(faults)]
    scenes: list[Scene] = []
    for i, kind in enumerate(kinds):
        colour, thing = str(rng.choice(list(COLOURS))), str(rng.choice(THINGS))
        top, left = int(rng.integers(0, GRID - 1)), int(rng.integers(0, GRID - 1))
        cells = tuple((top + r, left + c) for r in (0, 1) for c in (0, 1))
        caption_words, on_image = (colour, thing), (colour, thing)
        jitter = int(rng.integers(0, 1000))
        if kind == "near-duplicate":
            on_image, caption_words, cells, jitter = scenes[0].drawn, scenes[0].drawn, scenes[0].cells, scenes[0].jitter
        if kind == "caption":
            other_words = [c for c in COLOURS if c != colour], [t for t in THINGS if t != thing]
            caption_words = (str(rng.choice(other_words[0])), str(rng.choice(other_words[1])))
        if kind in ("blank", "dark"):
            on_image = ()
        forms = (
            "a picture of a {} {} .",
            "there is one {} {} on plain ground .",
            "the {} {} with the ground .",
        )
        text = str(rng.choice(forms)).format(*caption_words)
        if kind == "empty":
            text, caption_words = "", ()
        if kind == "repeated":
            text = " ".join([f"a {caption_words[0]} {caption_words[1]}"] * 4)
        scenes.append(Scene(f"s{i:05d}", text, caption_words, on_image, cells, kind, jitter))
    return scenes


def draw(scene: Scene) -> Image.Image:
    rng = np.random.Generator(np.random.PCG64(scene.jitter))
    if scene.planted in ("blank", "dark"):
        return Image.new("RGB", (SIDE, SIDE), (8, 8, 8) if scene.planted == "dark" else (128, 128, 128))
    noise = rng.integers(150, 235, (8, 8, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen, cell = ImageDraw.Draw(picture), SIDE // GRID
    colour, thing = scene.drawn
    r, c = scene.cells[0]
    x, y, w = c * cell + 2, r * cell + 2, 2 * cell - 4
    sides = THINGS.index(thing) + 3
    pen.regular_polygon((x + w // 2, y + w // 2, w // 2), sides, fill=COLOURS[colour], outline=(20, 20, 20))
    if scene.planted == "blurred":
        picture = picture.filter(ImageFilter.GaussianBlur(9))
    if scene.planted == "tiny":
        picture = picture.resize((16, 16))
    if scene.planted == "near-duplicate":
        picture = picture.point(lambda v: min(255, v + 6))
    return picture
