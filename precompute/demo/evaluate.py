"""Measures the demo's model and SAE-V on scenes that neither has seen.

    python -m precompute.demo.evaluate --model demo/model --sae demo/sae

Each part writes its figures to docs/results/demo-evaluation.json as it ends; `--only` reruns one.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES, Scene, draw, make_scene, pair_is_held_out, plural
from precompute.demo.train_adapter import easy_vqa
from precompute.demo.train_sae import Options as SaeOptions
from precompute.demo.train_sae import Tokens, gather, not_sinks
from precompute.demo.words import ALL_WORDS, WORDS, f1, scenes_with_words
from precompute.model import IMAGE, TEXT, Mllm, Pair
from precompute.sae import SaeV
from precompute.steer import Push, Steer

Change = Callable[[Tensor, Tensor], Tensor]
"""(h_td, modality_t) → h_td."""


@dataclass
class Options:
    """What the measurements depend on; every field is an option of the command."""

    model: Path = Path("demo/model")
    sae: Path = Path("demo/sae")
    out: Path = Path("docs/results/demo-evaluation.json")
    only: str = ""
    n_captions: int = 200
    n_vqa: int = 300
    n_each_word: int = 80
    n_steer: int = 30
    n_tuning: int = 8
    seed: int = 0


def ratio(hits: int, n: int) -> dict[str, Any]:
    return {"value": round(hits / max(n, 1), 4), "hits": hits, "n": n}


# ---- captions


@torch.inference_mode()
def write_captions(mllm: Mllm, scenes: list[Scene]) -> list[str]:
    """Greedy captions, at most 24 tokens."""
    out: list[str] = []
    for i in range(0, len(scenes), 16):
        batch = mllm.prepare([Pair("", [draw(s)]) for s in scenes[i : i + 16]], generate=True)
        ids = mllm.model.generate(**batch.inputs, max_new_tokens=24, do_sample=False)
        new = ids[:, batch.inputs["input_ids"].shape[1] :]
        out += mllm.tokenizer.batch_decode(new, skip_special_tokens=True)
    return out


def object_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """Objects of the scene that the caption names, in the singular or the plural; and how many there are."""
    return named(caption, {e.noun for e in scene.entities if e.colour is None})


def redrawn_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """The same for the objects of which there is a second drawing."""
    return named(caption, {e.noun for e in scene.entities if len(OBJECTS.get(e.noun, ())) > 1})


def named(caption: str, nouns: set[str]) -> tuple[int, int]:
    said = set(re.findall(r"[a-z]+", caption.lower()))
    return sum(bool({n, plural(n)} & said) for n in nouns), len(nouns)


def colour_hits(caption: str, scene: Scene) -> tuple[int, int]:
    """Coloured shapes whose colour stands right before the shape's name."""
    shapes = {(e.colour, e.noun) for e in scene.entities if e.colour}
    hits = sum(bool(re.search(rf"\b{c} ({n}|{plural(n)})\b", caption.lower())) for c, n in shapes)
    return hits, len(shapes)


def captions(mllm: Mllm, o: Options) -> dict[str, Any]:
    """Object recall on combinations of objects that training never showed and on drawings that it never showed,
    and the colour of shapes; beside each, the same captions held against the scenes of other pictures."""
    unseen: list[Scene] = []
    shaped: list[Scene] = []
    index = 0
    while len(unseen) < o.n_captions or len(shaped) < o.n_captions:
        scene = make_scene("validation", index)
        index += 1
        nouns = sorted({e.noun for e in scene.entities if e.colour is None})
        if any(pair_is_held_out(a, b) for i, a in enumerate(nouns) for b in nouns[i + 1 :]):
            unseen.append(scene)
        if any(e.colour for e in scene.entities):
            shaped.append(scene)
    redrawn = [make_scene("validation", 400_000 + i, second=True) for i in range(2 * o.n_captions)]
    redrawn = [s for s in redrawn if any(len(OBJECTS.get(e.noun, ())) > 1 for e in s.entities)]
    out: dict[str, Any] = {}
    for name, scenes, count in (
        ("object_recall_unseen_pairs", unseen[: o.n_captions], object_hits),
        ("object_recall_unseen_drawings", redrawn[: o.n_captions], redrawn_hits),
        ("shape_colour", shaped[: o.n_captions], colour_hits),
    ):
        written = write_captions(mllm, scenes)
        for kind, texts in (("", written), ("_shuffled", written[7:] + written[:7])):
            pairs = [count(t, s) for t, s in zip(texts, scenes, strict=True)]
            out[name + kind] = ratio(sum(h for h, _ in pairs), sum(n for _, n in pairs))
        out[name + "_examples"] = [[s.caption, t] for s, t in zip(scenes[:5], written, strict=False)]
    return out


@contextmanager
def changing(mllm: Mllm, modality_bs: NDArray[np.uint8], change: Change | None) -> Iterator[None]:
    """While open, the residuals after layer L of text and image tokens go through `change`."""
    own_bs = torch.from_numpy((modality_bs == TEXT) | (modality_bs == IMAGE))
    modality_t = torch.from_numpy(modality_bs)[own_bs]

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        assert change is not None
        h_bsd = (output[0] if isinstance(output, tuple) else output).clone()
        h_bsd[own_bs] = change(h_bsd[own_bs], modality_t)
        return (h_bsd, *output[1:]) if isinstance(output, tuple) else h_bsd

    handle = mllm.decoder_layer().register_forward_hook(hook) if change is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


@torch.inference_mode()
def answers(mllm: Mllm, pairs: list[Pair], change: Change | None = None) -> list[str]:
    """The likeliest next token after each pair, over the whole vocabulary, with `change` at layer L."""
    out: list[str] = []
    for i in range(0, len(pairs), 16):
        batch = mllm.prepare(pairs[i : i + 16], generate=True)
        inputs = {k: v for k, v in batch.inputs.items() if k != "attention_mask"}
        with changing(mllm, batch.modality_bs, change):
            logits = mllm.model(**inputs, use_cache=False).logits
        last = torch.from_numpy(batch.length_b) - 1
        out += [mllm.token_text(int(t)).strip() for t in logits[torch.arange(len(last)), last].argmax(-1)]
    return out


def vqa(mllm: Mllm, o: Options) -> dict[str, Any]:
    """easy-VQA's held-out pictures, free next token; beside it the answers for other pictures."""
    images, questions = easy_vqa("test", o.n_vqa)
    rng = np.random.default_rng(o.seed)
    asked: dict[str, list[tuple[Pair, str]]] = {"shape": [], "colour": []}
    for image, qas in zip(images, questions, strict=True):
        for kind, truths in (("shape", ("circle", "rectangle", "triangle")), ("colour", tuple(COLOURS))):
            fitting = [(q, a) for q, a in qas if a in truths]
            if fitting:
                question, answer = fitting[rng.integers(len(fitting))]
                asked[kind].append((Pair(question, [image]), answer))
    out = {}
    for kind, items in asked.items():
        items = items[:200]
        said = answers(mllm, [p for p, _ in items])
        truth = [a for _, a in items]
        others = [Pair(p.text, q.images) for (p, _), (q, _) in zip(items, items[5:] + items[:5], strict=True)]
        out[f"easy_vqa_{kind}"] = ratio(sum(a == b for a, b in zip(said, truth, strict=True)), len(items))
        wrong = answers(mllm, others)
        out[f"easy_vqa_{kind}_shuffled"] = ratio(
            sum(a == b for a, b in zip(wrong, truth, strict=True)), len(items)
        )
    return out


# ---- the thirty words

N_CANDIDATES = 4
"""Features per word that steering may choose from: the best on the word's tokens."""


@torch.inference_mode()
def active_counts(sae: SaeV, hidden_td: Tensor, label_tw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(W, F) F1 of each feature for each word over these tokens."""
    hits, fired = torch.zeros(label_tw.shape[1], sae.n_features), torch.zeros(sae.n_features)
    for i in range(0, len(hidden_td), 4096):
        active = (sae.encode(hidden_td[i : i + 4096]) > 0).float()
        hits += torch.from_numpy(label_tw[i : i + 4096].astype(np.float32)).T @ active
        fired += active.sum(0)
    return f1(hits.double().numpy(), fired.double().numpy(), label_tw.sum(0))


def top_precision(
    value_t: NDArray[np.floating], scene_t: NDArray[np.int64], here_t: NDArray[np.bool_], n: int = 16
) -> tuple[float, NDArray[np.int64]]:
    """Share of the n strongest patches, one a scene, that show the word; and their places."""
    order = np.argsort(-value_t, kind="stable")
    order = order[value_t[order] > 0]
    _, first = np.unique(scene_t[order], return_index=True)
    best = order[np.sort(first)][:n]
    return (float(here_t[best].mean()) if len(best) == n else 0.0), best


def words(mllm: Mllm, sae: SaeV, o: Options) -> dict[str, Any]:
    """The feature with the largest min(F1 on tokens, on patches) on half of the scenes, tested on the rest.

    It passes when it is active on at least half of the word's tokens, and its top 16 patches, from 16
    pictures, show the word with precision ≥ .7 and above the 99th percentile of the same choice with the
    scenes' truth exchanged.
    """
    scenes = scenes_with_words("validation", o.n_each_word)
    options = SaeOptions(model=o.model)
    halves: list[Tokens] = [gather(mllm, scenes[i::2], [mllm.layer], True, options) for i in (0, 1)]
    kept = []
    for half, n in zip(halves, (len(scenes[0::2]), len(scenes[1::2])), strict=True):
        keep = not_sinks(half.hidden[mllm.layer], half.modality_t, options.sink_multiple).numpy()
        scene_t = np.cumsum(np.r_[True, (half.modality_t[1:] == IMAGE) & (half.modality_t[:-1] == TEXT)]) - 1
        assert scene_t[-1] + 1 == n, "each scene's tokens are its image's, then its caption's"
        kept.append(
            (half.hidden[mllm.layer][keep], half.modality_t[keep], half.label_tw[keep], scene_t[keep])
        )
    (h1, m1, l1, _), (h2, m2, l2, s2) = kept
    f1_text = active_counts(sae, h1[m1 == TEXT], l1[m1 == TEXT])
    f1_image = active_counts(sae, h1[m1 == IMAGE], l1[m1 == IMAGE])
    best_w = np.minimum(f1_text, f1_image).argmax(axis=1)
    text2, image2 = h2[m2 == TEXT], h2[m2 == IMAGE]
    z_text = torch.cat(
        [sae.encode(text2[i : i + 4096])[:, best_w] for i in range(0, len(text2), 4096)]
    ).numpy()
    z_image = torch.cat(
        [sae.encode(image2[i : i + 4096])[:, best_w] for i in range(0, len(image2), 4096)]
    ).numpy()
    label_text, label_image, scene_t = l2[m2 == TEXT], l2[m2 == IMAGE], s2[m2 == IMAGE]
    patch_t = np.concatenate([np.arange(n) for n in np.bincount(scene_t) if n])
    truth = np.zeros((scene_t.max() + 1, patch_t.max() + 1, len(ALL_WORDS)), dtype=bool)
    truth[scene_t, patch_t] = label_image
    rng = np.random.default_rng(o.seed)
    image1, labels1 = h1[m1 == IMAGE], l1[m1 == IMAGE]
    rows = {}
    for w, word in enumerate(ALL_WORDS):
        token_rate = float((z_text[:, w] > 0)[label_text[:, w]].mean())
        precision, best = top_precision(z_image[:, w], scene_t, label_image[:, w])
        chance = []
        for _ in range(500):
            other = rng.permutation(len(truth))
            chance.append(truth[other[scene_t[best]], patch_t[best], w].mean() if len(best) else 0.0)
        p99 = float(np.percentile(chance, 99))
        here1 = torch.from_numpy(labels1[:, w])
        direction = image1[here1].mean(0) - image1[~here1].mean(0)
        raw, _ = top_precision((image2 @ direction).numpy() + 1e6, scene_t, label_image[:, w])
        by_text = np.argsort(-f1_text[w], kind="stable")[:N_CANDIDATES].tolist()
        rows[word] = {
            "feature": int(best_w[w]),
            "candidates": sorted({int(best_w[w]), *by_text}),
            "f1_text": round(float(f1_text[w, best_w[w]]), 3),
            "f1_image": round(float(f1_image[w, best_w[w]]), 3),
            "token_rate": round(token_rate, 3),
            "precision": round(precision, 3),
            "chance_p99": round(p99, 3),
            "box_share": round(float(label_image[:, w].mean()), 4),
            "raw_direction_precision": round(raw, 3),
            "passes": token_rate >= 0.5 and precision >= 0.7 and precision > p99,
        }
    return {"words": rows, "words_passed": sum(r["passes"] for r in rows.values()), "n_scenes": len(scenes)}


# ---- steering


def apply(steer: Steer, hidden_td: Tensor, modality_t: Tensor) -> Tensor:
    return steer(hidden_td)


STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0)


def steering(mllm: Mllm, sae: SaeV, candidates: dict[str, list[int]], o: Options) -> dict[str, Any]:
    """Does "what colour / shape" get the target as its answer? 30 held-out scenes of one shape each; the features
    that fire on the target's word are added together, on every text and image token. Beside it no steering and five
    random sets of as many features whose Δ is as long. Each word's strength is the one that turns most answers on
    other scenes.

    Args:
        candidates: features that fire on the word, per word.
    """
    singles: list[Scene] = []
    index = 100_000
    while len(singles) < o.n_steer + o.n_tuning:
        scene = make_scene("validation", index)
        index += 1
        if len(scene.entities) == 1 and scene.entities[0].colour:
            singles.append(scene)
    test, tuning = singles[: o.n_steer], singles[o.n_steer :]
    p999 = typical_maximum(mllm, sae, sorted({k for some in candidates.values() for k in some}))

    def hits(scenes: Sequence[Scene], target: str, unit: dict[int, float], strength: float) -> int:
        pushes = [Push(k, "add", strength, size) for k, size in unit.items()]
        change = partial(apply, Steer(sae, pushes))
        return answers(mllm, [asked(s, target) for s in scenes], change).count(target)

    chosen: dict[str, dict[str, Any]] = {}
    units: dict[str, dict[int, float]] = {}
    for word in [*WORDS["colours"], *WORDS["shapes"]]:
        fitting = [s for s in tuning if could_become(s, word)]
        units[word] = {k: p999[k] for k in candidates[word] if p999[k] > 0}
        tried = {strength: hits(fitting, word, units[word], strength) for strength in STRENGTHS}
        strength = max(tried, key=lambda s: (tried[s], -s))
        chosen[word] = {
            "features": list(units[word]), "strength": strength, "tuning_hits": tried[strength], "of": len(fitting)
        }  # fmt: skip
    rng = np.random.default_rng(o.seed)
    found = controls = none = 0
    examples = []
    for i, scene in enumerate(test):
        target = str(rng.choice([w for w in WORDS["colours" if i % 2 else "shapes"] if could_become(scene, w)]))
        strength = float(chosen[target]["strength"])
        hit = hits([scene], target, units[target], strength)
        found += hit
        none += hits([scene], target, units[target], 0.0)
        for _ in range(5):
            controls += hits([scene], target, as_long(sae, units[target], rng), strength)
        examples.append([scene.entities[0].words, target, bool(hit)])
    return {
        "steering": ratio(found, len(test)),
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


def asked(scene: Scene, target: str) -> Pair:
    is_colour = target in COLOURS
    question = f"What color is the {scene.entities[0].noun}?" if is_colour else "What shape is in the picture?"
    return Pair(question, [draw(scene)])


@torch.inference_mode()
def typical_maximum(mllm: Mllm, sae: SaeV, features: list[int]) -> dict[int, float]:
    """99.9th percentile of the positive activations over train scenes, the unit of strength."""
    tokens = gather(mllm, [make_scene("train", i) for i in range(300)], [mllm.layer], True, SaeOptions())
    hidden = tokens.hidden[mllm.layer]
    keep = not_sinks(hidden, tokens.modality_t, 4.0)
    z = torch.cat([sae.encode(h)[:, features] for h in hidden[keep].split(4096)])
    return {
        k: float(np.percentile(v[v > 0].numpy(), 99.9)) if (v > 0).any() else 0.0
        for k, v in zip(features, z.T, strict=True)
    }


# ---- quality of the SAE-V


def quality(mllm: Mllm, sae: SaeV, o: Options) -> dict[str, Any]:
    """FVU, L0, dead features and loss recovered on validation scenes, per modality."""
    scenes = [make_scene("validation", 50_000 + i) for i in range(200)]
    tokens = gather(mllm, scenes, [mllm.layer], True, SaeOptions())
    hidden = tokens.hidden[mllm.layer]
    keep = not_sinks(hidden, tokens.modality_t, 4.0)
    h, modality = hidden[keep], tokens.modality_t[keep.numpy()]
    out: dict[str, Any] = {}
    fired = torch.zeros(sae.n_features, dtype=torch.bool)
    for name, code in (("text", TEXT), ("image", IMAGE)):
        x = h[modality == code]
        z = [sae.encode(part) for part in x.split(4096)]
        error = sum(float((p - sae.decode(a)).square().sum()) for p, a in zip(x.split(4096), z, strict=True))
        l0 = sum(float((a > 0).sum()) for a in z) / len(x)
        on = torch.stack([(a > 0).any(0) for a in z]).any(0)
        fired |= on
        out[name] = {
            "fvu": round(error / float((x - x.mean(0)).square().sum()), 4),
            "l0": round(l0, 1),
            "dead": int((~on).sum()),
        }
    out["dead"] = int((~fired).sum())
    out["n_features"] = sae.n_features
    pairs = [Pair(s.caption, [draw(s)]) for s in scenes]
    losses = {
        name: caption_loss(mllm, pairs, change)
        for name, change in {
            "original": None,
            "zero": lambda h, m: torch.zeros_like(h),
            "patched": lambda h, m: patched(sae, h, m, (TEXT, IMAGE)),
            "patched_text": lambda h, m: patched(sae, h, m, (TEXT,)),
            "patched_image": lambda h, m: patched(sae, h, m, (IMAGE,)),
        }.items()
    }
    gap = losses["zero"] - losses["original"]
    out["cross_entropy"] = {k: round(v, 4) for k, v in losses.items()}
    out["loss_recovered"] = {
        k: round((losses["zero"] - losses[k]) / gap, 4) for k in ("patched", "patched_text", "patched_image")
    }
    return {"sae_quality": out}


def patched(sae: SaeV, h_td: Tensor, modality_t: Tensor, which: tuple[int, ...]) -> Tensor:
    """ĥ in place of h on tokens of these modalities; sinks stay."""
    keep = not_sinks(h_td.float(), modality_t.numpy(), 4.0) & torch.isin(modality_t, torch.tensor(which))
    out = h_td.clone()
    out[keep] = sae.decode(sae.encode(h_td[keep])).to(h_td)
    return out


@torch.inference_mode()
def caption_loss(mllm: Mllm, pairs: list[Pair], change: Change | None) -> float:
    """Mean cross-entropy in nats over the captions' tokens."""
    total = n = 0.0
    for i in range(0, len(pairs), 16):
        batch = mllm.prepare(pairs[i : i + 16])
        inputs = {k: v for k, v in batch.inputs.items() if k != "attention_mask"}
        with changing(mllm, batch.modality_bs, change):
            logits = mllm.model(**inputs, use_cache=False).logits.log_softmax(-1)
        target = torch.from_numpy(batch.modality_bs[:, 1:] == TEXT)
        picked = logits[:, :-1].gather(-1, batch.inputs["input_ids"][:, 1:, None])[..., 0]
        total -= float(picked[target].sum())
        n += int(target.sum())
    return total / n


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for f in fields(Options):
        kind = Path if isinstance(f.default, Path) else type(f.default)
        parser.add_argument("--" + f.name.replace("_", "-"), type=kind, default=f.default)
    o = Options(**vars(parser.parse_args()))
    found: dict[str, Any] = json.loads(o.out.read_text()) if o.out.exists() else {}
    found["about"] = {
        "command": "python -m precompute.demo.evaluate",
        "options": {k: str(v) for k, v in vars(o).items() if k not in ("model", "sae", "out", "only")},
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "n_objects": len(OBJECTS),
        "n_shapes": len(SHAPES),
    }

    def part(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        if o.only and name not in o.only.split(","):
            return
        began = time.monotonic()
        found.update(measure())
        print(name, f"{time.monotonic() - began:.0f} s", flush=True)
        o.out.parent.mkdir(parents=True, exist_ok=True)
        o.out.write_text(json.dumps(found, indent=1) + "\n")

    sae = SaeV.load(o.sae) if o.sae.exists() else None
    mllm = Mllm.load(o.model, layer=sae.layer if sae else 10, full=True, dtype="float32")
    part("captions", lambda: captions(mllm, o))
    part("vqa", lambda: vqa(mllm, o))
    if sae is not None:
        part("words", lambda: words(mllm, sae, o))
        part("quality", lambda: quality(mllm, sae, o))
        part("steering", lambda: steering(mllm, sae, {w: r["candidates"] for w, r in found["words"].items()}, o))


if __name__ == "__main__":
    main()
