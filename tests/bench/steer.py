"""Steered and default text side by side (with the KL between them) over one plain `generate` of the same prompt and
picture: time to the first token of both texts, and per token after it. Greedy, nothing ends a text."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from precompute.data.images import open_image
from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.live import steer as steering
from precompute.live.intervention import Intervention, Scope
from precompute.live.steer import Candidate, Steering, steer, steer_candidates
from precompute.live.steer_rows import DEFAULT, STEERED
from precompute.live.steer_sampling import Event, TokenEvent, TokenSampler
from precompute.model.batch import Batch, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.bench.common import Figure, Setup, alternately, ratio

TOKENS, FIRST_ROUNDS, ROUNDS, PROMPT = 64, 25, 5, "Describe the picture."
N_CANDIDATES, CANDIDATE_TOKENS = 8, 32
EVERYWHERE: tuple[Scope, ...] = ("image", "prompt", "generated")
Way = Callable[[int], list[float]]
"""Number of tokens → seconds from the prepared prompt to each."""


class Watch(StoppingCriteria):
    """When each step was done; stops nothing."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.at.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def plain(mllm: Mllm, batch: Batch, n: int) -> list[float]:
    """Seconds from the prepared prompt to each token of one `generate`."""
    watch, begin = Watch(), time.perf_counter()
    pad = mllm.tokenizer.pad_token_id
    with steering.plain_generation(mllm.model), torch.inference_mode():
        mllm.model.generate(
            **batch.inputs,
            generation_config=GenerationConfig(max_new_tokens=n, do_sample=False, pad_token_id=pad),
            stopping_criteria=[watch],
        )
    return [at - begin for at in watch.at]


def both(mllm: Mllm, sae: SaeV, batch: Batch, n: int, changes: list[Intervention], **options: Any) -> list[float]:
    """Seconds to each step's last event of `steer`: both texts and the KL are told."""
    at, begin = [0.0] * n, time.perf_counter()

    def emit(event: Event) -> None:
        at[event.step] = time.perf_counter() - begin

    steer(mllm, sae, batch, Steering(changes, max_tokens=n, eos=set(), **options), emit=emit)
    return at


class Kept(TokenSampler):
    """The chooser, which also keeps every step's tokens and logits of both channels."""

    steps: list[tuple[dict[int, int], list[torch.Tensor]]] = []  # noqa: RUF012 - emptied by every run

    def __call__(self, logits_rv: torch.Tensor, row: Mapping[int, int]) -> dict[int, int]:
        token = super().__call__(logits_rv, row)
        Kept.steps.append((token, [logits_rv[row[role]].clone() for role in (DEFAULT, STEERED)]))
        return token


def differing(mllm: Mllm, sae: SaeV, batch: Batch, n: int, changes: list[Intervention]) -> int:
    """Steps whose tokens or logits, bit for bit, are not those of the same batch without the hook."""
    result = []
    own, steering.TokenSampler = steering.TokenSampler, Kept  # type: ignore[misc]
    try:
        for hooked in (True, False):
            Kept.steps = []
            both(mllm, sae, batch, n, changes, hooked=hooked)
            result.append(Kept.steps)
    finally:
        steering.TokenSampler = own  # type: ignore[misc]
    return sum(a[0] != b[0] or not all(map(torch.equal, a[1], b[1])) for a, b in zip(*result, strict=True))


def timed(ways: Mapping[str, Way], n: int, rounds: int) -> dict[str, list[list[float]]]:
    """What each way told in every round, the ways taking turns."""
    report: dict[str, list[list[float]]] = {name: [] for name in ways}
    alternately({name: lambda name=name: report[name].append(ways[name](n)) for name in ways}, rounds)  # type: ignore[misc]
    return {name: runs[1:] for name, runs in report.items()}  # the first warms up


def shared_steps(mllm: Mllm, sae: SaeV, batch: Batch, n: int, changes: list[Intervention]) -> int:
    """Tokens that both texts begin with."""
    text: dict[str, list[str]] = {"default": [], "steered": []}

    def emit(event: Event) -> None:
        if isinstance(event, TokenEvent):
            text[event.channel].append(event.text)

    steer(mllm, sae, batch, Steering(changes, max_tokens=n, eos=set()), emit=emit)
    return next((i for i, (a, b) in enumerate(zip(*text.values(), strict=True)) if a != b), n)


def several(mllm: Mllm, sae: SaeV, batch: Batch, n: int, candidates: list[Candidate]) -> list[float]:
    """Seconds that all candidates take together, once."""
    begin = time.perf_counter()
    steer_candidates(mllm, sae, batch, Steering(max_tokens=n, eos=set(), candidates=candidates))
    return [time.perf_counter() - begin]


def candidates_figure(mllm: Mllm, sae: SaeV, batch: Batch, n: int, rounds: int) -> Figure:
    """Eight features, each steered alone, over the first of them."""
    largest_f = sae.encode(mllm.hidden(batch)[0]).max(dim=0).values
    top = largest_f.topk(N_CANDIDATES)
    candidates = [
        Candidate([Intervention(feature, "set", 4.0, value)])
        for feature, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    ways: dict[str, Way] = {
        name: lambda n, k=k: several(mllm, sae, batch, n, candidates[:k])  # type: ignore[misc]
        for name, k in {"one": 1, "all": N_CANDIDATES}.items()
    }
    seconds = {name: [one[0] for one in runs] for name, runs in timed(ways, n, rounds).items()}
    return {
        "what": f"time of {N_CANDIDATES} candidates at once over one",
        "value": ratio(seconds["all"], seconds["one"]),
        "unit": "×",
        "goal": 3.0,
        "sense": "≤",
        "note": f"{n} tokens each, features of which each is steered alone with image and prompt; the prompt runs once "
        "to L, all texts in one batch",
    }


def strongest(mllm: Mllm, sae: SaeV, batch: Batch) -> tuple[int, float]:
    """The feature that fires most on the prompt, and how strongly."""
    largest_f = sae.encode(mllm.hidden(batch)[0]).max(dim=0).values
    return int(largest_f.argmax()), float(largest_f.max())


def run(setup: Setup) -> dict[str, Any]:
    n, first_rounds, rounds = (3, 1, 1) if setup.small else (TOKENS, FIRST_ROUNDS, ROUNDS)
    sae = SaeV.load(str(setup.demo / "sae"), setup.device)
    mllm = Mllm.load(setup.demo / "model", layer=sae.layer, full=True, device=setup.device)
    data = read(str(setup.demo / "data"), Columns())
    picture = open_image(data.rows[0].images[0]).image
    batch = mllm.prepare([Pair(PROMPT, [picture])], generate=True)
    feature, value = strongest(mllm, sae, batch)
    changes = [Intervention(feature, "set", 4.0, value)]
    ways: dict[str, Way] = {
        "plain": lambda n: plain(mllm, batch, n),
        "everywhere": lambda n: both(mllm, sae, batch, n, changes, scope=EVERYWHERE),
        "generated": lambda n: both(mllm, sae, batch, n, changes, scope=("generated",)),
        "all rows": lambda n: both(mllm, sae, batch, n, changes, scope=EVERYWHERE, share=False),
    }
    first = {name: [one[0] for one in runs] for name, runs in timed(ways, 1, first_rounds).items()}
    later = {name: [(one[-1] - one[0]) / (n - 1) for one in runs] for name, runs in timed(ways, n, rounds).items()}
    same = shared_steps(mllm, sae, batch, n, changes)
    nothing = [Intervention(feature, "add", 0.0, value)]
    how = f"the demo's model, a prompt of {int(batch.length_b[0])} tokens with a picture"
    figures: list[Figure] = [
        {
            "what": "time to the first token of both texts, picture and prompt steered, over a plain `generate`",
            "value": ratio(first["everywhere"], first["plain"]), "unit": "×", "goal": 1.7, "sense": "≤",
            "note": f"{how}; layers above L run twice",
        },
        {
            "what": "the same, only generated tokens steered",
            "value": ratio(first["generated"], first["plain"]), "unit": "×", "goal": 1.1, "sense": "≤",
            "note": f"{how}; its last position, where that begins, runs twice above L",
        },
        {
            "what": "time per token of both texts and the KL, over a plain `generate`",
            "value": ratio(later["everywhere"], later["plain"]), "unit": "×", "goal": 1.3, "sense": "≤",
            "note": f"{n} tokens, `set` of one feature on each; the texts part after {same}, from where three rows run",
        },
        {
            "what": "steps at which `add` at strength 0 changes a token or a bit of a logit",
            "value": differing(mllm, sae, batch, n, nothing), "unit": "", "goal": 0, "sense": "=",
            "note": f"{n} steps beside the same batch without the hook",
        },
        candidates_figure(mllm, sae, batch, min(n, CANDIDATE_TOKENS), rounds),
    ]  # fmt: skip
    return {
        "options": {
            "tokens": n,
            "rounds": rounds,
            "rounds of the first token": first_rounds,
            "prompt": PROMPT,
            "layer": sae.layer,
        },
        "figures": figures,
        "all_rows": {
            "first": ratio(first["all rows"], first["plain"]),
            "later": ratio(later["all rows"], later["plain"]),
        },
        "seconds_first": first,
        "seconds_later": later,
    }
