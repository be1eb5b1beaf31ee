"""Why the model gave an answer, and the test of that, as the API has them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from fastapi import HTTPException

from backend.deps import Visit
from backend.links import check_feature
from backend.live.cached_reply import cached_reply
from backend.live.lru import request_key
from backend.live.model_worker import Reservation
from backend.live.sources import named_pair
from backend.live.steering import interventions_of
from backend.problems import http_status
from backend.schemas.explain import ExplainRequest, ExplainTestRequest, Explanation, ExplanationTest
from backend.stores import OpenStore
from precompute.utils.text import ENGLISH_FUNCTION_WORDS
from precompute.utils.types import Array

if TYPE_CHECKING:
    from backend.live.engines import Engine
    from precompute.live.attribution import Attribution
    from precompute.live.engine import Pair
    from precompute.live.trial import Prompt, Trial

W = TypeVar("W", bound=ExplainRequest)
CANCELLED = "The question was cancelled before the model had answered it: ask again."
N_PLACES = 400
"""Patches, and tokens, of a feature that are listed."""
NOTHING = "Give {} or a prompt: the model has nothing to read."
SILENT = "The model ends its answer at once, so there is no word to explain: ask something else."


@dataclass(frozen=True)
class Question(Generic[W]):
    """What the worker is asked."""

    body: W
    pair: Pair
    client_left: threading.Event
    """Set when nobody waits for the answer any more."""

    def stop(self) -> bool:
        """Whether to stop, asked at each token and between parts of the work: never, but where the question was
        cancelled it raises HTTPException, 409, which ends the work there."""
        if self.client_left.is_set():
            raise HTTPException(409, CANCELLED)
        return False


async def request_explanation(visit: Visit, body: ExplainRequest) -> Explanation:
    """By the live model, or from the cache; of a `ExplainTestRequest` an ExplanationTest is `request_test`'s.

    Raises:
        HTTPException: 503 if the model is not ready or its queue is full; 404, 409, 413 or 422 for what it is to read;
            422 for a token or feature that cannot be explained.
        ClientLeft: the client closed the connection while it waited.
    """
    return await answer(visit, body, explanation_of)


async def request_test(visit: Visit, body: ExplainTestRequest) -> ExplanationTest:
    """Raises as `request_explanation`."""
    if not body.ablate and not body.patches:
        raise HTTPException(422, "Nothing is taken away: choose features to ablate or patches to paint over.")
    for feature in body.ablate:
        check_feature(visit.store, feature)
    return await answer(visit, body, test_of)


async def answer(visit: Visit, body: ExplainRequest, work: Any) -> Any:
    """What `work` makes of a request in the live model's worker."""
    for feature in body.features:
        check_feature(visit.store, feature.id)

    def prepare(_: Reservation, client_left: threading.Event) -> Any:
        return partial(work, store=visit.store, question=Question(body, pair_of(visit, body), client_left))

    return await cached_reply(visit, body, prepare)


def pair_of(visit: Visit, body: ExplainRequest) -> Pair:
    """What the model reads. Raises HTTPException: 404, 409, 413 or 422."""
    from precompute.live.engine import Pair

    text, images = named_pair(visit, body)
    full_text = "\n".join(part for part in (body.text or text, body.prompt) if part.strip())
    if not full_text and not images:
        raise HTTPException(422, NOTHING.format("an image, a text" if visit.store.has_images else "a text"))
    return Pair(full_text, images)


def prompt_of(engine: Engine, store: OpenStore, body: ExplainRequest, pair: Pair) -> Prompt:
    from precompute.live.engine import Scale
    from precompute.live.trial import Prompt

    scale = Scale.from_manifest(store.reader.manifest)
    interventions = interventions_of(engine, store, body.features)
    return Prompt(engine.mllm, engine.sae, scale, pair, interventions, body.scope)


def answer_of(prompt: Prompt, store: OpenStore, question: Question[Any]) -> tuple[list[int], Array]:
    """Ids of the answer's tokens, and their log-probabilities, float64 [n]. Raises HTTP 422 for an empty answer, 409
    for a question that was cancelled: what was written until then is not held."""
    body: ExplainRequest = question.body
    inputs = ExplainRequest(**body.model_dump(include=set(ExplainRequest.model_fields) - {"token", "limit"}))

    def make() -> tuple[list[int], Array]:
        question.stop()
        ids = prompt.answer(body.max_tokens, stop=question.stop)
        if not ids:
            raise HTTPException(422, SILENT)
        return ids, prompt.logprobs(ids)

    reply: tuple[list[int], Array] = store.recomputed.explanations.get_or_make(request_key(inputs, "answer"), make)
    return reply


def explanation_of(engine: Engine, store: OpenStore, question: Question[ExplainRequest]) -> Explanation:
    """The parts that features had in a token of the answer. Runs in the live model's worker.

    Raises:
        HTTPException: 422, or 409 if it was cancelled.
    """
    from precompute.live.answers import word_numbers

    reader, body = store.reader, question.body
    with http_status(422):
        prompt = prompt_of(engine, store, body, question.pair)
        ids, logprob_n = answer_of(prompt, store, question)
        texts = reader.vocabulary.texts(np.array(ids))
        words = word_numbers(texts)
        token = first_telling(texts, words) if body.token is None else body.token
        if token >= len(ids):
            raise HTTPException(422, f"The answer has no token {token}: choose one from 0 to {len(ids) - 1}.")
        question.stop()
        attribution = prompt.attribution(ids[: token + 1])
    feature_n, part_n3 = attribution.by_feature()
    part_n = part_n3.sum(1)
    indices_of = {"raising": np.flatnonzero(part_n > 0), "lowering": np.flatnonzero(part_n < 0)[::-1]}
    views = prompt.batch.views[0]
    first = {name: at[: body.limit] for name, at in indices_of.items()}
    refs = reader.features.refs([int(feature_n[i]) for at in first.values() for i in at])

    def describe_feature(i: int) -> dict[str, Any]:
        k = int(feature_n[i])
        return {**refs[k], "part": float(part_n[i]), "sides": sides(part_n3[i]), **places(attribution, k, views)}

    return Explanation.model_validate(
        {
            "answer": engine.mllm.text_of(ids),
            "token": token,
            "log_odds": attribution.log_odds,
            "parts": parts(attribution, part_n3),
            "tokens": [
                {"text": text, "logprob": float(logprob), "word": word}
                for text, logprob, word in zip(texts, logprob_n, words, strict=True)
            ],
            **{name: [describe_feature(int(i)) for i in at] for name, at in first.items()},
            **{f"n_{name}": len(at) for name, at in indices_of.items()},
            "read": read_tokens(reader.vocabulary.texts, prompt, ids[:token]),
            "views": [dict(view._asdict(), box=list(view.box)) for view in views],
        }
    )


def first_telling(texts: Sequence[str], words: Sequence[int]) -> int:
    """The first token of the first word that is no function word; 0 where all are."""
    word_of: dict[int, str] = {}
    for text, word in zip(texts, words, strict=True):
        word_of[word] = word_of.get(word, "") + text.strip().lower()
    content_words = {w for w, word in word_of.items() if word.isalnum() and word not in ENGLISH_FUNCTION_WORDS}
    return next((i for i, word in enumerate(words) if word in content_words), 0)


def sides(part_3: Array) -> dict[str, float]:
    """Args: float64 [3], by `attribution.SIDES`."""
    return dict(zip(("text", "image", "answer"), map(float, part_3), strict=True))


def parts(attribution: Attribution, part_n3: Array) -> dict[str, Any]:
    """As `schemas.explain.Parts`. Args: float64 [n, 3], of the features."""
    return {
        "features": sides(part_n3.sum(0)), "error": sides(attribution.error_g), "bias": sides(attribution.bias_g),
        "special": attribution.rest, "total": attribution.total, "gap": attribution.gap,
    }  # fmt: skip


def places(attribution: Attribution, feature: int, views: Sequence[Any]) -> dict[str, Any]:
    """Where a feature has its part."""
    from precompute.model.batch import IMAGE

    at_e = np.flatnonzero(attribution.feature_e == feature)
    at_e = at_e[np.argsort(-np.abs(attribution.part_e[at_e]), kind="stable")]
    position_e, part_e = attribution.position_e[at_e], attribution.part_e[at_e]
    on_image_e = attribution.side_s[position_e] == IMAGE
    where = patch_places(views)
    number_s = np.cumsum(attribution.image_s) - 1
    return {
        "patches": [
            (*where[number_s[s]], part)
            for s, part in zip(position_e[on_image_e][:N_PLACES].tolist(), part_e[on_image_e].tolist(), strict=False)
        ],
        "tokens": list(zip(position_e[~on_image_e][:N_PLACES].tolist(), part_e[~on_image_e].tolist(), strict=False)),
    }


def patch_places(views: Sequence[Any]) -> list[tuple[int, int, int]]:
    """View, row and column of each patch, in the model's order."""
    return [(v, row, col) for v, view in enumerate(views) for row in range(view.rows) for col in range(view.cols)]


def read_tokens(texts: Any, prompt: Prompt, answer_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The text that the model has read, and written, before the token that is explained."""
    from precompute.model.batch import TEXT

    ids = [*prompt.batch.inputs["input_ids"][0].tolist(), *answer_ids]
    n_prompt = len(ids) - len(answer_ids)
    is_own_token = [*(prompt.batch.modality_bs[0] == TEXT), *(True for _ in answer_ids)]
    at = [i for i, is_own in enumerate(is_own_token) if is_own]
    return [
        {"position": i, "text": text, "side": "text" if i < n_prompt else "answer"}
        for i, text in zip(at, texts(np.array([ids[i] for i in at], np.int64)), strict=True)
    ]


def test_of(engine: Engine, store: OpenStore, question: Question[ExplainTestRequest]) -> ExplanationTest:
    """What the answer is without the features and patches of the request, beside random removals. Runs in the live
    model's worker.

    Raises:
        HTTPException: 422, or 409 if it was cancelled.
    """
    from precompute.live.trial import Removal, random_removals, run_trial

    body = question.body
    if (reason := engine.sae.missing_direction_reason(body.ablate)) is not None:
        raise HTTPException(422, reason)
    with http_status(422):
        prompt = prompt_of(engine, store, body, question.pair)
        ids, _ = answer_of(prompt, store, question)
        where = patch_places(prompt.batch.views[0])
        removal = Removal(tuple(dict.fromkeys(body.ablate)), numbers_of(body, where), body.fill)
        features = np.unique(prompt.attribution(ids).feature_e).tolist() if removal.features else []
        draws = random_removals(
            removal, features, store.reader.features.family, len(where), n_draws=body.draws, seed=body.seed
        )
        trial = run_trial(prompt, ids, removal, draws, body.max_tokens, question.stop)
    return ExplanationTest.model_validate(described_test(engine, store, ids, trial, where))


def numbers_of(body: ExplainTestRequest, where: Sequence[tuple[int, int, int]]) -> tuple[int, ...]:
    """Numbers of the patches in the model's order. Raises HTTP 422 for a patch that does not exist."""
    number = {place: i for i, place in enumerate(where)}
    for view, row, col in body.patches:
        if (view, row, col) not in number:
            lack = f"no patch with view {view}, row {row}, column {col}" if where else "no patch, as there is no image"
            raise HTTPException(422, f"There is {lack}: choose others.")
    return tuple(sorted({number[view, row, col] for view, row, col in body.patches}))


def described_test(
    engine: Engine, store: OpenStore, ids: Sequence[int], trial: Trial, where: Sequence[tuple[int, int, int]]
) -> dict[str, Any]:
    """As `schemas.explain.ExplanationTest`."""
    from precompute.live.answers import word_numbers
    from precompute.live.trial import CHANGED, REMOVED, word_class

    texts, text_of = store.reader.vocabulary.texts(np.array(ids)), engine.mllm.text_of
    words = np.array(word_numbers(texts))
    no_image = trial.no_image
    outcomes = [trial.removed, *trial.random, *([no_image] if no_image else [])]
    before_w = np.bincount(words, trial.before_n)
    change, *controls = ((np.bincount(words, o.logprob_n) - before_w).tolist() for o in outcomes)
    refs = store.reader.features.refs(sorted({k for draw in trial.draws for k in draw.features}))
    return {
        "before": text_of(ids), "answer": text_of(trial.removed.answer),
        "no_image_answer": text_of(no_image.answer) if no_image else None,
        "words": [
            {
                "text": "".join(text for text, word in zip(texts, words, strict=True) if word == w),
                "logprob": float(before_w[w]), "change": change[w], "verdict": word_class(change[w]),
                "random_changes": [of_draw[w] for of_draw in controls[: len(trial.random)]],
                "no_image_change": controls[-1][w] if no_image else None,
                "no_image_verdict": word_class(controls[-1][w]) if no_image else None,
            }
            for w in range(len(before_w))
        ],
        "random": [
            {
                "features": [refs[k] for k in draw.features], "patches": [where[p] for p in draw.patches],
                "answer": text_of(outcome.answer),
            }
            for draw, outcome in zip(trial.draws, trial.random, strict=True)
        ],
        "removed_below": -REMOVED, "changed_from": CHANGED,
    }  # fmt: skip
