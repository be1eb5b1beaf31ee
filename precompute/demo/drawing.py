"""Draws scenes: Fluent emoji and coloured shapes on a plain or softly graded background."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from precompute.demo.scenes import COLOURS, OBJECTS, SIZE, Entity, Scene
from precompute.errors import SaevxError

IN_WHEEL = Path(__file__).parent / "drawings"
IN_CHECKOUT = Path(__file__).resolve().parents[2] / "frontend/node_modules/@lobehub/fluent-emoji-3d/assets"
ASSETS = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT


@lru_cache(maxsize=256)
def emoji(code: str) -> Image.Image:
    """The drawing of a code point, RGBA, cut to what is drawn."""
    path = ASSETS / f"{code}.webp"
    if not path.exists():
        raise SaevxError(
            "The demo's drawings come from the npm package @lobehub/fluent-emoji-3d, which is not installed: "
            "run `make setup` in a checkout."
        )
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    return rgba.crop(rgba.getbbox())


def draw(scene: Scene) -> Image.Image:
    """The image, RGB, SIZE × SIZE."""
    rng = np.random.default_rng(scene.seed)
    base = np.array(COLOURS[scene.background], np.float32)
    base = base + (255 - base) * rng.uniform(0, 0.25) if scene.background not in ("black", "white") else base
    canvas = np.broadcast_to(base, (SIZE, SIZE, 3)).copy()
    if rng.random() < 0.5:  # softly graded
        ramp = np.linspace(-1, 1, SIZE)
        slope = ramp[:, None] * rng.uniform(-14, 14) + ramp[None] * rng.uniform(-14, 14)
        canvas += slope[..., None]
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    for e in scene.entities:
        if e.colour:
            draw_shape(image, e, rng)
        else:
            codes = OBJECTS[e.noun]
            draw_emoji(image, emoji(codes[-1] if scene.second and len(codes) > 1 else codes[0]), e, rng)
    return image


def draw_emoji(image: Image.Image, drawing: Image.Image, e: Entity, rng: np.random.Generator) -> None:
    """Paste a drawing into an object's box, slightly turned."""
    side = e.box[2] - e.box[0]
    drawing = drawing.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC, expand=True)
    drawing = drawing.crop(drawing.getbbox())
    scale = side / max(drawing.size)
    size = (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale)))
    drawing = drawing.resize(size, Image.Resampling.LANCZOS)
    corner = (e.box[0] + (side - drawing.width) // 2, e.box[1] + (side - drawing.height) // 2)
    image.paste(drawing, corner, drawing)


def draw_shape(image: Image.Image, e: Entity, rng: np.random.Generator) -> None:
    """Draw a coloured shape into its box, its colour slightly varied."""
    colour = tuple(int(c) for c in np.clip(np.array(COLOURS[str(e.colour)]) + rng.integers(-10, 11, 3), 0, 255))
    k = 4  # drawn four times as large, then reduced: smooth edges
    side = (e.box[2] - e.box[0]) * k
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    if e.noun == "circle":
        pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    elif e.noun == "rectangle":
        h = int(side * rng.uniform(0.55, 0.8))
        pen.rectangle((0, (side - h) // 2, side - 1, (side + h) // 2), fill=255)
    else:
        n, inner_radius = (3, 1.0) if e.noun == "triangle" else (5, 0.45)
        turn = -np.pi / 2 + rng.uniform(-0.2, 0.2)
        points = []
        for i in range(n * (1 if n == 3 else 2)):
            r = side / 2 * (1 if n == 3 or i % 2 == 0 else inner_radius)
            t = turn + 2 * np.pi * i / (n if n == 3 else 2 * n)
            points.append((side / 2 + r * np.cos(t), side / 2 + r * np.sin(t)))
        pen.polygon(points, fill=255)
    mask = mask.resize((side // k, side // k), Image.Resampling.LANCZOS)
    image.paste(Image.new("RGB", mask.size, colour), (e.box[0], e.box[1]), mask)
