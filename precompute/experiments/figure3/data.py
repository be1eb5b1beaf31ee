"""Data and models of Figure 3: texts that the unchanged language model can read too, and pairs of the demo's scenes."""

import math
import shutil
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import torch

from precompute.demo.assemble import base_lm
from precompute.demo.scenes import Scene, scenes_from
from precompute.demo.training.scene_data import write_pairs, write_rows
from precompute.experiments.options import Figure3Options
from precompute.utils.files import atomic_folder, write_text

CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""What the demo's model puts around a text without an image."""
SEED_PLAIN = 3


class Data(NamedTuple):
    """What is learnt from and what is measured on."""

    text: Path
    """JSONL: captions of train scenes and plain texts."""
    pairs: Path
    """imagefolder: train scenes with their captions."""
    alone: Path
    """JSONL: the captions of `pairs` alone, and the same plain texts."""
    test_text: Path
    """JSONL: captions of validation scenes and other plain texts."""
    test_pairs: Path
    """imagefolder: the same validation scenes with their captions."""

    @classmethod
    def at(cls, folder: Path) -> Self:
        names = ("text.jsonl", "pairs", "alone.jsonl", "test-text.jsonl", "test-pairs")
        return cls(*(folder / name for name in names))


def make_base(folder: Path) -> Path:
    """The unchanged language model, told to put around a text what the demo's model puts there: both are then asked
    the same, token for token."""
    if not folder.exists():
        with atomic_folder(folder) as part:
            shutil.copytree(base_lm(), part, dirs_exist_ok=True)
            write_text(part / "chat_template.jinja", CHAT_TEMPLATE)
    return folder


def make_data(folder: Path, o: Figure3Options) -> Data:
    """Write the data, or find it there. Both training sets have about `o.tokens` tokens, so that neither is repeated.

    A held-out text is none of the training texts, word for word: scenes differ more than their captions do."""
    if not folder.exists():
        train_plain, test_plain = plain_texts(o)
        captions, pairs = enough_scenes(train_plain, o.tokens)
        rows = [text_row(f"train-{scene.index}", scene.caption) for scene in captions]
        rows += plain_rows("plain", train_plain)
        caption_rows = [text_row(f"alone-{scene.index}", scene.caption) for scene in pairs]
        seen_texts = {row["text"] for row in rows}
        test = list(islice((s for s in scenes_from("validation") if s.caption not in seen_texts), o.n_test))
        test_rows = [text_row(f"validation-{scene.index}", scene.caption) for scene in test]
        test_texts = [text for text in test_plain if text not in seen_texts]
        with atomic_folder(folder) as part_folder:
            part = Data.at(part_folder)
            write_rows(part.text, rows)
            write_pairs(part.pairs, pairs)
            write_rows(part.alone, [*caption_rows, *plain_rows("plain", train_plain)])
            write_rows(part.test_text, [*test_rows, *plain_rows("test-plain", test_texts)])
            write_pairs(part.test_pairs, test)
    return Data.at(folder)


def plain_texts(o: Figure3Options) -> tuple[list[str], list[str]]:
    """Texts that the unchanged language model writes: to learn from, and to be measured on."""
    from precompute.demo.training.adapter_data import PLAIN_PROMPTS
    from precompute.demo.training.train_sae import written_before

    with torch.random.fork_rng():
        torch.manual_seed(SEED_PLAIN)
        n = o.n_plain + o.n_test_plain
        texts = [text.strip() for text in written_before(math.ceil(n / len(PLAIN_PROMPTS)))]
    return texts[: o.n_plain], texts[o.n_plain : n]


def enough_scenes(train_plain: list[str], tokens: int) -> tuple[list[Scene], list[Scene]]:
    """Train scenes whose captions make up `tokens` together with the plain texts, and those whose captions do with
    their images and once more alone; one of each at least."""
    from transformers import AutoTokenizer

    from precompute.demo.training.adapter_data import N_PATCHES

    tokenizer = AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False)

    def n_tokens(texts: list[str]) -> int:
        return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])

    left_text = left_pairs = tokens - n_tokens(train_plain)
    captions: list[Scene] = []
    pairs: list[Scene] = []
    for scene in scenes_from("train"):
        if captions and left_text <= 0:
            return captions, pairs
        n = n_tokens([scene.caption])
        if not pairs or left_pairs > 0:
            pairs.append(scene)
            left_pairs -= N_PATCHES + 2 * n
        captions.append(scene)
        left_text -= n
    raise AssertionError("scenes never end")


def text_row(sample_id: str, text: str) -> dict[str, str]:
    return {"id": sample_id, "text": text}


def plain_rows(name: str, texts: list[str]) -> list[dict[str, str]]:
    return [text_row(f"{name}-{i}", text) for i, text in enumerate(texts)]
