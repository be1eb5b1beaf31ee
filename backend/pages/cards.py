"""Cards of samples, previews of features, and the lists of flags and scores that several pages show."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from markupsafe import Markup

from backend.drawing.heat import HeatImage, example_image
from backend.drawing.parts import preview, top_words
from backend.drawing.text import visible
from backend.links import Links
from backend.live.lru import Lru
from backend.pages.feature.examples import as_examples
from backend.pages.visit import PageVisit
from backend.schemas.live import SampleHit
from backend.schemas.samples import Flag, NearSample, Sample, SampleDetail, Score
from backend.stores import OpenStore
from precompute.store.schema import FLAGS, OF_IMAGES

THUMB = "&size=128"
CARD = "&size=320"
Key = tuple[str, str, str | None, int]
"""Content id, prefix and store of the links, feature."""
N_IMAGES = 3


CACHE: Lru[Key, Markup] = Lru(32_000_000, lambda preview: 2 * len(preview) + 500)
"""The previews drawn last: a store never changes, and most lists begin with the same features. In bytes, at most."""


def cached_previews(keys: Iterable[Key]) -> dict[Key, Markup]:
    return {key: preview for key in keys if (preview := CACHE.get(key)) is not None}


def previews(visit: PageVisit, ids: Iterable[int]) -> dict[int, Markup]:
    """By feature id, the preview that a list shows: at most three small images with activations, one per sample; for a
    feature without images its strongest tokens, each once."""
    links = Links(visit.request, visit.store)
    key_of = {id: (visit.store.content_id, links.base, links.store, id) for id in ids}
    svg_of = cached_previews(key_of.values())
    if missing_ids := [id for id, key in key_of.items() if key not in svg_of]:
        for id, preview in draw_previews(links, visit.store, missing_ids).items():
            svg_of[key_of[id]] = preview
            CACHE.put(key_of[id], preview)
    return {id: svg_of[key] for id, key in key_of.items()}


def word_lines(open_store: OpenStore, ids: Iterable[int]) -> dict[int, Markup]:
    """By feature id, both sides' top words, as a list shows them."""
    key_of: dict[int, Key] = {id: (open_store.content_id, "words", None, id) for id in ids}
    lines_of = cached_previews(key_of.values())
    for id, words in open_store.store.top_words.of_all(id for id, key in key_of.items() if key not in lines_of).items():
        lines_of[key_of[id]] = top_words(words)
        CACHE.put(key_of[id], lines_of[key_of[id]])
    return {id: lines_of[key] for id, key in key_of.items()}


def draw_previews(links: Links, open_store: OpenStore, ids: list[int]) -> dict[int, Markup]:
    """By feature id, a preview that is not in the cache."""
    by_patch = open_store.store.examples.strongest(ids, "image", N_IMAGES)
    images: dict[int, list[HeatImage]] = {}
    for id, items in by_patch.items():
        examples = as_examples(links.all_images(items))
        top = max((example.activation for example in examples), default=0.0)
        images[id] = [image for example in examples if (image := example_image(example, top, THUMB)) is not None]
    without_image = [id for id in ids if not images[id]]
    by_token = open_store.store.examples.strongest(without_image, "text", 2 * N_IMAGES) if without_image else {}
    words = {
        id: list(dict.fromkeys(visible(example["token"].strip() or example["token"]) for example in items))
        for id, items in by_token.items()
    }
    return {id: preview(images[id], words.get(id, [])[: N_IMAGES + 1]) for id in ids}


def card(
    sample: Sample | SampleDetail | SampleHit | NearSample, value: float | None = None, reason: str = ""
) -> dict[str, Any]:
    """A sample as the macro `sample_card` draws it: `value` in its corner, `reason` under it."""
    return {
        "sample_id": sample.sample_id,
        "text": sample.text,
        "url": sample.images[0].url + CARD if sample.images else None,
        "value": value,
        "flags": [FLAGS[name][0] for name in sample.flags] if isinstance(sample, Sample | NearSample) else [],
        "reason": reason,
        **{name: getattr(sample, name, None) for name in ("own_label", "tags", "reviewed")},
    }


def nearest_cards(samples: Sequence[SampleHit], has_images: bool) -> list[tuple[str, list[dict[str, Any]]]]:
    """Titles and cards of the samples that are near by their image, and of those near by their caption."""
    titles = (("image", "Nearest images"), ("text", "Nearest captions" if has_images else "Nearest texts"))
    groups = [(title, [card(s, s.cosine) for s in samples if s.modality == side]) for side, title in titles]
    return [group for group in groups if group[1]]


def list_flags(open_store: OpenStore) -> list[Flag]:
    """The flags that samples of the store can have, with thresholds and counts."""
    flags = open_store.store.quality.flags
    return [Flag.model_validate(flag) for flag in flags if is_possible(open_store, flag["name"])]


def is_possible(open_store: OpenStore, name: str) -> bool:
    """Whether samples of the store can have this score or flag."""
    return open_store.has_images or name not in OF_IMAGES


def worse_end(name: str) -> Literal["low", "high"] | None:
    """Which values of a score or a flag are those of worse samples; None where neither are."""
    return "high" if name in FLAGS else None if name == "random" else "low"


def colour_help(open_store: OpenStore) -> dict[str, tuple[str, str]]:
    """By score and flag: what it is and which end is worse, in words; and the order of a list that begins there."""
    words = {"low": "Low values are worse", "high": "High values are worse", None: "No value is worse than another"}
    order = {"low": "asc", "high": "desc", None: "asc"}
    texts = {flag.name: flag.description for flag in list_flags(open_store)}
    texts |= {flag.name: flag.description for flag in list_scores(open_store)}
    return {name: (f"{text}. {words[end]}.", order[end]) for name, text in texts.items() for end in [worse_end(name)]}


def list_scores(open_store: OpenStore) -> list[Score]:
    """The scores that samples of the store can have, with their distributions."""
    scores = open_store.store.quality.scores
    return [Score.model_validate(score) for score in scores if is_possible(open_store, score["name"])]
