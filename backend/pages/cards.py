"""Cards of samples, previews of features, and the lists of flags and scores that several pages show."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from markupsafe import Markup

from backend.deps import OpenStore
from backend.links import Links
from backend.pages.heat import Picture, example_picture
from backend.pages.text import visible
from backend.schemas import Example, Flag, Sample, SampleDetail, SampleHit, Score
from backend.templating import drawn_glimpse
from precompute.store.schema import FLAGS

THUMB = "&size=128"
CARD = "&size=320"
Key = tuple[str, str, str | None, int, int]
"""Content id, prefix and store of the links, feature, number of pictures."""


class Remembered:
    """What was drawn last: a store never changes, and everybody's lists begin with the same features."""

    def __init__(self, most: int) -> None:
        self.most, self.lock = most, threading.Lock()
        self.found: OrderedDict[Key, Markup] = OrderedDict()

    def get(self, keys: Iterable[Key]) -> dict[Key, Markup]:
        with self.lock:
            known = {key: self.found[key] for key in keys if key in self.found}
            for key in known:
                self.found.move_to_end(key)
        return known

    def put(self, new: dict[Key, Markup]) -> None:
        with self.lock:
            self.found.update(new)
            while len(self.found) > self.most:
                self.found.popitem(last=False)


REMEMBERED = Remembered(4000)


def glimpses(request: Request, served: OpenStore, ids: Iterable[int], most: int = 3) -> dict[int, Markup]:
    """Small pictures with their heat, each sample once; failing that the strongest tokens, each once."""
    links = Links(request, served)
    key_of = {id: (served.content_id, links.base, links.store, id, most) for id in ids}
    known = REMEMBERED.get(key_of.values())
    if missing := [id for id, key in key_of.items() if key not in known]:
        new = {key_of[id]: one for id, one in fresh_glimpses(links, served, missing, most).items()}
        REMEMBERED.put(new)
        known |= new
    return {id: known[key] for id, key in key_of.items()}


def fresh_glimpses(links: Links, served: OpenStore, wanted: list[int], most: int) -> dict[int, Markup]:
    by_patch = served.store.examples.strongest(wanted, "image", most)
    pictures: dict[int, list[Picture]] = {}
    for id, items in by_patch.items():
        found = [Example.model_validate(one) for one in links.all_images(items)]
        top = max((one.activation for one in found), default=0.0)
        pictures[id] = [picture for one in found if (picture := example_picture(one, top, THUMB)) is not None]
    without = [id for id in wanted if not pictures[id]]
    by_token = served.store.examples.strongest(without, "text", 2 * most) if without else {}
    words = {
        id: list(dict.fromkeys(visible(one["token"].strip() or one["token"]) for one in items))
        for id, items in by_token.items()
    }
    return {id: drawn_glimpse(pictures[id], words.get(id, [])[: most + 1]) for id in wanted}


def card(sample: Sample | SampleDetail | SampleHit, shown: float | None = None, reason: str = "") -> dict[str, Any]:
    """A sample as the macro `sample_card` draws it: `shown` in its corner, `reason` under it."""
    return {
        "sample_id": sample.sample_id,
        "text": sample.text,
        "url": sample.images[0].url + CARD if sample.images else None,
        "shown": shown,
        "flags": [FLAGS[name][0] for name in sample.flags] if isinstance(sample, Sample) else [],
        "reason": reason,
    }


def list_flags(served: OpenStore) -> list[Flag]:
    return [Flag.model_validate(one) for one in served.store.quality.flags]


def list_scores(served: OpenStore) -> list[Score]:
    return [Score.model_validate(one) for one in served.store.quality.scores]
