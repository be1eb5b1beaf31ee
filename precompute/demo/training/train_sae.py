"""Trains the demo's SAE-V through SAELens' own trainer.

    python -m precompute.demo.training.train_sae --model demo/model --out precompute/demo/weights/sae

Activations come from train scenes with their captions, from captions alone and from plain text that the language
model wrote before it was changed: image and text tokens alike, special tokens and sinks left out. Layer and λ are
chosen by a short sweep on train scenes; each run's figures are written as it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from precompute.demo.assemble import base_lm
from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene, make_scene
from precompute.demo.training.adapter_data import plain_texts
from precompute.demo.training.words import ALL_WORDS, F1, f1, patches_of
from precompute.model.mllm import IMAGE, TEXT, Mllm, Pair
from precompute.training.train import make_sae, make_trainer
from precompute.utils.arguments import parsed


@dataclass
class Options:
    """What a run depends on; every field is an option of the command."""

    model: Path = Path("demo/model")
    out: Path = Path("precompute/demo/weights/sae")
    log: Path = Path("docs/results/demo-sae-training.json")
    layers: str = "10,15"
    l1: str = "5"
    n_scenes: int = 1500
    n_captions: int = 1500
    n_plain: int = 10
    """Texts for each of the 24 beginnings of plain text."""
    expansion: int = 8
    lr: float = 1e-3
    batch_size: int = 1024
    sweep_steps: int = 250
    steps: int = 900
    sink_multiple: float = 4.0
    seed: int = 0


class Tokens(NamedTuple):
    """Non-special tokens: h per layer, and what each is."""

    hidden: dict[int, Tensor]  # layer → (t, d) float32
    modality_t: np.ndarray
    label_tw: np.ndarray  # (t, W) bool: the word is said, or shown, here


@torch.inference_mode()
def gather(
    mllm: Mllm, scenes: Sequence[Scene | str], layers: list[int], with_images: bool, o: Options
) -> Tokens:
    """One forward pass over scenes (or plain texts), every asked layer caught on the way."""
    caught: dict[int, Tensor] = {}
    hooks = [
        mllm.decoder.layers[layer].register_forward_hook(
            lambda _m, _i, out, layer=layer: caught.__setitem__(
                layer, out[0] if isinstance(out, tuple) else out
            )
        )
        for layer in layers
    ]
    hidden: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    modalities, labels = [], []
    for i in range(0, len(scenes), 16):
        chunk = scenes[i : i + 16]
        batch = mllm.prepare([shown(s, with_images) for s in chunk])
        mllm.hidden(batch)
        kept_bs = (batch.modality_bs == TEXT) | (batch.modality_bs == IMAGE)
        for layer in layers:
            hidden[layer].append(caught[layer].float()[torch.from_numpy(kept_bs)].clone())
        ids_bs = batch.inputs["input_ids"].numpy()
        for b, scene in enumerate(chunk):
            here = kept_bs[b]
            modality = batch.modality_bs[b][here]
            label = np.zeros((len(modality), len(ALL_WORDS)), dtype=bool)
            tokens = [mllm.token_text(int(t)).strip() for t in ids_bs[b][here][modality == TEXT]]
            for w, word in enumerate(ALL_WORDS):
                label[modality == TEXT, w] = [t == word for t in tokens]
                if with_images and isinstance(scene, Scene):
                    label[modality == IMAGE, w] = patches_of(scene, word)
            modalities.append(modality)
            labels.append(label)
    for hook in hooks:
        hook.remove()
    return Tokens(
        {layer: torch.cat(parts) for layer, parts in hidden.items()},
        np.concatenate(modalities),
        np.concatenate(labels),
    )


def shown(scene: Scene | str, with_image: bool) -> Pair:
    if isinstance(scene, str):
        return Pair(scene)
    return Pair(scene.caption, [draw(scene)] if with_image else [])


def written_before(n_each: int) -> list[str]:
    """Short texts by the unchanged language model."""
    tokenizer = AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False)
    lm = AutoModelForCausalLM.from_pretrained(base_lm(), dtype=torch.bfloat16, trust_remote_code=False)
    return tokenizer.batch_decode(plain_texts(lm, tokenizer, n_each), skip_special_tokens=True)


def not_sinks(hidden_td: Tensor, modality_t: np.ndarray, multiple: float) -> Tensor:
    """(t,) bool: norm at most `multiple` times the median norm of the token's modality."""
    norm_t = hidden_td.norm(dim=1)
    keep = torch.ones(len(norm_t), dtype=torch.bool)
    for code in (TEXT, IMAGE):
        of_code = torch.from_numpy(modality_t == code)
        if of_code.any():
            keep &= ~of_code | (norm_t <= multiple * norm_t[of_code].median())
    return keep


def batches(hidden_td: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Endless shuffled batches."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(hidden_td), generator=generator)
        for i in range(0, len(order) - size + 1, size):
            yield hidden_td[order[i : i + size]]


def train(hidden_td: Tensor, layer: int, l1: float, steps: int, o: Options) -> Any:
    """SAELens' `standard` SAE: ReLU + L1 on z·‖W_dec‖, λ reached linearly, input scale folded in last."""
    torch.manual_seed(o.seed)
    d = hidden_td.shape[1]
    sae = make_sae(
        "standard",
        d,
        d * o.expansion,
        hook=f"model.language_model.layers.{layer}",
        model_name="saevx-demo (SmolLM2-135M-Instruct + EfficientNet-Lite0)",
        l1_coefficient=l1,
        l1_warm_up_steps=steps // 5,
    )
    trainer = make_trainer(
        sae,
        batches(hidden_td, o.batch_size, o.seed),
        steps=steps,
        batch_size=o.batch_size,
        lr=o.lr,
        lr_warm_up_steps=min(50, steps // 10),
        lr_decay_steps=steps // 5,
        dead_window=200,
        n_batches_for_norm_estimate=20,
    )
    return trainer.fit()


@torch.inference_mode()
def figures(sae: Any, tokens: Tokens, layer: int, keep: Tensor) -> dict[str, Any]:
    """FVU, L0 and dead features per modality, and the thirty words' best min(F1 on tokens, F1 on patches)."""
    hidden_td = tokens.hidden[layer][keep]
    modality_t, label_tw = tokens.modality_t[keep.numpy()], tokens.label_tw[keep.numpy()]
    out: dict[str, Any] = {}
    f1s = []
    alive = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for name, code in (("text", TEXT), ("image", IMAGE)):
        rows = np.flatnonzero(modality_t == code)
        sse = total = count = 0.0
        fired_f = torch.zeros(sae.cfg.d_sae)
        hits_wf = torch.zeros(len(ALL_WORDS), sae.cfg.d_sae)
        mean = hidden_td[rows].mean(0)
        for i in range(0, len(rows), 4096):
            h = hidden_td[rows[i : i + 4096]]
            z = sae.encode(h)
            sse += float((h - sae.decode(z)).square().sum())
            total += float((h - mean).square().sum())
            active = (z > 0).float()
            count += float(active.sum())
            fired_f += active.sum(0)
            hits_wf += torch.from_numpy(label_tw[rows[i : i + 4096]].astype(np.float32)).T @ active
        out[name] = {
            "fvu": sse / total,
            "l0": count / len(rows),
            "dead": int((fired_f == 0).sum()),
            "tokens": len(rows),
        }
        f1s.append(f1(hits_wf.double().numpy(), fired_f.double().numpy(), label_tw[rows].sum(0)))
        alive |= fired_f > 0
    best_w = F1(*f1s).both_wf.max(axis=1)
    out["dead"] = int((~alive).sum())
    out["words"] = {w: round(float(v), 3) for w, v in zip(ALL_WORDS, best_w, strict=True)}
    out["mean_word_f1"] = float(best_w.mean())
    return out


def main() -> None:
    o = parsed(Options, __doc__)
    began = time.monotonic()
    layers = [int(x) for x in o.layers.split(",")]
    mllm = Mllm.load(o.model, layer=max(layers), dtype="float32")
    pairs = gather(mllm, [make_scene("train", i) for i in range(o.n_scenes)], layers, True, o)
    torch.manual_seed(o.seed)
    alone = [make_scene("train", i) for i in range(o.n_scenes, o.n_scenes + o.n_captions)]
    texts: list[Scene | str] = [*alone, *written_before(o.n_plain)]
    captions = gather(mllm, texts, layers, False, o)
    log: dict[str, Any] = {"options": {k: str(v) for k, v in vars(o).items()}, "runs": []}

    def record(what: str, layer: int, l1: float, steps: int, sae: Any) -> dict[str, Any]:
        keep = not_sinks(pairs.hidden[layer], pairs.modality_t, o.sink_multiple)
        run = {"run": what, "layer": layer, "l1": l1, "steps": steps, **figures(sae, pairs, layer, keep)}
        run["minutes"] = round((time.monotonic() - began) / 60, 1)
        log["runs"].append(run)
        o.log.parent.mkdir(parents=True, exist_ok=True)
        o.log.write_text(json.dumps(log, indent=1) + "\n")
        print(json.dumps({k: v for k, v in run.items() if k != "words"}), flush=True)
        return run

    def data(layer: int) -> Tensor:
        keep = not_sinks(pairs.hidden[layer], pairs.modality_t, o.sink_multiple)
        keep_alone = not_sinks(captions.hidden[layer], captions.modality_t, o.sink_multiple)
        return torch.cat([pairs.hidden[layer][keep], captions.hidden[layer][keep_alone]])

    choices = [(layer, float(l1)) for layer in layers for l1 in o.l1.split(",")]
    if len(choices) > 1:
        runs = [
            (
                record("sweep", layer, l1, o.sweep_steps, train(data(layer), layer, l1, o.sweep_steps, o)),
                layer,
                l1,
            )
            for layer, l1 in choices
        ]
        _, layer, l1 = max(runs, key=lambda r: r[0]["mean_word_f1"])
    else:
        layer, l1 = choices[0]
    sae = train(data(layer), layer, l1, o.steps, o)
    record("final", layer, l1, o.steps, sae)
    save(sae, o.out)


def save(sae: Any, folder: Path) -> None:
    """A SAELens inference folder in bfloat16."""
    sae.to(torch.bfloat16)
    sae.cfg.dtype = "bfloat16"
    sae.cfg.normalize_activations = "none"  # the trainer has folded the scale in
    sae.save_inference_model(str(folder))


if __name__ == "__main__":
    main()
