"""The examples of a feature as its page draws them: cards, and lines with the token in the middle."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from backend.api.features import ExampleQuery, example_items
from backend.drawing.heat import example_image, token_runs, tops
from backend.drawing.text import visible
from backend.pages.visit import PageVisit
from backend.schemas.common import Band
from backend.schemas.features import Example, FeatureDetail

BANDS: dict[Band, tuple[str, str]] = {
    "-1": ("top", "The samples with the highest activations, each once."),
    "0": ("high", "Random samples from the highest octave of its activations."),
    "1": ("½", "Random samples from one octave below the highest."),
    "2": ("¼", "Random samples from two octaves below the highest."),
    "3": ("low", "Random samples from all weaker activations, to check whether they show the same thing."),
    "counter": ("counter-examples", "Where the feature and its name part ways."),
}
COUNTER = {
    "off": "The caption has a word of the name, but on the {side} the feature is off (at most a tenth of its p99.9): "
    "it missed the thing, or the caption names what is not there. Captions that fit their image best come first.",
    "unnamed": "The feature is above half of its p99.9, but the caption has no word of the name.",
}
COUNTER_ALONE = {
    "off": "The text has a word of the name, but the feature is off (at most a tenth of its p99.9).",
    "unnamed": "The feature is above half of its p99.9, but the text has no word of the name.",
}
"""In a store of texts."""
UNITS = {"text": "tokens", "image": "patches"}
FOLDED_HELP = {
    "text": "Further samples with the same words around the token, or with a near-duplicate image and the same caption",
    "image": "Further samples with the same image file or a near-duplicate image",
    "alone": "Further samples with the same words around the token",
}
"""By side; `alone` in a store of texts."""


def as_examples(items: Iterable[Mapping[str, Any]]) -> list[Example]:
    """Examples as pages read them, from the store's own fields, which are not checked: a page has 800 tokens, and to
    check them takes half as long as to read them. What leaves as JSON is checked, see `api/features.get_examples`."""
    return [
        cast(Example, SimpleNamespace(**{
            **item,
            "images": [SimpleNamespace(**image) for image in item["images"]],
            "tokens": [SimpleNamespace(**token) for token in item["tokens"]],
            "patch": item["patch"] and SimpleNamespace(**item["patch"]),
            "grid": item["grid"] and SimpleNamespace(**item["grid"]),
        }))
        for item in items
    ]  # fmt: skip


def example_card(example: Example, top: tuple[float, float]) -> dict[str, Any]:
    """An example as feature.html draws it; `top` is the last step of the scale of text and of images."""
    image = example_image(example, top[1])
    where = f"“{visible(example.token)}”" if example.token else ""
    if example.patch:
        where = f"row {example.patch.row}, column {example.patch.col}"
    if example.n_active > 1:
        where = " · ".join(filter(None, [where, f"{example.n_active:,} {UNITS[example.modality]}"]))
    return {
        "sample_id": example.sample_id,
        "activation": example.activation,
        "where": where,
        "n_same": example.n_same,
        "peak": example.position if example.modality == "text" else None,
        "images": [image] if image else [],
        "tokens": token_runs(example.tokens, top[0]),
    }


def as_drawn(title: str | None, examples: list[Example], top: tuple[float, float]) -> dict[str, Any]:
    """A group of examples: as lines of a concordance where each has its token in the text, else as cards."""
    lines = bool(examples) and all(example.modality == "text" and example.position is not None for example in examples)
    return {"title": title, "lines": lines, "examples": [(line if lines else example_card)(e, top) for e in examples]}


def strongest_examples(visit: PageVisit, f: FeatureDetail, n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The n strongest examples on images as cards, and those on text as lines."""
    top = tops(f, None)
    images, lines = (
        as_drawn(None, as_examples(example_items(visit.request, visit.store, f.id, query)), top)
        for query in (ExampleQuery(modality="image", limit=n), ExampleQuery(modality="text", limit=n))
    )
    return [e for e in images["examples"] if e["images"]], lines["examples"] if lines["lines"] else []


def line(example: Example, top: tuple[float, float]) -> dict[str, Any]:
    """An example on text as a line of the concordance: what stands before its token, the token, what stands after."""
    at = next(i for i, token in enumerate(example.tokens) if token.position == example.position)
    return {
        **example_card(example, top),
        "n_active": f"{example.n_active:,} tokens" if example.n_active > 1 else "",
        "before": token_runs(example.tokens[:at], top[0]),
        "token": token_runs(example.tokens[at : at + 1], top[0]),
        "after": token_runs(example.tokens[at + 1 :], top[0]),
    }
