"""Short replies of the demo's model while a direction is added after layer L, and their worth as AxBench has it."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.hooks import replace
from precompute.model.mllm import Mllm

BATCH_JOBS, NEW_TOKENS = 32, 4


class Job(NamedTuple):
    """One question, and what is added while it is answered."""

    pair: Pair
    delta_d: Tensor
    """float32 [d], in units of h; zeros leave the model as it is."""
    scope: tuple[int, ...] = (TEXT, IMAGE)
    """Modalities of the prompt's tokens that are steered. The reply is not: a word that is pushed again and again is
    repeated."""


def cap(delta_td: Tensor, h_td: Tensor) -> Tensor:
    """[t, d] scaled down, token by token, to be no longer than h (METHOD, *Steering*)."""
    ratio_t = delta_td.norm(dim=-1, keepdim=True) / h_td.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return delta_td / ratio_t.clamp_min(1.0)


@torch.inference_mode()
def replies(mllm: Mllm, jobs: Sequence[Job]) -> list[str]:
    """Greedy replies of at most four tokens; one that is not over by then ends in "…"."""
    by_length: dict[int, list[int]] = defaultdict(list)  # rows of one length need no padding
    for at, n in enumerate(mllm.n_text_tokens([job.pair.text for job in jobs]).tolist()):
        by_length[n].append(at)
    texts = [""] * len(jobs)
    for indices in by_length.values():
        for begin in range(0, len(indices), BATCH_JOBS):
            job_indices = indices[begin : begin + BATCH_JOBS]
            for at, text in zip(job_indices, batch_replies(mllm, [jobs[at] for at in job_indices]), strict=True):
                texts[at] = text
    return texts


def batch_replies(mllm: Mllm, jobs: Sequence[Job]) -> list[str]:
    """`replies` of jobs whose prompts are equally long."""
    batch = mllm.prepare([job.pair for job in jobs], generate=True)
    length = batch.modality_bs.shape[1]
    scopes = [[m in job.scope for m in row] for job, row in zip(jobs, batch.modality_bs, strict=True)]
    scope_bs = torch.tensor(scopes, device=mllm.device)
    delta_bd = torch.stack([job.delta_d for job in jobs]).to(mllm.device)

    def change(h_bsd: Tensor) -> Tensor:
        if h_bsd.shape[1] != length:  # a new token
            return h_bsd
        h = h_bsd.float()
        return torch.where(scope_bs[..., None], h + cap(delta_bd[:, None].expand_as(h), h), h).to(h_bsd.dtype)

    with replace(mllm.decoder_layer(), mllm.layer, change):
        ids_bs = mllm.model.generate(**batch.inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[:, length:]
    ended_b = (ids_bs == mllm.tokenizer.eos_token_id).any(1).tolist()
    texts = mllm.tokenizer.batch_decode(ids_bs, skip_special_tokens=True)
    return [text.strip() + ("" if is_complete else "…") for text, is_complete in zip(texts, ended_b, strict=True)]


class Worth(NamedTuple):
    """Of one reply, each part 0, ½ or 1 (AxBench: 0, 1, 2)."""

    named: float
    """The target is in it."""
    answered: float
    """It is one word of the kind that was asked for; ½: it begins with one."""
    fluent: float
    """It ends and repeats no word; ½: one of the two."""

    @property
    def score(self) -> float:
        """Harmonic mean; 0 where a part is 0."""
        return 3 / sum(1 / part for part in self) if all(self) else 0.0


def worth(reply: str, target: str, kind: Collection[str]) -> Worth:
    """What a reply to a question for one of `kind` is worth."""
    words = reply.lower().replace("…", " ").replace(",", " ").replace(".", " ").split()
    words = [word for word in words if word not in ("a", "an", "the")]
    begins = bool(words) and words[0] in kind
    parts = (not reply.endswith("…"), bool(words) and len(set(words)) == len(words))
    return Worth(float(target in words), (begins + (begins and len(words) == 1)) / 2, sum(parts) / 2)
