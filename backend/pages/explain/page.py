"""Why this answer: the model is asked, a word of its answer divided among features, and the division tested."""

from math import exp
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import Field

from backend.api import samples as samples_api
from backend.api.samples import SampleQuery
from backend.drawing.heat import level
from backend.drawing.text import visible
from backend.links import uploaded_image
from backend.live.explain import request_explanation, request_test
from backend.pages.cards import sample_card
from backend.pages.explain import drawing
from backend.pages.sample.marks import MAX_CHOSEN
from backend.pages.sample.view import toggle
from backend.pages.steer import NO_SAMPLE, QUESTION, SCOPES, read_features
from backend.pages.visit import PageDep, PageVisit
from backend.params import FormQuery, parse_numbers
from backend.schemas.explain import (
    MAX_TOKENS,
    ExplainedFeature,
    ExplainRequest,
    ExplainTestRequest,
    Explanation,
    ExplanationTest,
)
from backend.templating import SampleKey

router = APIRouter(default_response_class=HTMLResponse)

NO_IMAGE = "This sample has no image: the model reads its text, then the question."
N_CANDIDATES = 8
"""Samples that are offered where words of a caption were given instead of an id."""
MAX_WORDS = 500
"""Characters of these words, as the list of samples takes them."""
N_STRONGEST = 6
"""Features that are ablated together at one click."""


class ExplainQuery(FormQuery):
    """What the page asks, which word it explains, and what it takes away."""

    sample: str | None = None
    """Id of a sample, or `none`; without it and without image and text the store's first sample."""
    sample_key: SampleKey = None
    """The same, as forms name it."""
    image: str | None = Field(default=None, max_length=64)
    """Hash of an uploaded image, instead of `sample`."""
    text: str = Field(default="", max_length=4000)
    """Text before the prompt."""
    prompt: str | None = Field(default=None, max_length=4000)
    max_tokens: int = Field(default=16, ge=1)
    feature: list[str] = Field(default_factory=list, max_length=32)
    """id:mode:strength of a steered run."""
    scope: str = ",".join(SCOPES)
    ask: bool = False
    """Whether the model is asked, or only the form shown."""
    token: int | None = Field(default=None, ge=0)
    """Token of the answer that is explained."""
    f: str | None = None
    """Features whose places are marked; the first one without."""
    ablate: list[int] = Field(default_factory=list, max_length=64)
    patches: str = Field(default="", max_length=20_000)
    """Patches to paint over, as view:row:first-last."""
    fill: str = Field(default="mean", pattern="^(mean|zero)$")
    seed: int = Field(default=0, ge=0, lt=2**31)

    def sample_id(self) -> str | None:
        return self.sample or self.sample_key

    def names_input(self) -> bool:
        """Whether the address says what to read: only then is the model asked before somebody presses a button."""
        if self.sample_id() == NO_SAMPLE:
            return bool(self.image or self.text or self.prompt)
        return bool(self.sample_id() or self.image or self.text)

    def question(self) -> str:
        return QUESTION if self.prompt is None else self.prompt


@router.get("/explain")
async def explain(visit: PageDep, query: Annotated[ExplainQuery, Query()]) -> HTMLResponse:
    """The form; where the model is to be asked, its answer or in a sentence why there is none."""
    if query.prompt is None and not visit.store.has_images:  # the usual question is of an image
        query = query.model_copy(update={"prompt": ""})
    refusal: HTTPException | None = None
    explanation, test = None, None
    sample = await run_in_threadpool(start_sample, visit, query)
    features, faults = await run_in_threadpool(read_features, visit.store, query.feature)
    try:
        if query.ask:
            body = wanted_of(query, sample, features)
            explanation = await request_explanation(visit, body)
            if query.ablate or query.patches:
                removal = {"ablate": query.ablate, "patches": drawing.parse_runs(query.patches)}
                about = {**body.model_dump(), **removal, "fill": query.fill, "seed": query.seed}
                test = await request_test(visit, ExplainTestRequest.model_validate(about))
    except HTTPException as error:
        refusal = error
    fields = {"sample": sample, "features": features, "faults": faults, "explanation": explanation, "test": test}
    return await run_in_threadpool(draw, visit, query, fields, refusal)


def start_sample(visit: PageVisit, query: ExplainQuery) -> str | None:
    """The sample of the address; without anything to read, the store's first."""
    if query.image or query.sample == NO_SAMPLE:
        return None
    if query.sample_id() or query.text:
        return query.sample_id()
    return visit.reader.samples.sample_id(0) if visit.reader.n_samples else None


def wanted_of(query: ExplainQuery, sample: str | None, features: list[dict[str, Any]]) -> ExplainRequest:
    """What the live model is asked."""
    scope: list[Any] = [part for part in query.scope.split(",") if part in SCOPES] or list(SCOPES)
    steered_features: list[Any] = [{name: f[name] for name in ("id", "mode", "strength", "family")} for f in features]
    return ExplainRequest(
        sample_id=sample, image_hash=query.image, text=query.text, prompt=query.question(),
        max_tokens=min(query.max_tokens, MAX_TOKENS), token=query.token, features=steered_features, scope=scope,
    )  # fmt: skip


def draw(visit: PageVisit, query: ExplainQuery, fields: dict[str, Any], refusal: HTTPException | None) -> HTMLResponse:
    """The page as HTML."""
    explanation: Explanation | None = fields["explanation"]
    images, text, note = input_of(visit, query, fields["sample"])
    candidates = samples_with(visit, fields["sample"]) if note and not images else []
    if refusal is not None and note == refusal.detail:
        note = None  # once is enough
    return visit.render(
        "explain.html", section="/explain", fault=refusal, q=query, **fields,
        live=visit.model, images=images, text=text, note=note, candidates=candidates,
        asks=refusal is None and not query.ask and query.names_input(),
        question=query.question(),
        refusal=str(refusal.detail) if refusal else None, max_tokens=min(query.max_tokens, MAX_TOKENS),
        shown=None if explanation is None else explanation_values(query, explanation, fields["test"], len(images)),
    )  # fmt: skip


def input_of(visit: PageVisit, query: ExplainQuery, sample: str | None) -> tuple[list[dict[str, Any]], str, str | None]:
    """What the model reads before the question: images as {url, width, height}, or the text of a sample without one;
    and a sentence where there is no image."""
    try:
        if query.image:
            return [uploaded_image(visit.request, query.image, visit.state.uploads.get(query.image).size)], "", None
        if sample is None:
            return [], "", None
        detail = samples_api.get_sample(visit.request, visit.store, sample)
    except HTTPException as error:
        return [], "", str(error.detail)
    note = None if detail.images or not visit.store.has_images else NO_IMAGE
    return [image.model_dump() for image in detail.images], "" if detail.images else detail.text, note


def samples_with(visit: PageVisit, words: str | None) -> list[dict[str, Any]]:
    """Cards of the first samples whose captions have the words, where no sample has them as its id."""
    if not words or len(words) > MAX_WORDS or visit.reader.samples.list(ids=[words], limit=1).items:
        return []
    matches = samples_api.get_samples(visit.request, visit.store, SampleQuery(q=words, limit=N_CANDIDATES))
    return [sample_card(sample) for sample in matches.items]


def explanation_values(
    query: ExplainQuery, explanation: Explanation, test: ExplanationTest | None, n_images: int
) -> dict[str, Any]:
    """The explanation as explain.html draws it."""
    feature_of = {f.id: f for f in (*explanation.raising, *explanation.lowering)}
    numbers = [k for k in parse_numbers(query.f, "f", MAX_CHOSEN) if k in feature_of] if query.f else []
    features: list[ExplainedFeature] = [feature_of[k] for k in numbers]
    features = features or explanation.raising[:1] or explanation.lowering[:1]
    patches = drawing.parse_runs(query.patches)
    word = explanation.tokens[explanation.token]
    return {
        "word": word.text,
        "probability": exp(word.logprob),
        "tokens": [
            {"text": token.text, "probability": exp(token.logprob), "level": level(exp(token.logprob), 1.0)}
            for token in explanation.tokens
        ],
        "sums": drawing.sums(explanation.parts),
        "groups": drawing.feature_rows(explanation),
        "numbers": [f.id for f in features],
        "chosen": features,
        "toggled": lambda feature: toggle(numbers, feature),
        "marks": [drawing.marks(explanation.views, features, i) for i in range(n_images)],
        "read": drawing.read_tokens(explanation, features),
        "painted": [drawing.patches_path(explanation.views, patches, i) for i in range(n_images)],
        "other_ablated": [k for k in query.ablate if k not in feature_of],
        "patches": drawing.runs(patches),
        "views": [view.model_dump() for view in explanation.views],
        "strongest": [f.id for f in explanation.raising[:N_STRONGEST]],
        "test": None if test is None else test_values(test, query, word.text),
    }


def sentence_of_test(test: ExplanationTest, word: str) -> str | None:
    """What the test says of the explained word; None where it is no word of the table."""
    word_row = next((w for w in test.words if word.strip() and word.strip() in w.text), None)
    if word_row is None:
        return None
    low, high = min(word_row.random_changes), max(word_row.random_changes)
    ends = list(dict.fromkeys((drawing.signed(low), drawing.signed(high))))  # one where they are equal to the eye
    span = f"{' to '.join(ends)} in the random removals"
    change = f"its log-probability changes by {drawing.signed(word_row.change)} nats"
    says = f"“{visible(word_row.text.strip())}” is {word_row.verdict}: {change}"
    if word_row.verdict == "kept":
        return f"{says} ({span}). What was taken away did not matter to it."
    return f"{says}, {'below' if word_row.change < low else 'no lower than'} the {span}."


def test_values(test: ExplanationTest, query: ExplainQuery, word: str) -> dict[str, Any]:
    """The test as the table has it."""
    words = []
    for row in test.words:
        random_changes = row.random_changes
        words.append(
            {
                "text": row.text,
                "probability": exp(row.logprob),
                "verdict": row.verdict,
                "change": drawing.signed(row.change),
                "random": drawing.signed(sum(random_changes) / len(random_changes)),
                "range": f"{drawing.signed(min(random_changes))} to {drawing.signed(max(random_changes))}",
                "beats": row.change < min(random_changes),
                "no_image": None if row.no_image_change is None else drawing.signed(row.no_image_change),
                "no_image_verdict": row.no_image_verdict,
            }
        )
    n_patches = len(drawing.parse_runs(query.patches))
    return {
        "words": words, "sentence": sentence_of_test(test, word), "answer": test.answer, "before": test.before,
        "random": test.random,
        "no_image": test.no_image_answer, "n_features": len(query.ablate), "n_patches": n_patches,
    }  # fmt: skip
