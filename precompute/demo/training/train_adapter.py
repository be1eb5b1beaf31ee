"""Trains what ties the demo's two packages together: LLaVA's projector and a LoRA on the language model.

    python -m precompute.demo.training.train_adapter --out precompute/demo/weights/adapter.safetensors

The losses go to docs/results/demo-adapter-training.json as they come. `--resume ADAPTER` goes on from an adapter
with other scenes, all patches shown.

Stage 0, without the language model: the projector learns to place a patch at the input embedding of what
it shows (an object's noun; a shape's noun and colour; the background's colour). Part of the agreement between
the two modalities is thereby built in, and the docs say so. Stage 1, through the language model: captions,
questions about scenes and easy-VQA images, and some plain text that the model wrote itself, so that it
still writes.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic_settings import CliApp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from precompute.demo.assemble import LORA_SCALE, base_lm, make_processor, make_tower
from precompute.demo.drawing import draw
from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES, make_scene
from precompute.demo.training.adapter_data import (
    N_PATCHES,
    N_PLACES,
    Mixture,
    SeenImage,
    easy_vqa,
    patch_words,
    plain_texts,
    vision_features,
)
from precompute.demo.training.adapter_options import AdapterTraining
from precompute.products.rounding import quickest_dtype
from precompute.utils.files import write_json
from precompute.utils.provenance import machine

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer, all of which get a LoRA."""


class Log:
    """What a run did, written line by line."""

    def __init__(self, o: AdapterTraining) -> None:
        self.path, self.began = o.log, time.monotonic()
        self.content: dict[str, Any] = {
            "command": "python -m precompute.demo.training.train_adapter",
            "options": o.model_dump(mode="json", exclude={"out", "log", "resume"}),
            "torch": torch.__version__,
            "machine": machine(),
            "lines": [],
        }
        if o.resume and o.log.exists():
            self.content["before"] = json.loads(o.log.read_text())

    def add(self, **line: Any) -> None:
        line["seconds"] = round(time.monotonic() - self.began)
        print(json.dumps(line), flush=True)
        self.content["lines"].append(line)
        write_json(self.path, self.content)


class Projector(nn.Module):
    """LLaVA's projector, reading standardised features; `export_weights` folds the standardisation into it."""

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
        """What `export_weights` gave."""
        weight, n = state["linear_1.weight"].float(), len(self.mean_d)
        self.linear_1.weight.data = torch.cat([weight[:, :n] * self.std_d, weight[:, n:]], 1)
        self.linear_1.bias.data = state["linear_1.bias"].float() + weight[:, :n] @ self.mean_d
        self.linear_2.load_state_dict({k: state[f"linear_2.{k}"].float() for k in ("weight", "bias")})

    def export_weights(self) -> dict[str, Tensor]:
        """Weights of LLaVA's projector, float32, that read features which are not standardised."""
        w, n = self.linear_1.weight.detach(), len(self.mean_d)
        weight = torch.cat([w[:, :n] / self.std_d, w[:, n:]], 1)
        bias = self.linear_1.bias.detach() - weight[:, :n] @ self.mean_d
        return {
            "linear_1.weight": weight,
            "linear_1.bias": bias,
            "linear_2.weight": self.linear_2.weight.detach(),
            "linear_2.bias": self.linear_2.bias.detach(),
        }


def stage0(
    projector: Projector, images: list[SeenImage], embedding_vd: Tensor, tokenizer: Any, o: AdapterTraining, log: Log
) -> None:
    """MSE to the sum of the words' embeddings plus half a cross-entropy over all words, linear decay."""
    words = {w: i for i, w in enumerate([*OBJECTS, *SHAPES, *COLOURS])}
    ids = torch.tensor([tokenizer(" " + w).input_ids[0] for w in words])
    target_wd = embedding_vd[ids]
    unit_wd = nn.functional.normalize(target_wd - target_wd.mean(0), dim=1)
    scenes = [p for p in images if p.scene is not None]
    labels = torch.stack([patch_words(p.scene, words) for p in scenes if p.scene]).to(torch.uint8).flatten(0, 1)
    features = torch.stack([p.patches_pd for p in scenes]).flatten(0, 1)
    labelled_rows = labels.sum(1).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(projector.parameters(), 1.5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, o.stage0_steps)
    for step in range(o.stage0_steps):
        rows = labelled_rows[torch.randint(len(labelled_rows), (1024,))]
        y = labels[rows].float()
        output = projector(features[rows][:, None], (rows % N_PATCHES)[:, None])[:, 0]
        aim = (y @ target_wd) / y.sum(1, keepdim=True).sqrt()
        logits = nn.functional.normalize(output - target_wd.mean(0), dim=1) @ unit_wd.T * 20
        mse = ((output - aim) ** 2).sum(1).mean() / target_wd.norm(dim=1).mean() ** 2
        loss = mse + 0.5 * nn.functional.cross_entropy(logits, y / y.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            accuracy = (y[torch.arange(len(y)), logits.argmax(1)] > 0).float().mean()
            log.add(stage=0, step=step + 1, loss=round(loss.item(), 3), hit=round(accuracy.item(), 3))


def frozen_lm(folder: Path) -> Any:
    """The language model whose weights stay as they are, in bfloat16 on a processor with units for it."""
    dtype = getattr(torch, quickest_dtype())
    # On short sequences plain attention is faster.
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", trust_remote_code=False
    )


def quickest_products() -> torch.autocast:
    """A context in which products are of bfloat16, on a processor with units for it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=quickest_dtype() == "bfloat16")


def stage1(
    lm: Any, projector: Projector, batches: Iterator[dict[str, Tensor]], o: AdapterTraining, log: Log
) -> dict[str, Tensor]:
    """LoRA on every linear layer together with the projector; returns the LoRA by the modules' own names."""
    from peft import LoraConfig, get_peft_model

    alpha = round(LORA_SCALE * o.lora_rank)
    lora_lm = get_peft_model(lm, LoraConfig(r=o.lora_rank, lora_alpha=alpha, target_modules=list(LINEAR)))
    if o.resume:
        checkpoint = load_file(o.resume)
        for name, parameter in trained_parameters(lora_lm):
            parameter.data.copy_(checkpoint[name])
    lora = [p for p in lora_lm.parameters() if p.requires_grad]
    groups = [
        {"params": lora, "lr": o.lora_lr},
        {"params": list(projector.parameters()), "lr": o.projector_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def rate(step: int) -> float:
        return min(1.0, step / o.warm_up) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / o.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    embed, decoder = lm.get_input_embeddings(), lora_lm.base_model.model.model
    began, mean_loss = time.monotonic(), 0.0
    for step in range(1, o.steps + 1):
        batch = next(batches)
        embeds = embed(batch["ids"]).detach().clone()
        n_patches = batch["index"].shape[1]
        # Anew for each step: until autocast ends, it keeps bfloat16 copies of the trained weights, however they change.
        with quickest_products():
            image_features = projector(batch["patches"], batch["index"])
            embeds[batch["shown"][:, None], torch.arange(1, 1 + n_patches)] = image_features.to(embeds.dtype)
            hidden_bsd = decoder(
                inputs_embeds=embeds, attention_mask=batch["mask"], position_ids=batch["positions"]
            ).last_hidden_state
            learnt = batch["labels"][:, 1:] != -100
            logits = lm.lm_head(hidden_bsd[:, :-1][learnt])
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
    return {name: parameter.detach() for name, parameter in trained_parameters(lora_lm)}


def trained_parameters(lora_lm: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """By `model.layers.0.mlp.up_proj.lora_A` and so on: names of the plain model's modules."""
    for name, parameter in lora_lm.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("base_model.model.").replace(".default.weight", ""), parameter


def main() -> None:
    o = CliApp.run(AdapterTraining)
    torch.manual_seed(o.seed)
    log = Log(o)
    folder = base_lm()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    lm = frozen_lm(folder)
    processor, tower = make_processor(tokenizer), make_tower()
    recipes = [make_scene("train", i) for i in range(o.first_scene, o.first_scene + o.n_scenes)]
    images, questions = easy_vqa("train", o.n_easy_vqa)
    with quickest_products():
        features = vision_features(map(draw, recipes), processor, tower)
        image_features = vision_features(images, processor, tower)
    scenes = [SeenImage(f, s, []) for f, s in zip(features, recipes, strict=True)]
    vqa = [SeenImage(f, None, q) for f, q in zip(image_features, questions, strict=True)]
    log.add(pictures=len(scenes) + len(vqa))
    sample = features[:2000].float()
    mean_d, std_d = sample.mean((0, 1)), sample.std((0, 1)).clamp_min(1e-3)
    projector = Projector(mean_d, std_d, lm.config.hidden_size)
    if o.resume:
        projector.restore(load_file(o.resume))
    else:
        stage0(projector, scenes, lm.get_input_embeddings().weight.detach().float(), tokenizer, o, log)
    texts = plain_texts(lm, tokenizer)
    tokenizer.padding_side = "right"
    lora = stage1(lm, projector, Mixture(scenes, vqa, texts, tokenizer, o).batches(), o, log)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in {**projector.export_weights(), **lora}.items()}
    o.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, o.out)
    log.add(out=o.out.name, bytes=o.out.stat().st_size)


if __name__ == "__main__":
    main()
