"""Preference tuning for the filtering experiment, by `trl`: the caption a pair has against the same with one word
changed. The policy starts from the model tuned on all pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from precompute.demo.assemble import assemble
from precompute.demo.dataset import has_swappable_word, swap_one_word
from precompute.demo.training.train_adapter import LINEAR, Projector
from precompute.errors import SaevxError
from precompute.experiments.filtering.student import Bench, Student
from precompute.utils.files import atomic_write

BATCH, LR, BETA, RANK = 8, 2e-4, 0.1, 8


def prefer(bench: Bench, images: Sequence[Path], rows: np.ndarray, steps: int, seed: int) -> Student:
    """DPO on the pairs kept, from the model that SFT on all pairs gave with the same seed.

    Args:
        images: image of every pair.

    Raises:
        SaevxError: `trl` is not installed.
    """
    try:
        from trl import DPOConfig, DPOTrainer
    except ImportError as error:
        raise SaevxError("DPO needs trl: pip install 'saevx[experiments]'.") from error
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = start_training(bench, steps, seed)
    # A LoRA on the language model; the projector is tuned whole, as in SFT.
    lora = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=rf".*language_model.*\.({'|'.join(LINEAR)})",
        modules_to_save=["multi_modal_projector"],
    )
    config = DPOConfig(
        output_dir=str(bench.work / "dpo"), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=LR,
        beta=BETA, max_length=None, seed=seed, bf16=torch.cuda.is_available(), report_to=[], save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no", disable_tqdm=True, gradient_checkpointing=False, remove_unused_columns=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    trainer = DPOTrainer(
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False),
        args=config,
        peft_config=lora,
        train_dataset=preferences(bench, images, rows, seed),
        processing_class=AutoProcessor.from_pretrained(folder, trust_remote_code=False),
    )
    trainer.train()
    model = trainer.model.merge_and_unload().to("cpu").model
    lm = bench.base()
    lm.model.load_state_dict(model.language_model.state_dict())
    projector = Projector(bench.start["mean"], bench.start["std"], lm.config.hidden_size)
    projector.restore(dict(model.multi_modal_projector.state_dict()))
    return Student(lm, projector, {})


def preferences(bench: Bench, images: Sequence[Path], rows: np.ndarray, seed: int) -> Any:
    """`images, prompt, chosen, rejected`, the rejected caption wrong in a noun, a colour, a number or a place."""
    from datasets import Dataset, Features, Image, List, Value

    rng = np.random.default_rng([seed, 29])
    end = bench.tokenizer.eos_token
    prompt = f"{bench.tokenizer.bos_token}{bench.image_token}\n"
    summary = [
        {
            "images": [str(images[i])],
            "prompt": prompt,
            "chosen": bench.captions[i] + end,
            "rejected": swap_one_word(bench.captions[i], rng)[0] + end,
        }
        for i in rows.tolist()
        if has_swappable_word(bench.captions[i])
    ]
    text = Value("string")
    return Dataset.from_list(summary, features=Features(images=List(Image()), prompt=text, chosen=text, rejected=text))


def start_training(bench: Bench, steps: int, seed: int) -> Path:
    """The model tuned on all pairs, as a `transformers` folder; made once a seed."""
    folder = bench.work / f"sft-{steps}-{seed}"
    adapter = folder.with_suffix(".safetensors")
    if not adapter.exists():
        student = bench.tune(np.arange(len(bench.captions)), steps, seed)
        state = {**student.projector.export_weights(), **student.lora}
        with atomic_write(adapter) as file:
            file.write(save({k: v.detach().to(torch.bfloat16).contiguous() for k, v in state.items()}))
    return assemble(folder, adapter)
