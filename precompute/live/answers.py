"""An answer that the model writes after an image and a prompt, and how likely its tokens are where h is changed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from precompute.live.intervention import Intervention, Scope, Steer, prompt_scope
from precompute.live.steer import eos_ids, generation_inputs, plain_generation
from precompute.live.steer_rows import PER_TOKEN
from precompute.model import hooks
from precompute.model.batch import IMAGE, TEXT, Batch
from precompute.model.forward_errors import forward_errors
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.utils.types import Array

EVERYWHERE: tuple[Scope, ...] = ("image", "prompt", "generated")


@dataclass(frozen=True)
class Step:
    """Features that are steered, and where."""

    steer: Steer
    prompt_s: Array
    """bool [s]: positions of the prompt."""
    generated: bool
    """Whether written tokens are steered too."""

    @classmethod
    def of(
        cls, sae: SaeV, batch: Batch, interventions: Sequence[Intervention], scope: Sequence[Scope] = EVERYWHERE
    ) -> Self:
        """Of a batch of one prompt. Raises SaevxError as `Steer` does."""
        return cls(Steer(sae, interventions), prompt_scope(batch, scope, None), "generated" in scope)


def ablation(sae: SaeV, batch: Batch, features: Sequence[int]) -> list[Step]:
    """The features at 0 on all tokens but special ones and sinks; no step without features."""
    interventions = [Intervention(k, "ablate", 0.0, 0.0) for k in features]
    return [Step.of(sae, batch, interventions)] if interventions else []


class Change:
    """Applies steps, one after the other, to h of a prompt and its answer, which may come in pieces. An attention sink
    is not changed."""

    def __init__(self, steps: Sequence[Step], batch: Batch, sink_norm: tuple[float, float]) -> None:
        self.steps, self.sink_norm = steps, sink_norm
        self.modality_s = np.asarray(batch.modality_bs[0])
        self.n_seen = 0
        """Positions that have passed."""

    def __call__(self, hidden_bsd: Tensor) -> Tensor:
        """h [1, s, d] of the next s positions, which may be altered."""
        begin, self.n_seen = self.n_seen, self.n_seen + hidden_bsd.shape[1]
        on_image_s = in_piece(self.modality_s == IMAGE, begin, self.n_seen, False)
        for step in self.steps:
            norm_s = hidden_bsd[0].float().norm(dim=-1).cpu().numpy()
            calm_s = norm_s <= np.where(on_image_s, self.sink_norm[1], self.sink_norm[0])
            chosen_s = in_piece(step.prompt_s, begin, self.n_seen, step.generated) & calm_s
            at = torch.from_numpy(np.flatnonzero(chosen_s)).to(hidden_bsd.device)
            hidden_bsd[0, at] = step.steer(hidden_bsd[0, at])
        return hidden_bsd


def in_piece(prompt_s: Array, begin: int, end: int, beyond: bool) -> Array:
    """bool [end − begin]: of a prompt's positions, bool [s], the piece from `begin`; `beyond` for those after it."""
    piece = prompt_s[begin:end]
    return np.concatenate([piece, np.full(end - begin - len(piece), beyond)])


def apply_change(mllm: Mllm, change: Change | None) -> AbstractContextManager[None]:
    """While open, the change acts on h of a prompt and of what follows it; it serves once."""
    return hooks.replace(mllm.decoder_layer(), mllm.layer, change) if change else nullcontext()


@torch.inference_mode()
def write_answer(mllm: Mllm, batch: Batch, max_tokens: int, stop: Callable[[], bool] = lambda: False) -> list[int]:
    """The likeliest tokens after a prompt, a batch of one, one after the other, without the one that ends the text."""
    inputs, eos = generation_inputs(mllm, batch.inputs), eos_ids(mllm)
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(eos),
        pad_token_id=mllm.tokenizer.pad_token_id,
    )
    with plain_generation(mllm.model):
        ids_bs = mllm.model.generate(
            **inputs, generation_config=config, stopping_criteria=[lambda ids_bs, scores: torch.full((1,), stop())]
        )
    ids: list[int] = ids_bs[0, inputs["input_ids"].shape[1] :].tolist()
    return ids[:-1] if ids and ids[-1] in eos else ids


def with_answer(batch: Batch, ids: Sequence[int]) -> Batch:
    """A batch of one prompt with the tokens of an answer behind it, which count as text."""
    inputs = dict(batch.inputs)
    tail_1n = torch.tensor([list(ids)], dtype=torch.long, device=inputs["input_ids"].device)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tail_1n], dim=1)
    for name in PER_TOKEN:
        if name in inputs:
            tail = inputs[name].new_full((1, len(ids)), int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], tail], dim=1)
    modality_bs = np.concatenate([batch.modality_bs, np.full((1, len(ids)), TEXT, np.uint8)], axis=1)
    return replace(batch, inputs=inputs, modality_bs=modality_bs, length_b=batch.length_b + len(ids))


@torch.inference_mode()
def answer_log_odds(mllm: Mllm, batch: Batch, ids: Sequence[int]) -> Array:
    """float64 [n]: log-odds of each token of an answer given the prompt and the tokens before it, in nats."""
    full_batch, keep = with_answer(batch, ids[:-1]), len(ids)
    keep_at = mllm.last_positions(full_batch.modality_bs.shape[1], keep)
    with forward_errors():
        logits_bsv = mllm.model(**mllm.causal_inputs(full_batch), use_cache=False, logits_to_keep=keep_at).logits
    return log_odds(logits_bsv[0, -keep:], ids).cpu().double().numpy()


def log_odds(logits_nv: Tensor, ids: Sequence[int]) -> Tensor:
    """float32 [n]: of each row's token, its logit less the log-sum-exp of the others: log p − log (1 − p)."""
    at_n1 = torch.tensor(list(ids), device=logits_nv.device)[:, None]
    logits_nv = logits_nv.float()
    return logits_nv.gather(1, at_n1)[:, 0] - logits_nv.scatter(1, at_n1, -torch.inf).logsumexp(dim=1)


def logprob_of(log_odds_n: Array) -> Array:
    """float64 [n]: log p of log-odds, exact where p is close to 1."""
    return -np.logaddexp(0.0, -log_odds_n)


def word_numbers(texts: Sequence[str]) -> list[int]:
    """Which word each token of a text belongs to, from 0; signs stand alone."""
    numbers: list[int] = []
    word = ""
    for text in texts:
        if not numbers or text[:1].isspace() or not text.strip().isalnum() or not word.isalnum():
            numbers.append(numbers[-1] + 1 if numbers else 0)
            word = text.strip()
        else:
            numbers.append(numbers[-1])
            word += text.strip()
    return numbers
