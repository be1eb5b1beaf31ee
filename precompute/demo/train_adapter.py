"""Trains what ties the demo's two packages together: LLaVA's projector and a LoRA on the language model.

    python -m precompute.demo.train_adapter --out precompute/demo/weights/adapter.safetensors

The losses go to docs/results/demo-adapter-training.json as they come. `--resume ADAPTER` goes on from an adapter
with other scenes, all patches shown.

Stage 0, without the language model: the projector learns to place a patch at the input embedding of what
it shows (an object's noun; a shape's noun and colour; the background's colour). Part of the agreement between
the two modalities is thereby built in, and the docs say so. Stage 1, through the language model: captions,
questions about scenes and easy-VQA pictures, and some plain text that the model wrote itself, so that it
still writes.
"""

from __future__ import annotations

import json
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from precompute.arguments import parsed
from precompute.demo.assemble import ADAPTER, LORA_SCALE, base_lm, make_processor, make_tower
from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES, SIZE, Scene, ask, draw, make_scene, write_caption

N_PATCHES, N_PLACES = 49, 14
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer, all of which get a LoRA."""
PLAIN_PROMPTS = (
    "The history of", "In the morning, she", "A good recipe for", "The main idea of",
    "When the rain stopped,", "My favourite place", "Scientists found that", "The old man walked",
    "Music is", "The city was", "Learning to", "He opened the door and", "The sun", "Children like",
    "A computer is", "Water is", "The best way to", "Long ago, there", "The teacher said", "In winter,",
    "Our solar system", "Plants need", "The river", "Friends are",
)  # fmt: skip


@dataclass
class Options:
    """What a run depends on; every field is an option of the command."""

    out: Path = ADAPTER
    log: Path = Path("docs/results/demo-adapter-training.json")
    resume: str = ""
    """Adapter to go on from, without stage 0."""
    first_scene: int = 0
    n_scenes: int = 8000
    n_easy_vqa: int = 1800
    stage0_steps: int = 500
    steps: int = 1000
    batch_size: int = 16
    n_patches: int = 24
    """Patches shown of each picture for the first 85 % of the steps, at their true positions; then all 49."""
    lora_rank: int = 8
    lora_lr: float = 1.5e-3
    projector_lr: float = 5e-4
    warm_up: int = 60
    """Steps over which both rates rise."""
    seed: int = 0


class Log:
    """What a run did, written as it goes."""

    def __init__(self, o: Options) -> None:
        self.path, self.began = o.log, time.monotonic()
        self.told: dict[str, Any] = {
            "command": "python -m precompute.demo.train_adapter",
            "options": {k: v for k, v in vars(o).items() if k not in ("out", "log", "resume")},
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "lines": [],
        }
        if o.resume and o.log.exists():
            self.told["before"] = json.loads(o.log.read_text())

    def add(self, **line: Any) -> None:
        line["seconds"] = round(time.monotonic() - self.began)
        print(json.dumps(line), flush=True)
        self.told["lines"].append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.told, indent=1) + "\n")


@dataclass
class Picture:
    """Patch features of one picture (49, 1456) and what can be said of it."""

    patches_pd: Tensor
    scene: Scene | None
    questions: list[tuple[str, str]]


def easy_vqa(split: str, n: int) -> tuple[list[Image.Image], list[list[tuple[str, str]]]]:
    """The first n pictures of easy-VQA (MIT), enlarged, with their questions and answers."""
    import easy_vqa as package

    folder = Path(str(package.__file__)).parent / "data" / split
    images = [
        Image.open(folder / "images" / f"{i}.png")
        .convert("RGB")
        .resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for i in range(n)
    ]
    questions: list[list[tuple[str, str]]] = [[] for _ in range(n)]
    for question, answer, image_id in json.loads((folder / "questions.json").read_text()):
        if image_id < n:
            questions[image_id].append((question[0].upper() + question[1:], answer))
    return images, questions


@torch.inference_mode()
def vision_features(images: Iterable[Image.Image], processor: Any, tower: nn.Module) -> Tensor:
    """(n, 49, 1456) bfloat16: the tower's patch features without their places."""
    parts = []
    rest = iter(images)
    while batch := list(islice(rest, 32)):
        pixels = processor.image_processor(batch, return_tensors="pt")["pixel_values"]
        parts.append(tower(pixels).last_hidden_state[..., :-N_PLACES].bfloat16())
    return torch.cat(parts)


def patch_words(scene: Scene, words: dict[str, int]) -> Tensor:
    """(49, n_words) 0/1: the words of what covers at least 40 % of a patch, or the background's colour."""
    label_pw = torch.zeros(N_PATCHES, len(words))
    for p in range(N_PATCHES):
        y, x = (32 * v for v in divmod(p, 7))
        cover = [
            max(0, min(e.box[2], x + 32) - max(e.box[0], x))
            * max(0, min(e.box[3], y + 32) - max(e.box[1], y))
            / 1024
            for e in scene.entities
        ]
        best = int(np.argmax(cover))
        if cover[best] >= 0.4:
            for word in (scene.entities[best].noun, scene.entities[best].colour):
                if word:
                    label_pw[p, words[word]] = 1
        elif cover[best] < 0.1:
            label_pw[p, words[scene.background]] = 1
    return label_pw


class Projector(nn.Module):
    """LLaVA's projector, reading standardised features; `exported` folds the standardisation into it."""

    def __init__(self, mean_d: Tensor, std_d: Tensor, d_model: int) -> None:
        super().__init__()
        self.mean_d, self.std_d = mean_d, std_d
        self.linear_1 = nn.Linear(len(mean_d) + N_PLACES, d_model)
        self.linear_2 = nn.Linear(d_model, d_model)
        eye = torch.eye(7)
        self.places_pd = torch.cat([eye.repeat_interleave(7, 0), eye.repeat(7, 1)], 1)

    def forward(self, patches_npd: Tensor, index_np: Tensor) -> Tensor:
        """Features (n, p, 1456) of the patches numbered index_np (n, p) → embeddings (n, p, d_model)."""
        standard = (patches_npd.float() - self.mean_d) / self.std_d
        x = torch.cat([standard, self.places_pd[index_np]], -1)
        return self.linear_2(nn.functional.gelu(self.linear_1(x)))

    def restore(self, state: dict[str, Tensor]) -> None:
        """What `exported` gave."""
        folded, n = state["linear_1.weight"].float(), len(self.mean_d)
        self.linear_1.weight.data = torch.cat([folded[:, :n] * self.std_d, folded[:, n:]], 1)
        self.linear_1.bias.data = state["linear_1.bias"].float() + folded[:, :n] @ self.mean_d
        self.linear_2.load_state_dict({k: state[f"linear_2.{k}"].float() for k in ("weight", "bias")})

    def exported(self) -> dict[str, Tensor]:
        w, n = self.linear_1.weight.detach(), len(self.mean_d)
        folded = torch.cat([w[:, :n] / self.std_d, w[:, n:]], 1)
        bias = self.linear_1.bias.detach() - folded[:, :n] @ self.mean_d
        return {
            "linear_1.weight": folded,
            "linear_1.bias": bias,
            "linear_2.weight": self.linear_2.weight.detach(),
            "linear_2.bias": self.linear_2.bias.detach(),
        }


def stage0(
    projector: Projector, pictures: list[Picture], embedding_vd: Tensor, tokenizer: Any, o: Options, log: Log
) -> None:
    """MSE to the sum of the words' embeddings plus half a cross-entropy over all words, linear decay."""
    words = {w: i for i, w in enumerate([*OBJECTS, *SHAPES, *COLOURS])}
    ids = torch.tensor([tokenizer(" " + w).input_ids[0] for w in words])
    target_wd = embedding_vd[ids]
    unit_wd = nn.functional.normalize(target_wd - target_wd.mean(0), dim=1)
    scenes = [p for p in pictures if p.scene is not None]
    labels = (
        torch.stack([patch_words(p.scene, words) for p in scenes if p.scene]).to(torch.uint8).flatten(0, 1)
    )
    features = torch.stack([p.patches_pd for p in scenes]).flatten(0, 1)
    known = labels.sum(1).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(projector.parameters(), 1.5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, o.stage0_steps)
    for step in range(o.stage0_steps):
        rows = known[torch.randint(len(known), (1024,))]
        y = labels[rows].float()
        out = projector(features[rows][:, None], (rows % N_PATCHES)[:, None])[:, 0]
        aim = (y @ target_wd) / y.sum(1, keepdim=True).sqrt()
        logits = nn.functional.normalize(out - target_wd.mean(0), dim=1) @ unit_wd.T * 20
        mse = ((out - aim) ** 2).sum(1).mean() / target_wd.norm(dim=1).mean() ** 2
        loss = mse + 0.5 * nn.functional.cross_entropy(logits, y / y.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            hit = (y[torch.arange(len(y)), logits.argmax(1)] > 0).float().mean()
            log.add(stage=0, step=step + 1, loss=round(loss.item(), 3), hit=round(hit.item(), 3))


class Sequences(ABC):
    """Endless batches of training sequences; what one is made of, `one` says."""

    def __init__(self, tokenizer: Any, o: Options) -> None:
        self.tokenizer, self.o = tokenizer, o
        self.rng = np.random.default_rng(o.seed)
        self.newline = tokenizer("\n").input_ids

    @abstractmethod
    def one(self) -> tuple[Tensor | None, list[int], list[int]]:
        """Picture, tokens that are only read, tokens that are learnt."""

    def batches(self) -> Iterator[dict[str, Tensor]]:
        step = 0
        while True:
            some = step < 0.85 * self.o.steps and not self.o.resume
            n_patches = self.o.n_patches if some else N_PATCHES
            yield self.batch(n_patches)
            step += 1

    def batch(self, n_patches: int) -> dict[str, Tensor]:
        """`<|im_start|>` + patches + newline + text; a patch keeps the position it has among all 49."""
        bos, pad = self.tokenizer.bos_token_id, self.tokenizer.pad_token_id
        rows, patches, kept = [], [], []
        for image, read, learn in (self.one() for _ in range(self.o.batch_size)):
            if image is None:
                ids, where = [bos, *learn], list(range(1 + len(learn)))
            else:
                index = np.sort(self.rng.permutation(N_PATCHES)[:n_patches])
                patches.append(image[torch.from_numpy(index)])
                kept.append(torch.from_numpy(index))
                text = [*self.newline, *read, *learn]
                ids = [bos, *[pad] * n_patches, *text]
                where = [0, *(index + 1).tolist(), *range(1 + N_PATCHES, 1 + N_PATCHES + len(text))]
            rows.append((ids, where, len(learn), image is not None))
        length = max(len(ids) for ids, *_ in rows)
        shape = (len(rows), length)
        ids_bs, label_bs = torch.full(shape, pad), torch.full(shape, -100)
        position_bs, mask_bs = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for b, (ids, where, n_learn, _) in enumerate(rows):
            ids_bs[b, : len(ids)] = torch.tensor(ids)
            position_bs[b, : len(ids)] = torch.tensor(where)
            mask_bs[b, : len(ids)] = 1
            label_bs[b, len(ids) - n_learn : len(ids)] = torch.tensor(ids[-n_learn:])
        shown = torch.tensor([b for b, row in enumerate(rows) if row[3]])
        return {
            "ids": ids_bs, "labels": label_bs, "positions": position_bs, "mask": mask_bs, "shown": shown,
            "patches": torch.stack(patches), "index": torch.stack(kept),
        }  # fmt: skip


class Mixture(Sequences):
    """Captions, questions about scenes, easy-VQA, plain text."""

    def __init__(
        self, scenes: list[Picture], vqa: list[Picture], plain: list[list[int]], tokenizer: Any, o: Options
    ):
        super().__init__(tokenizer, o)
        self.scenes, self.vqa, self.plain = scenes, vqa, plain

    def one(self) -> tuple[Tensor | None, list[int], list[int]]:
        rng, kind = self.rng, self.rng.random()
        end = [self.tokenizer.eos_token_id]
        if kind < 0.20:
            picture = self.vqa[rng.integers(len(self.vqa))]
            open_ended = [qa for qa in picture.questions if qa[1] not in ("yes", "no")]
            questions = open_ended if open_ended and rng.random() < 0.8 else picture.questions
            question, answer = questions[rng.integers(len(questions))]
        elif kind < 0.45:
            picture = self.scenes[rng.integers(len(self.scenes))]
            assert picture.scene is not None
            question, answer = ask(rng, picture.scene)
        elif kind < 0.49:
            return None, [], self.plain[rng.integers(len(self.plain))]
        else:
            picture = self.scenes[rng.integers(len(self.scenes))]
            scene = picture.scene
            assert scene is not None
            fresh = write_caption(rng, scene.entities, scene.background)
            caption = fresh if rng.random() < 0.6 else scene.caption
            return picture.patches_pd, [], self.tokenizer(caption).input_ids + end
        return (
            picture.patches_pd,
            self.tokenizer(question).input_ids,
            self.tokenizer(" " + answer).input_ids + end,
        )


def stage1(
    lm: Any, projector: Projector, batches: Iterator[dict[str, Tensor]], o: Options, log: Log
) -> dict[str, Tensor]:
    """LoRA on every linear layer together with the projector; returns the LoRA by the modules' own names."""
    from peft import LoraConfig, get_peft_model

    alpha = round(LORA_SCALE * o.lora_rank)
    adapted = get_peft_model(lm, LoraConfig(r=o.lora_rank, lora_alpha=alpha, target_modules=list(LINEAR)))
    if o.resume:
        before = load_file(o.resume)
        for name, parameter in trained(adapted):
            parameter.data.copy_(before[name])
    lora = [p for p in adapted.parameters() if p.requires_grad]
    groups = [
        {"params": lora, "lr": o.lora_lr},
        {"params": list(projector.parameters()), "lr": o.projector_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def rate(step: int) -> float:
        return min(1.0, step / o.warm_up) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / o.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    embed, decoder = lm.get_input_embeddings(), adapted.base_model.model.model
    began, mean_loss = time.monotonic(), 0.0
    for step in range(1, o.steps + 1):
        batch = next(batches)
        embeds = embed(batch["ids"]).detach().clone()
        n_patches = batch["index"].shape[1]
        # One autocast a step: within one, bfloat16 copies of the trained weights are kept, however they change.
        with torch.autocast("cpu", torch.bfloat16):
            projected = projector(batch["patches"], batch["index"])
            embeds[batch["shown"][:, None], torch.arange(1, 1 + n_patches)] = projected.to(embeds.dtype)
            hidden = decoder(
                inputs_embeds=embeds, attention_mask=batch["mask"], position_ids=batch["positions"]
            ).last_hidden_state
            learnt = batch["labels"][:, 1:] != -100
            logits = lm.lm_head(hidden[:, :-1][learnt])
        loss = nn.functional.cross_entropy(logits.float(), batch["labels"][:, 1:][learnt])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(lora + list(projector.parameters()), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss = loss.item() if step == 1 else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 20 == 0:
            speed = step * o.batch_size / (time.monotonic() - began)
            log.add(stage=1, step=step, loss=round(mean_loss, 4), samples_per_s=round(speed, 1))
    return lora_by_module(adapted)


def lora_by_module(adapted: nn.Module) -> dict[str, Tensor]:
    """`model.layers.0.mlp.up_proj.lora_A` and so on: names of the plain model's modules."""
    return {name: parameter.detach() for name, parameter in trained(adapted)}


def trained(adapted: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("base_model.model.").replace(".default.weight", ""), parameter


@torch.inference_mode()
def plain_texts(lm: Any, tokenizer: Any, n_each: int = 5) -> list[list[int]]:
    """Token ids of short texts that the language model writes before it is changed."""
    tokenizer.padding_side = "left"
    inputs = tokenizer(list(PLAIN_PROMPTS) * n_each, return_tensors="pt", padding=True)
    written = lm.generate(**inputs, max_new_tokens=44, do_sample=True, top_p=0.95)
    return [[t for t in row if t != tokenizer.pad_token_id] for row in written.tolist()]


def main() -> None:
    o = parsed(Options, __doc__)
    torch.manual_seed(o.seed)
    log = Log(o)
    folder = base_lm()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # The frozen weights in bfloat16, what is trained in float32. On short sequences plain attention is faster.
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    processor, tower = make_processor(tokenizer), make_tower()
    recipes = [make_scene("train", i) for i in range(o.first_scene, o.first_scene + o.n_scenes)]
    images, questions = easy_vqa("train", o.n_easy_vqa)
    with torch.autocast("cpu", torch.bfloat16):
        features = vision_features(map(draw, recipes), processor, tower)
        seen = vision_features(images, processor, tower)
    scenes = [Picture(f, s, []) for f, s in zip(features, recipes, strict=True)]
    vqa = [Picture(f, None, q) for f, q in zip(seen, questions, strict=True)]
    log.add(pictures=len(scenes) + len(vqa))
    sample = features[:2000].float()
    mean_d, std_d = sample.mean((0, 1)), sample.std((0, 1)).clamp_min(1e-3)
    projector = Projector(mean_d, std_d, lm.config.hidden_size)
    if o.resume:
        projector.restore(load_file(o.resume))
    else:
        stage0(projector, scenes, lm.get_input_embeddings().weight.detach().float(), tokenizer, o, log)
    plain = plain_texts(lm, tokenizer)
    tokenizer.padding_side = "right"
    lora = stage1(lm, projector, Mixture(scenes, vqa, plain, tokenizer, o).batches(), o, log)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in {**projector.exported(), **lora}.items()}
    o.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, o.out)
    log.add(out=o.out.name, bytes=o.out.stat().st_size)


if __name__ == "__main__":
    main()
