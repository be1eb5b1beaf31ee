"""A small made-up store with planted structure: what `collect` would leave, from a seeded generator, and
then the real steps. `python -m tests.helpers.synthetic OUT` writes a finished store for work on pages and programs
without a model.

Planted: every word of a colour or thing has a feature that fires on the word and on its patches
(`word_feature`), one on the word only and one on the patches only; then features that fire anywhere on both
sides, dead ones, a dense one. Of the pairs some have another's caption, an empty or stuttering one, a
blank, dark, tiny or copied picture.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from precompute.steps import cooccur, flag, index, label, score, weigh
from precompute.store.histogram import N_BINS
from precompute.store.making.writer import seal, write_database, write_pairs
from precompute.store.schema import IMAGE, SINK, SPECIAL, TEXT

Array = NDArray[Any]

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (240, 210, 40),
    "purple": (140, 60, 190), "orange": (245, 140, 30),
}  # fmt: skip
THINGS = ("dog", "cat", "car", "tree", "umbrella", "star", "boat", "house")
FILLERS = ("a", "the", "picture", "of", "with", "on", "plain", "ground", ".", "there", "is", "one")
PIECES = {"umbrella": [" umb", "rella"]}
GRID, SIDE, D = 4, 64, 48
CONCEPTS = (*COLOURS, *THINGS)
N_FEATURES = 128
DENSE, FIRST_LOOSE, N_LOOSE = 3 * len(CONCEPTS), 3 * len(CONCEPTS) + 1, 24
SCALE_LOG2 = 2
TOP, BAND = 40, 8

VOCABULARY = ["<pad>", "<s>", "<image>", "\n"]
for _word in (*FILLERS, *CONCEPTS):
    VOCABULARY += PIECES.get(_word, [" " + _word if _word != "." else "."])
TOKEN = {text: i for i, text in enumerate(VOCABULARY)}


def word_feature(word: str) -> int:
    """The feature planted for a word on both sides; +1 is its text-only, +2 its image-only one."""
    return 3 * CONCEPTS.index(word)


class Scene(NamedTuple):
    """One pair before any model: what is drawn and what is said."""

    sample_id: str
    text: str
    said: tuple[str, ...]
    drawn: tuple[str, ...]  # colour, thing
    cells: tuple[tuple[int, int], ...]
    planted: str | None
    jitter: int


def make_scenes(n: int, rng: np.random.Generator) -> list[Scene]:
    kinds: list[str | None] = [None] * n
    bad = (
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
    for i, where in enumerate(rng.permutation(np.arange(1, n))[: max(len(bad), n // 8)]):
        kinds[where] = bad[i % len(bad)]
    scenes: list[Scene] = []
    for i, kind in enumerate(kinds):
        colour, thing = str(rng.choice(list(COLOURS))), str(rng.choice(THINGS))
        top, left = int(rng.integers(0, GRID - 1)), int(rng.integers(0, GRID - 1))
        cells = tuple((top + r, left + c) for r in (0, 1) for c in (0, 1))
        said, drawn = (colour, thing), (colour, thing)
        jitter = int(rng.integers(0, 1000))
        if kind == "near-duplicate":
            drawn, said, cells, jitter = scenes[0].drawn, scenes[0].drawn, scenes[0].cells, scenes[0].jitter
        if kind == "caption":
            others = [c for c in COLOURS if c != colour], [t for t in THINGS if t != thing]
            said = (str(rng.choice(others[0])), str(rng.choice(others[1])))
        if kind in ("blank", "dark"):
            drawn = ()
        forms = (
            "a picture of a {} {} .",
            "there is one {} {} on plain ground .",
            "the {} {} with the ground .",
        )
        text = str(rng.choice(forms)).format(*said)
        if kind == "empty":
            text, said = "", ()
        if kind == "repeated":
            text = " ".join([f"a {said[0]} {said[1]}"] * 4)
        scenes.append(Scene(f"s{i:05d}", text, said, drawn, cells, kind, jitter))
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


def tokenise(text: str) -> list[tuple[int, str]]:
    """(token id, its word) of a caption."""
    found = []
    for word in text.split():
        for piece in PIECES.get(word, [" " + word if word != "." else "."]):
            found.append((TOKEN[piece], word))
    return found


class World(NamedTuple):
    """Directions of the made-up model."""

    directions_fd: Array
    concept_cd: Array
    common_md: Array
    unembed_vd: Array


def make_world(rng: np.random.Generator) -> World:
    def units(*shape: int) -> Array:
        x = rng.standard_normal(shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    directions, concepts = units(N_FEATURES, D), units(len(CONCEPTS), D)
    unembed = units(len(VOCABULARY), D) * 0.3
    for i, word in enumerate(CONCEPTS):
        directions[3 * i] = directions[3 * i] * 0.6 + concepts[i] * 0.8
        unembed[TOKEN[PIECES.get(word, [" " + word])[0]]] += directions[3 * i]
    return World(
        directions.astype(np.float32), concepts, units(2, D) * 6 + units(1, D) * 8, unembed.astype(np.float32)
    )


def activations(
    scene: Scene, world: World, rng: np.random.Generator, n_patches: int
) -> tuple[Array, Array, Array, Array]:
    """(token_id_t, modality_t, z_tf, h_td) of one scene; z rounded to float16."""
    words = tokenise(scene.text)
    token_id = np.array(
        [TOKEN["<s>"]] + [TOKEN["<image>"]] * n_patches + [TOKEN["\n"]] + [t for t, _ in words]
    )
    modality = np.array([SPECIAL] + [IMAGE] * n_patches + [SPECIAL] + [TEXT] * len(words), dtype=np.uint8)
    if n_patches and rng.random() < 0.1:
        modality[1 + int(rng.integers(0, n_patches))] = SINK
    z_tf = np.zeros((len(token_id), N_FEATURES))
    h_td = rng.standard_normal((len(token_id), D)) * 0.5
    h_td[modality == TEXT] += world.common_md[TEXT]
    h_td[modality != TEXT] += world.common_md[IMAGE]

    def fire(token: int, feature: int, strength: float) -> None:
        z_tf[token, feature] = strength * rng.uniform(0.6, 1.0)

    for row, col in scene.cells if scene.drawn and n_patches else ():
        token = 1 + row * GRID + col
        for word in scene.drawn:
            fire(token, word_feature(word), 6)
            fire(token, word_feature(word) + 2, 4)
            h_td[token] += 5 * world.concept_cd[CONCEPTS.index(word)]
    for i, (_, word) in enumerate(words):
        if word in CONCEPTS:
            token = 2 + n_patches + i
            fire(token, word_feature(word), 5)
            fire(token, word_feature(word) + 1, 4)
            h_td[token] += 5 * world.concept_cd[CONCEPTS.index(word)]
    loose = rng.random((len(token_id), N_LOOSE)) < 0.02
    z_tf[:, FIRST_LOOSE : FIRST_LOOSE + N_LOOSE] = loose * rng.uniform(0.2, 3, loose.shape)
    z_tf[:, DENSE] = rng.uniform(0.5, 1.5, len(token_id)) * (rng.random(len(token_id)) < 0.6)
    z_tf[(modality == SPECIAL) | (modality == SINK)] = 0
    stored = (z_tf * 2.0**SCALE_LOG2).astype(np.float16)
    h_td += stored.astype(np.float64) / 2.0**SCALE_LOG2 @ world.directions_fd
    return token_id, modality, stored, h_td


def to_bf16(values: Array) -> Array:
    """Rounded to nearest even, as bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def accumulate(
    feature: Array, modality: Array, value: Array, row: Array, position: Array
) -> dict[str, Array]:
    """The accumulators of the pass, one event at a time: slow, plain, and so a reference."""
    shape = (N_FEATURES, 2)
    found: dict[str, Array] = {
        "count": np.zeros(shape, np.int64), "total": np.zeros(shape, np.int64),
        "max": np.zeros(shape, np.float16),
        "hist": np.zeros((*shape, N_BINS), np.int64),
    }  # fmt: skip
    for name, extra in (("top", (TOP,)), ("band", (4, BAND))):
        found |= {
            f"{name}_row": np.full((*shape, *extra), -1, np.int64),
            f"{name}_position": np.full((*shape, *extra), -1, np.int32),
            f"{name}_value": np.zeros((*shape, *extra), np.float16),
            f"{name}_n_active": np.zeros((*shape, *extra), np.int32),
        }
    lists: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for k, m, v, r, p in zip(
        feature.tolist(), modality.tolist(), value, row.tolist(), position.tolist(), strict=True
    ):
        found["count"][k, m] += 1
        found["total"][k, m] += int(float(v) * 2**24)
        found["max"][k, m] = max(found["max"][k, m], v)
        found["hist"][k, m, int(v.view(np.uint16)) >> 7] += 1
        lists.setdefault((k, m), []).append((float(v), r, p))

    def one_a_sample(tokens: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
        first: dict[int, tuple[float, int, int]] = {}
        for token in sorted(tokens, key=lambda e: (-e[0], e[1], e[2])):
            first.setdefault(token[1], token)
        return list(first.values())

    for (k, m), tokens in lists.items():
        n_active = Counter(r for _, r, _ in tokens)

        def put(name: str, at: tuple[int, ...], entries: list[tuple[float, int, int]], n: Counter[int]) -> None:
            for i, (v, r, p) in enumerate(entries):
                found[f"{name}_row"][(*at, i)], found[f"{name}_position"][(*at, i)] = r, p
                found[f"{name}_value"][(*at, i)], found[f"{name}_n_active"][(*at, i)] = v, n[r]

        put("top", (k, m), one_a_sample(tokens)[:TOP], n_active)
        octave = np.floor(np.log2(max(e[0] for e in tokens)))
        for band in range(4):
            inside = one_a_sample([e for e in tokens if min(3, octave - np.floor(np.log2(e[0]))) == band])
            inside.sort(key=lambda e: hashlib.sha256(f"0,{k},{e[1]}".encode()).digest())
            put("band", (k, m, band), inside[:BAND], n_active)
    return found


def write_part(
    part: Path, n: int = 240, seed: int = 0, *, pictures: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes what `collect` leaves; returns (manifest, options of the later steps).

    Args:
        pictures: False for the data of a model that reads text alone.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    world, scenes = make_world(rng), make_scenes(n, rng)
    for folder in ("collect", "events", "images"):
        (part / folder).mkdir(parents=True, exist_ok=True)
    tokens, kinds, offsets = [], [], [0]
    parts: dict[str, list[Array]] = {name: [] for name in ("feature", "value", "modality", "row", "position")}
    token_event = [np.zeros(1, np.int64)]
    sample: dict[str, list[float]] = {name: [] for name in (
        "n_text", "n_image", "n_special", "n_sink", "width", "height", "sse_text", "sse_image",
        "sq_text", "sq_image", "caption_nll",
    )}  # fmt: skip
    max_offset, max_feature, max_value = [0], [], []
    resid, resid_row, resid_pos = [], [], []
    sums, lines = np.zeros((2, D)), []
    for row, scene in enumerate(scenes):
        token_id, modality, stored, h_td = activations(scene, world, rng, GRID * GRID * pictures)
        tokens.append(token_id)
        kinds.append(modality)
        offsets.append(offsets[-1] + len(token_id))
        position, feature = np.nonzero(stored)
        for name, values in zip(
            parts,
            (feature, stored[position, feature], modality[position], np.full(len(feature), row), position),
            strict=True,
        ):
            parts[name].append(values)
        token_event.append(token_event[-1][-1] + np.cumsum((stored > 0).sum(1)))
        picture = draw(scene)
        thumb = f"images/{row // 1000}/{row}_0.webp"
        (part / thumb).parent.mkdir(exist_ok=True)
        if pictures:
            picture.save(part / thumb, lossless=True)
        for m, name in ((TEXT, "text"), (IMAGE, "image")):
            mine = modality == m
            best = stored[mine].max(0) if mine.any() else np.zeros(N_FEATURES, np.float16)
            active = np.flatnonzero(best)
            max_feature.append(active)
            max_value.append(best[active])
            max_offset.append(max_offset[-1] + len(active))
            z = stored[mine].astype(np.float64) / 2.0**SCALE_LOG2
            sample[f"sse_{name}"].append(
                float(((h_td[mine] - world.common_md[m] - z @ world.directions_fd) ** 2).sum())
            )
            sample[f"sq_{name}"].append(float((h_td[mine] ** 2).sum()))
            sums[m] += h_td[mine].sum(0)
        for name, code in (("n_text", TEXT), ("n_image", IMAGE), ("n_special", SPECIAL), ("n_sink", SINK)):
            sample[name].append(int((modality == code).sum()))
        sample["width"].append(picture.width * pictures)
        sample["height"].append(picture.height * pictures)
        sample["caption_nll"].append(
            float("nan") if not scene.said else rng.uniform(1, 2) + 2 * (scene.said != scene.drawn)
        )
        counted = np.flatnonzero(modality <= IMAGE)
        resid.append(to_bf16(h_td[counted]))
        resid_row.append(np.full(len(counted), row))
        resid_pos.append(counted)
        image = {
            "width": picture.width,
            "height": picture.height,
            "thumb": thumb,
            "sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
        }
        lines.append({
            "row": row, "sample_id": scene.sample_id, "text": scene.text, "images": [image] * pictures,
            "views": [[GRID, GRID, [0, 0, picture.width, picture.height], 0]] * pictures,
            "extra": {"planted": scene.planted, "drawn": list(scene.drawn)}, "source": {"index": row},
        })  # fmt: skip

    arrays: dict[str, Array] = {
        "events/sample_token": np.array(offsets, np.int64),
        "events/token_id": np.concatenate(tokens).astype(np.int32),
        "events/token_modality": np.concatenate(kinds), "events/token_event": np.concatenate(token_event),
        "events/event_feature": np.concatenate(parts["feature"]).astype(np.uint16),
        "events/event_value": np.concatenate(parts["value"]),
        "collect/max_full_offset": np.array(max_offset, np.int64),
        "collect/max_full_feature": np.concatenate(max_feature).astype(np.uint16),
        "collect/max_full_value": np.concatenate(max_value), "collect/resid": np.concatenate(resid),
        "collect/resid_row": np.concatenate(resid_row).astype(np.int64),
        "collect/resid_pos": np.concatenate(resid_pos).astype(np.int32),
        "collect/ds_rows": np.arange(n, dtype=np.int64),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    events = [np.concatenate(parts[name]) for name in ("feature", "modality", "value", "row", "position")]
    np.savez(part / "collect/accum.npz", **accumulate(*events))
    np.savez(
        part / "collect/sample.npz",
        **{k: np.array(v) for k, v in sample.items()},
        sum_text_d=sums[TEXT],
        sum_image_d=sums[IMAGE],
    )
    (part / "collect/vocabulary.json").write_text(json.dumps(VOCABULARY))
    (part / "collect/samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bad = {"index": n, "sample_id": "broken", "reason": "the image file is cut short"}
    (part / "collect/quarantine.jsonl").write_text(json.dumps(bad) + "\n")
    count = np.bincount(np.concatenate(kinds), minlength=4).tolist()
    manifest = {
        "name": "synthetic",
        "model": {"name": "made-up", "family": "llava", "layer": 3, "hook": "resid_post", "d_model": D,
                  "template": "<s><image>\n{text}", "dtype": "float32", "vocab": len(VOCABULARY)},
        "sae": {"name": "made-up", "sha256": "0" * 64, "n_features": N_FEATURES, "architecture": "standard",
                "l0": len(events[0]) / (count[TEXT] + count[IMAGE])},
        "data": {"name": "made-up scenes", "sha256": "0" * 64, "n_rows": n + 1,
                 "n_samples": n, "n_quarantined": 1},
        "options": {"seed": seed}, "scale_log2": SCALE_LOG2,
        "sinks": {"multiple": 4.0, "median_norm": {"text": 12.0, "image": 12.0}},
        "tokens": dict(zip(("text", "image", "special", "sink"), count, strict=True)),
        "quality": {}, "created": "2026-01-01T00:00:00+00:00", "code_version": "0.1.0",
    }  # fmt: skip
    options = {
        "seed": seed,
        "directions": lambda: world.directions_fd,
        "logit_lens": lambda: (np.ones(D, np.float32), world.unembed_vd),
    }
    return manifest, options


def run_steps(part: Path, manifest: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    for step in (weigh, score, flag, cooccur, index, label):
        manifest = {**manifest, **step.run(part, manifest, options)}
    return manifest


def finish(part: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Turns STORE.part with all steps done into a finished store in its place, and returns its manifest."""
    write_database(part, manifest)
    write_pairs(part, manifest)
    return seal(part, manifest)


def write_store(out: Path, n: int = 240, seed: int = 0) -> dict[str, Any]:
    """A finished synthetic store at `out`; returns its manifest."""
    part = out.with_name(out.name + ".part")
    for old in (part, out):
        shutil.rmtree(old, ignore_errors=True)
    manifest, options = write_part(part, n, seed)
    manifest = finish(part, run_steps(part, manifest, options))
    (part / "run.json").write_text("{}\n")
    part.rename(out)
    return manifest


if __name__ == "__main__":
    write_store(Path(sys.argv[1]), *(int(a) for a in sys.argv[2:]))
