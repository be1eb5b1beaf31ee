"""What a feature is, in one line and in sentences."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from backend.drawing.figures import format_significant, with_minus
from backend.drawing.text import visible
from backend.schemas.features import FeatureDetail, TopWord

DIFFERS = 0.3
"""Agreement below which the two sides of a feature differ."""


class Part(NamedTuple):
    """A part of the line that says what a feature is."""

    text: str
    side: str = ""
    """"text" or "image", of a part about one side."""


def summary(f: FeatureDetail, has_words: bool, has_images: bool = True) -> list[Part]:
    """What both sides show in a word each (of a store that has these words), how well they agree, and what else tells
    the feature. A store without images has one side."""

    def shown(name: str, word: TopWord | None, n_samples: int) -> str:
        if word is not None:
            return f"{name}: {visible(word.word)} {word.n}/{word.of}"
        return f"{name}: no common word" if n_samples else f"{name}: none"

    sides = (("text", "text", f.words.text, f.samples_text), ("images", "image", f.words.image, f.samples_image))
    parts = [Part(shown(name, word, n), side) for name, side, word, n in sides[: 1 + has_images] if has_words or not n]
    if f.agreement is not None:
        parts.append(Part(f"agreement {two(f.agreement)} ({two(f.agreement_low or 0)}–{two(f.agreement_high or 0)})"))
    if f.label_score is not None:
        parts.append(Part(f"name tested {two(f.label_score)}"))
    parts.append(Part(f"family of {f.n_members}" if f.n_members > 1 else "no near-copies"))
    if f.samples_image:
        parts.append(Part(f"tied to {f.place}" if f.place else "not tied to a place"))
    return parts


def snippet(feature: int, modality: str, band: str) -> str:
    """Python that reads the examples of the page and the feature's direction from the store (docs/python.md)."""
    opening = 'from precompute.store.reader import Store\n\nstore = Store.open("path/of/the/store")\n'
    if band == "counter":
        examples = f'store.counterexamples.of({feature}, modality="{modality}")'
    else:
        examples = f'store.examples.of({feature}, modality="{modality}", band={band})'
    place = '"".join(token["text"] for token in one["tokens"])' if modality == "text" else 'one["patch"], one["text"]'
    direction = f"direction = store.directions.get({feature}).raw_d  # its row of W_dec, float32 [d]\n"
    return f'{opening}{direction}for one in {examples}:\n    print(one["sample_id"], one["activation"], {place})\n'


def pair_sentences(f: FeatureDetail, evidence: Mapping[str, Any]) -> list[str]:
    """What was tested, against what, and what came out.

    Args:
        evidence: the manifest's `pair_evidence`.
    """
    if f.pair_p is None:
        n_both = f"{f.n_both or 0:,} have both"
        return [f"Not tested: that takes 16 pairs with it on the text and 16 with it on the image. {n_both}."]
    sentences = [
        f"Of {evidence.get('n_samples', 0):,} pairs {f.n_both or 0:,} have it on both text and image, "
        f"{times(f.pair_lift)} as by chance, with captions of one length exchanged "
        f"(95 % {f.pair_lift_low or 0:.1f} to {f.pair_lift_high or 0:.1f}; {probability(f.pair_p)})."
    ]
    if f.pair_p_alone is not None:
        sentences.append(
            f"With each text read without its image: {times(f.pair_lift_alone)} ({probability(f.pair_p_alone)})."
        )
    if f.agreement is None:
        return [*sentences, "Whether both sides mean the same was not measured: it has too few images, or no words."]
    low, high = f.agreement_low or 0, f.agreement_high or 0
    sentences.append(
        f"Agreement {two(f.agreement)} (95 % {two(low)} to {two(high)}): whether the captions of its 16 "
        "strongest images have its top words. 1 is always, 0 no more often than any caption."
    )
    return [*sentences, difference(f)] if f.agreement < DIFFERS else sentences


def difference(f: FeatureDetail) -> str:
    """In which words the two sides of a feature differ."""
    text, image = f.words.text, f.words.image
    on_text = f"its tokens are most often in “{visible(text.word)}”" if text else "its tokens have no common word"
    on_image = f"most often have “{visible(image.word)}”" if image else "have no common word"
    return f"So the two sides differ: {on_text}, and the captions of its strongest images {on_image}."


def two(value: float) -> str:
    """With two decimals."""
    return with_minus(f"{value:.2f}")


def times(lift: float | None) -> str:
    return "on none" if lift is None else f"{lift:.1f} times as many"


def probability(p: float) -> str:
    return f"p = {format_significant(p, 1)}" if p > 1e-300 else "p < 1e−300"
