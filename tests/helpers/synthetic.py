"""A small made-up store with planted structure: what `collect` would leave, from a seeded generator, and
then the real steps. `python -m tests.helpers.synthetic OUT` writes a finished store for work on pages and programs
without a model.

Planted: every word of a colour or thing has a feature that fires on the word and on its patches
(`word_feature`), one on the word only and one on the patches only; then features that fire anywhere on both
sides, dead ones, a dense one. Of the pairs some have another's caption, an empty or stuttering one, a
blank, dark, tiny or copied picture.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from precompute.steps import cooccur, families, flag, index, label, sample_map, score, weigh
from precompute.store.making.sealing import seal, seal_run
from precompute.store.making.writer import write_database, write_pairs
from precompute.store.schema import IMAGE, PLACE_SIDE, SINK, SPECIAL, TEXT
from precompute.utils.types import Array
from tests.helpers.accumulator_reference import accumulate, to_bf16
from tests.helpers.shared import made_once
from tests.helpers.synthetic_scenes import COLOURS, GRID, THINGS, Scene, draw, make_scenes

FILLERS = ("a", "the", "picture", "of", "with", "on", "plain", "ground", ".", "there", "is", "one")
PIECES = {"umbrella": [" umb", "rella"]}
D = 48
CONCEPTS = (*COLOURS, *THINGS)
N_FEATURES = 128
DENSE, FIRST_LOOSE, N_LOOSE = 3 * len(CONCEPTS), 3 * len(CONCEPTS) + 1, 24
SCALE_LOG2 = 2
COPIED = {"red": 0.2, "dog": 0.2, "blue": 0.6}
"""Words whose image-only feature nearly has the direction of that on both sides, and how far it is off."""
CARRIED = 0  # the feature of the first concept fires on its word only because the image has it

VOCABULARY = ["<pad>", "<s>", "<image>", "\n"]
for _word in (*FILLERS, *CONCEPTS):
    VOCABULARY += PIECES.get(_word, [" " + _word if _word != "." else "."])
TOKEN = {text: i for i, text in enumerate(VOCABULARY)}


def word_feature(word: str) -> int:
    """The feature planted for a word on both sides; +1 is its text-only, +2 its image-only one."""
    return 3 * CONCEPTS.index(word)


def tokenise(text: str) -> list[tuple[int, str]]:
    """(token id, its word) of a caption."""
    result = []
    for word in text.split():
        for piece in PIECES.get(word, [" " + word if word != "." else "."]):
            result.append((TOKEN[piece], word))
    return result


class World(NamedTuple):
    """Directions of the made-up model."""

    directions_fd: Array
    concept_cd: Array
    common_md: Array
    unembed_vd: Array
    order_f: Array  # int64 [F]: what is planted as each feature
    silent: tuple[int, ...] = ()  # what is planted and never active
    layer: int = 3


def make_world(rng: np.random.Generator) -> World:
    def units(*shape: int) -> Array:
        x = rng.standard_normal(shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    directions, concepts = units(N_FEATURES, D), units(len(CONCEPTS), D)
    unembed = units(len(VOCABULARY), D) * 0.3
    for i, word in enumerate(CONCEPTS):
        directions[3 * i] = directions[3 * i] * 0.6 + concepts[i] * 0.8
        if word in COPIED:
            directions[3 * i + 2] = directions[3 * i] + directions[3 * i + 2] * COPIED[word]
            directions[3 * i + 2] /= np.linalg.norm(directions[3 * i + 2])
        unembed[TOKEN[PIECES.get(word, [" " + word])[0]]] += directions[3 * i]
    common_directions = units(2, D) * 6 + units(1, D) * 8
    arrays = directions.astype(np.float32), unembed.astype(np.float32)
    return World(arrays[0], concepts, common_directions, arrays[1], np.arange(N_FEATURES))


def activations(
    scene: Scene, world: World, rng: np.random.Generator, n_patches: int
) -> tuple[Array, Array, Array, Array]:
    """(token_id_t, modality_t, z_tf, h_td) of one scene; z rounded to float16."""
    words = tokenise(scene.text)
    token_id = np.array([TOKEN["<s>"]] + [TOKEN["<image>"]] * n_patches + [TOKEN["\n"]] + [t for t, _ in words])
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
    z_tf[:, world.silent] = 0
    z_stored = (z_tf * 2.0**SCALE_LOG2).astype(np.float16)
    h_td += z_stored.astype(np.float64) / 2.0**SCALE_LOG2 @ world.directions_fd
    return token_id, modality, z_stored[:, world.order_f], h_td


class Collecting:
    """What `collect` would gather, sample by sample."""

    def __init__(self, part: Path, world: World, *, pictures: bool) -> None:
        self.part, self.world, self.pictures = part, world, pictures
        self.tokens, self.kinds = list[Array](), list[Array]()
        self.token_event = [np.zeros(1, np.int64)]
        self.events: dict[str, list[Array]] = {name: [] for name in ("feature", "modality", "value", "row", "position")}
        self.sample: dict[str, list[float]] = {name: [] for name in (
            "n_text", "n_image", "n_special", "n_sink", "width", "height", "sse_text", "sse_image",
            "sq_text", "sq_image", "caption_nll", "caption_nll_alone", "other_nll", "other_row",
        )}  # fmt: skip
        self.max_offset, self.max_feature, self.max_value = [0], [], []
        self.alone, self.alone_value = list[Array](), list[Array]()
        self.resid, self.resid_row, self.resid_pos = [], [], []
        self.sums, self.lines, self.patch_error = np.zeros((2, D)), [], []

    def add(self, row: int, scene: Scene, rng: np.random.Generator) -> None:
        """One more sample: its tokens, events, maxima, residuals and image."""
        token_id, modality, z_tf, h_td = activations(scene, self.world, rng, GRID * GRID * self.pictures)
        self.tokens.append(token_id)
        self.kinds.append(modality)
        position, feature = np.nonzero(z_tf)
        columns = feature, modality[position], z_tf[position, feature], np.full(len(feature), row), position
        for name, values in zip(self.events, columns, strict=True):
            self.events[name].append(values)
        self.token_event.append(self.token_event[-1][-1] + np.cumsum((z_tf > 0).sum(1)))
        self._add_sides(modality, z_tf, h_td)
        for name, code in (("n_text", TEXT), ("n_image", IMAGE), ("n_special", SPECIAL), ("n_sink", SINK)):
            self.sample[name].append(int((modality == code).sum()))
        words = scene.caption_words
        nll = rng.uniform(1, 2) + 2 * (words != scene.drawn) if words else float("nan")
        value_alone = 4.0 + row % 7 / 7  # no draw: what follows stays as it is
        self.sample["caption_nll"].append(nll)
        self.sample["caption_nll_alone"].append(value_alone if words and scene.drawn else float("nan"))
        is_exchanged = row % 3 == 0 and row > 0
        self.sample["other_row"].append(row - 1 if is_exchanged else -1)
        self.sample["other_nll"].append(3.5 + row % 5 / 5 if is_exchanged else float("nan"))
        at_tokens = np.flatnonzero(modality <= IMAGE)
        self.resid.append(to_bf16(h_td[at_tokens]))
        self.resid_row.append(np.full(len(at_tokens), row))
        self.resid_pos.append(at_tokens)
        self._add_image(row, scene)

    def _add_sides(self, modality: Array, z_tf: Array, h_td: Array) -> None:
        for m, name in ((TEXT, "text"), (IMAGE, "image")):
            of_modality = modality == m
            max_f = z_tf[of_modality].max(0) if of_modality.any() else np.zeros(N_FEATURES, np.float16)
            feature_k = np.flatnonzero(max_f)
            self.max_feature.append(feature_k)
            self.max_value.append(max_f[feature_k])
            self.max_offset.append(self.max_offset[-1] + len(feature_k))
            if m == TEXT:
                alone_k = feature_k[(feature_k != CARRIED) & self.pictures]
                self.alone.append(alone_k)
                self.alone_value.append(max_f[alone_k])
            z = z_tf[of_modality].astype(np.float64) / 2.0**SCALE_LOG2
            decoded_td = z @ self.world.directions_fd[self.world.order_f]
            error_t = np.square(h_td[of_modality] - self.world.common_md[m] - decoded_td).sum(1)
            self.sample[f"sse_{name}"].append(float(error_t.sum()))
            self.patch_error += error_t.tolist() if m == IMAGE else []
            self.sample[f"sq_{name}"].append(float((h_td[of_modality] ** 2).sum()))
            self.sums[m] += h_td[of_modality].sum(0)

    def _add_image(self, row: int, scene: Scene) -> None:
        picture = draw(scene)
        thumb = f"images/{row // 1000}/{row}_0.webp"
        (self.part / thumb).parent.mkdir(exist_ok=True)
        if self.pictures:
            picture.save(self.part / thumb, lossless=True)
        self.sample["width"].append(picture.width * self.pictures)
        self.sample["height"].append(picture.height * self.pictures)
        image = {"width": picture.width, "height": picture.height, "thumb": thumb,
                 "sha256": hashlib.sha256(picture.tobytes()).hexdigest()}  # fmt: skip
        self.lines.append({
            "row": row, "sample_id": scene.sample_id, "text": scene.text, "images": [image] * self.pictures,
            "views": [[GRID, GRID, [0, 0, picture.width, picture.height], 0]] * self.pictures,
            "extra": {"planted": scene.planted, "drawn": list(scene.drawn)}, "source": {"index": row},
        })  # fmt: skip

    def write(self) -> None:
        """The files of all samples."""
        arrays: dict[str, Array] = {
            "events/sample_token": np.cumsum([0, *map(len, self.tokens)]),
            "events/token_id": np.concatenate(self.tokens).astype(np.int32),
            "events/token_modality": np.concatenate(self.kinds),
            "events/token_event": np.concatenate(self.token_event),
            "events/event_feature": np.concatenate(self.events["feature"]).astype(np.uint16),
            "events/event_value": np.concatenate(self.events["value"]),
            "collect/max_full_offset": np.array(self.max_offset, np.int64),
            "collect/max_full_feature": np.concatenate(self.max_feature).astype(np.uint16),
            "collect/max_full_value": np.concatenate(self.max_value),
            "collect/alone_offset": np.cumsum([0, *map(len, self.alone)]),
            "collect/alone_feature": np.concatenate(self.alone).astype(np.uint16),
            "collect/alone_value": np.concatenate(self.alone_value),
            "collect/resid": np.concatenate(self.resid),
            "collect/resid_row": np.concatenate(self.resid_row).astype(np.int64),
            "collect/resid_pos": np.concatenate(self.resid_pos).astype(np.int32),
            "collect/ds_rows": np.arange(len(self.lines), dtype=np.int64),
        }
        for name, array in arrays.items():
            np.save(self.part / f"{name}.npy", array)
        columns = [np.concatenate(column) for column in self.events.values()]
        patch = np.clip(columns[-1] - 1, 0, GRID * GRID - 1)  # of text tokens it does not count
        cell = (2 * np.stack(np.divmod(patch, GRID), 1) + 1) * PLACE_SIDE // (2 * GRID)
        cells, errors = np.zeros((PLACE_SIDE, PLACE_SIDE), np.int64), np.zeros((PLACE_SIDE, PLACE_SIDE))
        patches = (int(at) for kind in self.kinds for at in np.flatnonzero(kind == IMAGE) - 1)
        for at, error in zip(patches, self.patch_error, strict=True):
            place = tuple((2 * k + 1) * PLACE_SIDE // (2 * GRID) for k in divmod(at, GRID))
            cells[place], errors[place] = cells[place] + 1, errors[place] + error
        np.savez(self.part / "collect/accum.npz", **accumulate(*columns, cell, N_FEATURES), cells=cells)
        sample = {name: np.array(values) for name, values in self.sample.items()}
        sample |= {"sum_text_d": self.sums[TEXT], "sum_image_d": self.sums[IMAGE], "sse_place": errors}
        np.savez(self.part / "collect/sample.npz", **sample)
        (self.part / "collect/vocabulary.json").write_text(json.dumps(VOCABULARY))
        (self.part / "collect/samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        rejected_row = {"index": len(self.lines), "sample_id": "broken", "reason": "the image file is cut short"}
        (self.part / "collect/quarantine.jsonl").write_text(json.dumps(rejected_row) + "\n")

    def manifest(self, seed: int) -> dict[str, Any]:
        n, layer = len(self.lines), self.world.layer
        count = np.bincount(np.concatenate(self.kinds), minlength=4).tolist()
        n_events = sum(map(len, self.events["feature"]))
        return {
            "name": "synthetic" if layer == 3 else f"synthetic-{layer}",
            "model": {"name": "made-up", "family": "llava", "layer": layer, "hook": "resid_post", "d_model": D,
                      "template": "<s><image>\n{text}", "dtype": "float32", "vocab": len(VOCABULARY)},
            "sae": {"name": "made-up", "sha256": "0" * 64, "n_features": N_FEATURES, "architecture": "standard",
                    "l0": n_events / (count[TEXT] + count[IMAGE])},
            "data": {"name": "made-up scenes", "sha256": "0" * 64, "n_rows": n + 1,
                     "n_samples": n, "n_quarantined": 1},
            "options": {"seed": seed}, "scale_log2": SCALE_LOG2,
            "sinks": {"multiple": 4.0, "median_norm": {"text": 12.0, "image": 12.0}},
            "tokens": dict(zip(("text", "image", "special", "sink"), count, strict=True)),
            "quality": {}, "created": "2026-01-01T00:00:00+00:00", "code_version": "0.1.0",
        }  # fmt: skip


def write_part(
    part: Path, n: int = 240, seed: int = 0, *, pictures: bool = True, of_layer: Callable[..., World] = lambda w: w
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes what `collect` leaves; returns (manifest, options of the later steps).

    Args:
        pictures: False for the data of a model that reads text alone.
        of_layer: the world of another layer of the same samples (synthetic_layers.py).
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    world, scenes = of_layer(make_world(rng)), make_scenes(n, rng)
    for folder in ("collect", "events", "images"):
        (part / folder).mkdir(parents=True, exist_ok=True)
    writer = Collecting(part, world, pictures=pictures)
    for row, scene in enumerate(scenes):
        writer.add(row, scene, rng)
    writer.write()
    options = {
        "seed": seed,
        "directions": lambda: world.directions_fd[world.order_f],
        "logit_lens": lambda: (np.ones(D, np.float32), world.unembed_vd),
    }
    return writer.manifest(seed), options


def run_steps(part: Path, manifest: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    for step in (weigh, score, flag, cooccur, index, sample_map, families, label):
        manifest = {**manifest, **step.run(part, manifest, options)}
    return manifest


def finish(part: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Turns STORE.part with all steps done into a finished store in its place, and returns its manifest."""
    write_database(part, manifest)
    write_pairs(part, manifest)
    return seal(part, manifest)


def write_store(out: Path, n: int = 240, seed: int = 0, **options: Any) -> dict[str, Any]:
    """A finished synthetic store at `out`; returns its manifest. Options as `write_part`."""
    part = out.with_name(out.name + ".part")
    for folder in (part, out):
        shutil.rmtree(folder, ignore_errors=True)
    manifest = finish(part, run_steps(part, *write_part(part, n, seed, **options)))
    seal_run(part)
    part.rename(out)
    return manifest


def small_store(factory: pytest.TempPathFactory) -> Path:
    """The store of 80 samples that tests of the server share; they must not change it."""
    return made_once(factory, "synthetic", lambda root: write_store(root / "store", 80, 0)) / "store"


if __name__ == "__main__":
    write_store(Path(sys.argv[1]), *(int(a) for a in sys.argv[2:]))
