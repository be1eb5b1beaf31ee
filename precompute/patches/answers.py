"""What a model answers after an image and a question, and when that counts as right (METHOD, *Patch filtering*)."""

import torch

from precompute.model.batch import Batch
from precompute.model.forward_errors import forward_errors
from precompute.model.hooks import without_tokens
from precompute.model.loading import silence_warnings
from precompute.model.mllm import Mllm
from precompute.utils.types import Array


def plain_answer(text: str) -> str:
    """Text as it is compared."""
    return text.strip().casefold()


def answer_tokens(mllm: Mllm, answer: str) -> int:
    """How many tokens the answer has, with or without a space before it: whichever is more."""
    return max(1, *mllm.n_text_tokens([answer.strip(), " " + answer.strip()]).tolist())


@torch.inference_mode()
def greedy(mllm: Mllm, batch: Batch, n_tokens: int, dropped_bs: Array | None = None) -> list[list[int]]:
    """The likeliest next tokens after each pair of the batch, over the whole vocabulary; fewer where it ends.

    Args:
        batch: pairs of one length.
        dropped_bs: bool [b, s], tokens that are left out; the others keep their positions.
    """
    if dropped_bs is not None and dropped_bs.any():
        dropped_mask = torch.from_numpy(dropped_bs).to(mllm.device)
        with without_tokens(mllm.decoder.layers, dropped_mask):
            return answer(mllm, batch, n_tokens, use_cache=False)
    return answer(mllm, batch, n_tokens, use_cache=True)


def answer(mllm: Mllm, batch: Batch, n_tokens: int, *, use_cache: bool) -> list[list[int]]:
    """`greedy` of all tokens; without a cache the whole sequence is run again for every token."""
    if len(set(batch.length_b.tolist())) > 1:
        raise ValueError("pairs of several lengths would need padding")
    inputs = {name: x.to(mllm.dtype) if name == "pixel_values" else x for name, x in batch.inputs.items()}
    if n_tokens == 1:
        inputs.pop("attention_mask")
        with forward_errors():
            logits_bsv = mllm.model(**inputs, use_cache=False, logits_to_keep=1).logits
        return logits_bsv[:, -1:].argmax(dim=-1).tolist()
    with forward_errors(), silence_warnings():  # of sampling options in the model's own folder, which do not count here
        ids_bs = mllm.model.generate(
            **inputs, max_new_tokens=n_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0,
            temperature=None, top_p=None, top_k=None, pad_token_id=mllm.tokenizer.pad_token_id, use_cache=use_cache,
        )  # fmt: skip
    return ids_bs[:, inputs["input_ids"].shape[1] :].tolist()


def beginnings(mllm: Mllm, ids: list[int]) -> set[str]:
    """The first token, the first two and so on, as `plain_answer` has them: how many tokens a word has depends on what
    stands before it."""
    return {plain_answer(mllm.text_of(ids[: i + 1])) for i in range(len(ids))}
