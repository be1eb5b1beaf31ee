"""What the demo's adapter is trained on: images as patch features, and sequences of patches and words."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from precompute.demo.scenes import SIZE, Scene, ask, write_caption
from precompute.demo.training.adapter_options import AdapterTraining
from precompute.demo.training.words import COVER, cover
from precompute.utils.ragged import batched

N_PATCHES, N_PLACES = 49, 14
PLAIN_PROMPTS = (
    "The history of", "In the morning, she", "A good recipe for", "The main idea of",
    "When the rain stopped,", "My favourite place", "Scientists found that", "The old man walked",
    "Music is", "The city was", "Learning to", "He opened the door and", "The sun", "Children like",
    "A computer is", "Water is", "The best way to", "Long ago, there", "The teacher said", "In winter,",
    "Our solar system", "Plants need", "The river", "Friends are",
)  # fmt: skip


@dataclass
class SeenImage:
    """An image as patch features, with its scene or questions about it."""

    patches_pd: Tensor
    """bfloat16 [49, 1456]."""
    scene: Scene | None
    questions: list[tuple[str, str]]


def easy_vqa(split: str, n: int) -> tuple[list[Image.Image], list[list[tuple[str, str]]]]:
    """The first n images of easy-VQA (MIT), enlarged, with their questions and answers."""
    import easy_vqa as package

    folder = Path(str(package.__file__)).parent / "data" / split
    images = [
        Image.open(folder / "images" / f"{i}.png").convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
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
    for batch in batched(images, 32):
        pixels = processor.image_processor(batch, return_tensors="pt")["pixel_values"]
        parts.append(tower(pixels).last_hidden_state[..., :-N_PLACES].bfloat16())
    return torch.cat(parts)


def patch_words(scene: Scene, words: dict[str, int]) -> Tensor:
    """(49, n_words) 0/1: the words of what covers at least 40 % of a patch, or the background's colour."""
    label_pw = torch.zeros(N_PATCHES, len(words))
    share_ep = np.array([cover(entity.box) for entity in scene.entities])
    for p, entity_index in enumerate(share_ep.argmax(0).tolist()):
        if share_ep[entity_index, p] >= COVER:
            for word in (scene.entities[entity_index].noun, scene.entities[entity_index].colour):
                if word:
                    label_pw[p, words[word]] = 1
        elif share_ep[entity_index, p] < 0.1:
            label_pw[p, words[scene.background]] = 1
    return label_pw


class Sequences(ABC):
    """Endless batches of training sequences; `draw_sequence` says what each is made of."""

    def __init__(self, tokenizer: Any, o: AdapterTraining) -> None:
        self.tokenizer, self.o = tokenizer, o
        self.rng = np.random.default_rng(o.seed)
        self.newline = tokenizer("\n").input_ids

    @abstractmethod
    def draw_sequence(self) -> tuple[Tensor | None, list[int], list[int]]:
        """Image, tokens that are only read, tokens that are learnt."""

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Endless batches; few patches of each image in the first 85 % of the steps, then all."""
        step = 0
        while True:
            few_patches = step < 0.85 * self.o.steps and not self.o.resume
            n_patches = self.o.n_patches if few_patches else N_PATCHES
            yield self.batch(n_patches)
            step += 1

    def batch(self, n_patches: int) -> dict[str, Tensor]:
        """`<|im_start|>` + patches + newline + text; a patch keeps the position it has among all 49."""
        bos, pad = self.tokenizer.bos_token_id, self.tokenizer.pad_token_id
        rows, patches, indices = [], [], []
        for image, input_ids, learn in (self.draw_sequence() for _ in range(self.o.batch_size)):
            if image is None:
                ids, where = [bos, *learn], list(range(1 + len(learn)))
            else:
                index = np.sort(self.rng.permutation(N_PATCHES)[:n_patches])
                patches.append(image[torch.from_numpy(index)])
                indices.append(torch.from_numpy(index))
                text = [*self.newline, *input_ids, *learn]
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
        with_image = torch.tensor([b for b, row in enumerate(rows) if row[3]])
        return {
            "ids": ids_bs, "labels": label_bs, "positions": position_bs, "mask": mask_bs, "shown": with_image,
            "patches": torch.stack(patches), "index": torch.stack(indices),
        }  # fmt: skip


class Mixture(Sequences):
    """Captions, questions about scenes, easy-VQA, plain text."""

    def __init__(
        self, scenes: list[SeenImage], vqa: list[SeenImage], texts: list[list[int]], tokenizer: Any, o: AdapterTraining
    ):
        super().__init__(tokenizer, o)
        self.scenes, self.vqa, self.texts = scenes, vqa, texts

    def draw_sequence(self) -> tuple[Tensor | None, list[int], list[int]]:
        """As in `Sequences`, of a kind drawn by chance."""
        rng, kind = self.rng, self.rng.random()
        end = [self.tokenizer.eos_token_id]
        if kind < 0.20:
            seen_image = self.vqa[rng.integers(len(self.vqa))]
            open_ended = [qa for qa in seen_image.questions if qa[1] not in ("yes", "no")]
            questions = open_ended if open_ended and rng.random() < 0.8 else seen_image.questions
            question, answer = questions[rng.integers(len(questions))]
        elif kind < 0.45:
            seen_image = self.scenes[rng.integers(len(self.scenes))]
            assert seen_image.scene is not None
            question, answer = ask(rng, seen_image.scene)
        elif kind < 0.49:
            return None, [], self.texts[rng.integers(len(self.texts))]
        else:
            seen_image = self.scenes[rng.integers(len(self.scenes))]
            scene = seen_image.scene
            assert scene is not None
            new_caption = write_caption(rng, scene.entities, scene.background)
            caption = new_caption if rng.random() < 0.6 else scene.caption
            return seen_image.patches_pd, [], self.tokenizer(caption).input_ids + end
        return (
            seen_image.patches_pd,
            self.tokenizer(question).input_ids,
            self.tokenizer(" " + answer).input_ids + end,
        )


@torch.inference_mode()
def plain_texts(lm: Any, tokenizer: Any, n_each: int = 5) -> list[list[int]]:
    """Token ids of short texts that the language model writes before it is changed."""
    tokenizer.padding_side = "left"
    inputs = tokenizer(list(PLAIN_PROMPTS) * n_each, return_tensors="pt", padding=True)
    output_ids = lm.generate(**inputs, max_new_tokens=44, do_sample=True, top_p=0.95)
    return [[t for t in row if t != tokenizer.pad_token_id] for row in output_ids.tolist()]
