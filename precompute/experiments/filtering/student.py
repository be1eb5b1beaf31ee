"""The model that is tuned: SmolLM2 as its package has it, with a LoRA, behind a projector that was trained on half of
the demo's scenes. Vision features are computed once."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import AutoTokenizer

from precompute.demo.assemble import IMAGE_TOKEN, base_lm, make_processor, make_tower
from precompute.demo.dataset import SWAP_KINDS
from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene, make_scene
from precompute.demo.training.adapter_data import N_PATCHES, SeenImage, Sequences, vision_features
from precompute.demo.training.adapter_options import AdapterTraining
from precompute.demo.training.train_adapter import Log, Projector, frozen_lm, quickest_products, stage0, stage1
from precompute.experiments.filtering.cloze import Words
from precompute.utils.files import atomic_write

TEST_BATCH = 32
START_STEPS = 500
"""Steps of stage 0 for the projector that every run starts from."""


class Answered(NamedTuple):
    """Of every held-out scene, int64 [n, kinds] in the order of ORDER."""

    expected_nk: np.ndarray
    """Words that the caption has."""
    right_nk: np.ndarray
    """Words that the model gave."""


ORDER = tuple(dict.fromkeys(SWAP_KINDS))


class Student(NamedTuple):
    """A tuned model."""

    lm: Any
    projector: Projector
    lora: dict[str, Tensor]
    """By the language model's own modules; empty where it is merged."""


class Captions(Sequences):
    """Images with the captions that were kept, epoch after epoch, each in a new order."""

    def __init__(
        self, features: Tensor, captions: Sequence[str], rows: np.ndarray, tokenizer: Any, o: AdapterTraining
    ) -> None:
        super().__init__(tokenizer, o)
        self.features, self.captions, self.rows = features, captions, rows
        self.order = self.epochs()

    def epochs(self) -> Iterator[int]:
        while True:
            yield from self.rng.permutation(self.rows).tolist()

    def draw_sequence(self) -> tuple[Tensor | None, list[int], list[int]]:
        """The next pair: the image's features [p, d], tokens before the caption (none), the caption's tokens."""
        i = next(self.order)
        return self.features[i], [], [*self.tokenizer(self.captions[i]).input_ids, self.tokenizer.eos_token_id]


class Bench:
    """What all runs share: tokenizer, cached features of pairs and held-out scenes, the starting projector."""

    image_token = IMAGE_TOKEN

    def __init__(
        self, work: Path, pairs: Sequence[Scene], captions: Sequence[str], test: Sequence[Scene], n_start: int
    ) -> None:
        self.work, self.captions, self.test, self.n_start = work, captions, test, n_start
        work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False)
        self.pairs_npd = self.image_features("pairs", pairs)
        self.test_npd = self.image_features("test", test)
        self.words = Words(self.tokenizer)

    def image_features(self, name: str, scenes: Sequence[Scene]) -> Tensor:
        """bfloat16 [n, 49, 1456]: vision features of the scenes, read from the work folder where it has them."""
        path = self.work / f"{name}-{len(scenes)}.safetensors"
        if not path.exists():
            with quickest_products():
                image_features = vision_features(map(draw, scenes), make_processor(self.tokenizer), make_tower())
            with atomic_write(path) as file:
                file.write(save({"features": image_features}))
        return load_file(path)["features"]

    def base(self) -> Any:
        """The language model as it is before any training, frozen weights."""
        return frozen_lm(base_lm())

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The projector of stage 0 on some of the scenes, with the standardisation of its features."""
        path = self.work / f"start-{self.n_start}.safetensors"
        if not path.exists():
            scenes = [make_scene("train", i) for i in range(self.n_start)]
            features = self.image_features("scenes", scenes)
            o = AdapterTraining(stage0_steps=START_STEPS, log=self.work / "start.json")
            torch.manual_seed(o.seed)
            lm = self.base()
            sample = features[:2000].float()
            projector = Projector(sample.mean((0, 1)), sample.std((0, 1)).clamp_min(1e-3), lm.config.hidden_size)
            images = [SeenImage(f, s, []) for f, s in zip(features, scenes, strict=True)]
            embedding_vd = lm.get_input_embeddings().weight.detach().float()
            stage0(projector, images, embedding_vd, self.tokenizer, o, Log(o))
            state = {**projector.export_weights(), "mean": projector.mean_d, "std": projector.std_d}
            with atomic_write(path) as file:
                file.write(save({k: v.detach().float().contiguous() for k, v in state.items()}))
        return load_file(path)

    def tune(self, rows: np.ndarray, steps: int, seed: int) -> Student:
        """SFT on the captions of these pairs: LoRA and projector, the loss on the caption only.

        Args:
            rows: pairs kept; they are gone through as often as the steps need.
        """
        # A short run warms up over a fifth of its steps.
        o = AdapterTraining(
            steps=steps, seed=seed, warm_up=max(1, steps // 5), n_patches=16, log=self.work / f"run-{seed}.json"
        )
        torch.manual_seed(seed)
        lm = self.base()
        projector = Projector(self.start["mean"], self.start["std"], lm.config.hidden_size)
        projector.restore(self.start)
        sequences = Captions(self.pairs_npd, self.captions, rows, self.tokenizer, o)
        return Student(lm, projector, stage1(lm, projector, sequences.batches(), o, Log(o)))

    @torch.inference_mode()
    def answer(self, student: Student) -> Answered:
        """Every attribute word of the held-out captions, asked for with the words before it given."""
        n = len(self.test)
        expected_nk, right_nk = np.zeros((n, len(ORDER)), np.int64), np.zeros((n, len(ORDER)), np.int64)
        head = 1 + N_PATCHES + len(self.tokenizer("\n").input_ids)
        for begin in range(0, n, TEST_BATCH):
            scenes = self.test[begin : begin + TEST_BATCH]
            logits_bsv = self.logits(student, range(begin, begin + len(scenes)))
            for b, scene in enumerate(scenes):
                for blank in self.words.blanks(scene):
                    k = ORDER.index(SWAP_KINDS[blank.group])
                    expected_nk[begin + b, k] += 1
                    right_nk[begin + b, k] += self.words.is_right(blank, logits_bsv[b, head + blank.token - 1])
        return Answered(expected_nk, right_nk)

    def logits(self, student: Student, rows: range) -> Tensor:
        """Of held-out scenes with their own captions, all patches shown."""
        lm, projector = student.lm, student.projector
        bos, pad = self.tokenizer.bos_token_id, self.tokenizer.pad_token_id
        newline = self.tokenizer("\n").input_ids
        ids = [[bos, *[pad] * N_PATCHES, *newline, *self.tokenizer(self.test[i].caption).input_ids] for i in rows]
        max_length = max(map(len, ids))
        ids_bs = torch.tensor([row + [pad] * (max_length - len(row)) for row in ids])
        index_bp = torch.arange(N_PATCHES).expand(len(ids), -1)
        with quickest_products():
            embeds_bsd = lm.get_input_embeddings()(ids_bs)
            projected_bpd = projector(self.test_npd[rows.start : rows.stop], index_bp)
            embeds_bsd[:, 1 : 1 + N_PATCHES] = projected_bpd.to(embeds_bsd.dtype)
            # Padding stands on the right, where no token of the caption sees it.
            return nn.functional.linear(lm.model(inputs_embeds=embeds_bsd).last_hidden_state, lm.lm_head.weight)
