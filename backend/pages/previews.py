"""Previews of features, as lists on several pages show them: small images with heat, or tokens, and top words."""

from collections.abc import Callable, Iterable, Mapping

from markupsafe import Markup

from backend.drawing.heat import HeatImage, example_image
from backend.drawing.parts import preview, top_words
from backend.drawing.text import visible
from backend.links import ImageLinks
from backend.live.lru import Lru
from backend.pages.feature.examples import as_examples
from backend.pages.visit import PageVisit
from backend.stores import OpenStore

THUMB = "&size=128"
Key = tuple[str, str, str | None, int]
"""Content id, prefix and store of the links, feature."""
N_IMAGES = 3

CACHE: Lru[Key, Markup] = Lru(32_000_000, lambda preview: 2 * len(preview) + 500)
"""The previews drawn last: a store never changes, and most lists begin with the same features. In bytes, at most."""


def previews(visit: PageVisit, ids: Iterable[int]) -> dict[int, Markup]:
    """By feature id, the preview that a list shows: at most three small images with activations, one per sample; for a
    feature without images its strongest tokens, each once."""
    links = ImageLinks(visit.request, visit.store)
    key_of = {id: (visit.store.content_id, links.base, links.store, id) for id in ids}
    return with_cache(key_of, lambda ids: draw_previews(links, visit.store, ids))


def word_lines(open_store: OpenStore, ids: Iterable[int]) -> dict[int, Markup]:
    """By feature id, both sides' top words, as a list shows them."""
    key_of: dict[int, Key] = {id: (open_store.content_id, "words", None, id) for id in ids}
    words_of = open_store.reader.top_words.of_all
    return with_cache(key_of, lambda ids: {id: top_words(words) for id, words in words_of(ids).items()})


def with_cache(key_of: Mapping[int, Key], draw: Callable[[list[int]], dict[int, Markup]]) -> dict[int, Markup]:
    """By feature id, what the cache has, and what `draw` makes of the other ids."""
    parts = {id: part for id, key in key_of.items() if (part := CACHE.get(key)) is not None}
    if missing_ids := [id for id in key_of if id not in parts]:
        for id, part in draw(missing_ids).items():
            parts[id] = part
            CACHE.put(key_of[id], part)
    return parts


def draw_previews(links: ImageLinks, open_store: OpenStore, ids: list[int]) -> dict[int, Markup]:
    """By feature id, a preview that is not in the cache."""
    by_patch = open_store.reader.examples.strongest(ids, "image", N_IMAGES)
    images: dict[int, list[HeatImage]] = {}
    for id, items in by_patch.items():
        examples = as_examples(links.all_images(items))
        top = max((example.activation for example in examples), default=0.0)
        images[id] = [image for example in examples if (image := example_image(example, top, THUMB)) is not None]
    without_image = [id for id in ids if not images[id]]
    by_token = open_store.reader.examples.strongest(without_image, "text", 2 * N_IMAGES) if without_image else {}
    words = {
        id: list(dict.fromkeys(visible(example["token"].strip() or example["token"]) for example in items))
        for id, items in by_token.items()
    }
    return {id: preview(images[id], words.get(id, [])[: N_IMAGES + 1]) for id in ids}
