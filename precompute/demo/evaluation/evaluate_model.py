"""What the demo's model says of scenes and images that it has not seen, beside the same held against others."""

import re
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from precompute.demo.drawing import draw
from precompute.demo.scenes import COLOURS, OBJECTS, Scene, pair_is_held_out, plural, scenes_from
from precompute.demo.training.adapter_data import easy_vqa
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.utils.command_line import CommandOptions, Count, Seed, Texts


class DemoEvaluation(CommandOptions):
    """Measure the demo's model and SAE-V on scenes that neither has seen."""

    model: Path = Path("demo/model")
    """The demo's model."""
    sae: Path = Path("demo/sae")
    """Its SAE-V; without one only the model is measured."""
    out: Path = Path("docs/results/demo-evaluation.json")
    """File for the figures."""
    only: Texts = Field(default_factory=list)
    """Parts to measure again: captions, vqa, words, quality; default: all."""
    n_captions: Count = 200
    """Scenes to caption."""
    n_vqa: Count = 300
    """Images of easy-VQA to ask about."""
    n_each_word: Count = 80
    """Captions that hold each of the thirty words, at least."""
    seed: Seed = 0
    """Seed of every random choice."""


def ratio(hits: int, n: int) -> dict[str, Any]:
    return {"value": round(hits / max(n, 1), 4), "hits": hits, "n": n}


# ---- captions


@torch.inference_mode()
def write_captions(mllm: Mllm, scenes: list[Scene]) -> list[str]:
    """Greedy captions, at most 24 tokens."""
    texts: list[str] = []
    for i in range(0, len(scenes), 16):
        batch = mllm.prepare([Pair("", [draw(s)]) for s in scenes[i : i + 16]], generate=True)
        ids = mllm.model.generate(**batch.inputs, max_new_tokens=24, do_sample=False)
        new_ids = ids[:, batch.inputs["input_ids"].shape[1] :]
        texts += mllm.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    return texts


def object_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """Objects of the scene that the caption names, in the singular or the plural; and how many there are."""
    return count_nouns(caption, {e.noun for e in scene.entities if e.colour is None})


def redrawn_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """The same for the objects of which there is a second drawing."""
    return count_nouns(caption, {e.noun for e in scene.entities if len(OBJECTS.get(e.noun, ())) > 1})


def count_nouns(caption: str, nouns: set[str]) -> tuple[int, int]:
    words = set(re.findall(r"[a-z]+", caption.lower()))
    return sum(bool({n, plural(n)} & words) for n in nouns), len(nouns)


def colour_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """Coloured shapes whose colour stands right before the shape's name."""
    shapes = {(e.colour, e.noun) for e in scene.entities if e.colour}
    hits = sum(bool(re.search(rf"\b{c} ({n}|{plural(n)})\b", caption.lower())) for c, n in shapes)
    return hits, len(shapes)


def holds_unseen_pair(scene: Scene) -> bool:
    """Whether two of its objects never stand together in training."""
    nouns = sorted({e.noun for e in scene.entities if e.colour is None})
    return any(pair_is_held_out(a, b) for a, b in combinations(nouns, 2))


def captions(mllm: Mllm, o: DemoEvaluation) -> dict[str, Any]:
    """Object recall on combinations of objects that training never showed and on drawings that it never showed,
    and the colour of shapes; beside each, the same captions held against the scenes of other images."""
    unseen_scenes = (s for s in scenes_from("validation") if holds_unseen_pair(s))
    with_second = islice(scenes_from("validation", 400_000, second=True), 2 * o.n_captions)
    second_scenes = (s for s in with_second if any(len(OBJECTS.get(e.noun, ())) > 1 for e in s.entities))
    shape_scenes = (s for s in scenes_from("validation") if any(e.colour for e in s.entities))
    result: dict[str, Any] = {}
    for name, candidates, count in (
        ("object_recall_unseen_pairs", unseen_scenes, object_hits),
        ("object_recall_unseen_drawings", second_scenes, redrawn_hits),
        ("shape_colour", shape_scenes, colour_hits),
    ):
        scenes = list(islice(candidates, o.n_captions))
        replies = write_captions(mllm, scenes)
        for kind, texts in (("", replies), ("_shuffled", replies[7:] + replies[:7])):
            pairs = [count(t, s) for t, s in zip(texts, scenes, strict=True)]
            result[name + kind] = ratio(sum(h for h, _ in pairs), sum(n for _, n in pairs))
        result[name + "_examples"] = [[s.caption, t] for s, t in zip(scenes[:5], replies, strict=False)]
    return result


@torch.inference_mode()
def answers(mllm: Mllm, pairs: list[Pair]) -> list[str]:
    """The likeliest next token after each pair, over the whole vocabulary."""
    texts: list[str] = []
    for i in range(0, len(pairs), 16):
        batch = mllm.prepare(pairs[i : i + 16], generate=True)
        logits = mllm.model(**mllm.causal_inputs(batch), use_cache=False).logits
        last = torch.from_numpy(batch.length_b) - 1
        texts += [mllm.token_text(int(t)).strip() for t in logits[torch.arange(len(last)), last].argmax(-1)]
    return texts


def vqa(mllm: Mllm, o: DemoEvaluation) -> dict[str, Any]:
    """easy-VQA's held-out images, free next token; beside it the answers for other images."""
    images, questions = easy_vqa("test", o.n_vqa)
    rng = np.random.default_rng(o.seed)
    items_of: dict[str, list[tuple[Pair, str]]] = {"shape": [], "colour": []}
    for image, qas in zip(images, questions, strict=True):
        for kind, truths in (("shape", ("circle", "rectangle", "triangle")), ("colour", tuple(COLOURS))):
            known_pairs = [(q, a) for q, a in qas if a in truths]
            if known_pairs:
                question, answer = known_pairs[rng.integers(len(known_pairs))]
                items_of[kind].append((Pair(question, [image]), answer))
    result = {}
    for kind, items in items_of.items():
        items = items[:200]
        crossed_pairs = [Pair(p.text, q.images) for (p, _), (q, _) in zip(items, items[5:] + items[:5], strict=True)]
        for name, pairs in ((f"easy_vqa_{kind}", [p for p, _ in items]), (f"easy_vqa_{kind}_shuffled", crossed_pairs)):
            hits = sum(reply == truth for reply, (_, truth) in zip(answers(mllm, pairs), items, strict=True))
            result[name] = ratio(hits, len(items))
    return result
