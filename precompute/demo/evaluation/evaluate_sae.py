"""What the demo's SAE-V is worth: features for the thirty words, answers turned by steering, quality."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.demo.drawing import draw
from precompute.demo.evaluation.evaluate_model import Change, Options, answers, changing, ratio
from precompute.demo.scenes import COLOURS, Scene, make_scene
from precompute.demo.training.train_sae import Options as SaeOptions
from precompute.demo.training.train_sae import Tokens, gather, not_sinks
from precompute.demo.training.words import ALL_WORDS, WORDS, f1, scenes_with_words
from precompute.live.steer import Push, Steer
from precompute.model.mllm import IMAGE, TEXT, Mllm, Pair
from precompute.sae.sae import SaeV

# ---- the thirty words

N_CANDIDATES = 6
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


