"""What pages ask beyond a single endpoint of the API: thumbnails, cards, the two searches as one result."""

from __future__ import annotations

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from fastapi import HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from markupsafe import Markup
from PIL import Image

from backend.api import quality as quality_api
from backend.api import samples as samples_api
from backend.api import search as search_api
from backend.deps import OpenStore, State
from backend.links import Links
from backend.live.model_worker import Reservation
from backend.live.uploads import read_upload
from backend.pages.parts import Picture, example_picture, finest, heat
from backend.pages.templating import drawn_glimpse
from backend.pages.text import visible
from backend.schemas import Example, FeatureHit, Flag, Sample, SampleDetail, SampleHit, Score
from precompute.scoring.filter import kept_rows
from precompute.store.schema import FLAGS

THUMB = "&size=128"
CARD = "&size=320"
NOTHING: dict[str, Any] = {"ranked": None, "words": None, "dense": [], "n_dense": 0, "heats": {}}
"""A search result with no part filled in."""


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
    by_patch = served.store.strongest_examples(wanted, "image", most)
    pictures: dict[int, list[Picture]] = {}
    for id, items in by_patch.items():
        found = [Example.model_validate(one) for one in links.all_images(items)]
        top = max((one.activation for one in found), default=0.0)
        pictures[id] = [picture for one in found if (picture := example_picture(one, top, THUMB)) is not None]
    without = [id for id in wanted if not pictures[id]]
    by_token = served.store.strongest_examples(without, "text", 2 * most) if without else {}
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
    return [Flag.model_validate(one) for one in served.store.flags]


def list_scores(served: OpenStore) -> list[Score]:
    return [Score.model_validate(one) for one in served.store.scores]


def headline(scores: list[Score]) -> Score:
    """The score to show first: the one whose calibration on this data is best, else the first of the list."""
    known = [one for one in scores if one.auroc is not None]
    return max(known, key=lambda one: one.auroc.value if one.auroc else 0.0) if known else scores[0]


def offender(request: Request, served: OpenStore, sample_id: str, flag: str) -> dict[str, Any]:
    """A flagged sample's card with its flag score and, where the store keeps one, the reason."""
    found = samples_api.get_sample(request, served, sample_id, 1)
    reasons = [hit.reason.text for hit in found.flags if hit.name == flag and hit.reason]
    return card(found, found.flag_scores.get(flag), reasons[0] if reasons else "")


class Kept(NamedTuple):
    n: int
    cut: float | None
    """Smallest score that is kept."""


def kept(served: OpenStore, by: str, keep: float, flags: list[str]) -> Kept:
    """How many samples `GET /filter` would stream, and the score at the cut."""
    rows = kept_rows(served.store, by=by, keep=keep, flags=quality_api.flag_names(flags))
    values = served.store.score_values(by)[rows]
    return Kept(len(rows), float(values.min()) if len(rows) else None)


def word_search(request: Request, served: OpenStore, q: str) -> dict[str, Any]:
    """Features and captions that have the words."""
    hits = search_api.get_search(request, served, q)
    return {
        **NOTHING,
        "words": hits.features,
        "nearest": [("Captions with these words", [card(one) for one in hits.samples])],
        "n": len(hits.features),
    }


class Query(NamedTuple):
    """The image of a search: its size, an address that shows it small, and either its pixels or its sample."""

    size: tuple[int, int]
    url: str
    upload: Image.Image | None
    sample_id: str | None


async def query_image(
    request: Request, state: State, served: OpenStore, sample: str | None, upload: UploadFile | None
) -> Query | None:
    """The uploaded image, else that of `sample`, else None."""
    if upload is not None:
        image = await read_upload(upload, state.settings)
        return Query(image.size, await run_in_threadpool(data_url, image), image, None)
    if sample is None:
        return None
    images = (await run_in_threadpool(samples_api.get_sample, request, served, sample, 1)).images
    if not images:
        raise HTTPException(422, f"Sample {sample!r} has no image to search with.")
    return Query((images[0].width, images[0].height), images[0].url, None, sample)


def data_url(picture: Image.Image, edge: int = 160) -> str:
    """A small copy inside the page: an upload is kept nowhere, so it has no address to show it from."""
    small = picture.copy()
    small.thumbnail((edge, edge))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


async def live_search(
    request: Request, state: State, served: OpenStore, place: Reservation | None, q: str | None, image: Query | None
) -> dict[str, Any]:
    """What the model makes of an image, words or both, each feature with its heat on the image. Of a stored sample
    without words the pass has told already: then no `place` is needed."""
    if place is None:
        assert image is not None and image.sample_id is not None
        answer = await search_api.stored_search(request, state, served, image.sample_id)
    else:
        images = [] if image is None or image.upload is None else [image.upload]
        if image is not None and image.sample_id is not None:
            images = await search_api.sample_images(served, image.sample_id)
        answer = await search_api.live_search(request, place, served, images, q)
    return await run_in_threadpool(live_results, request, served, q, image, answer)


def live_results(
    request: Request, served: OpenStore, q: str | None, image: Query | None, answer: dict[str, Any]
) -> dict[str, Any]:
    found = search_api.as_live_search(request, served, answer)
    sides = [name for name, given in (("words", q), ("image", image)) if given]
    return {
        **NOTHING,
        "ranked": found.features,
        "heats": {hit.id: heat_on(hit, image) for hit in found.features} if image else {},
        "dense": found.dense,
        "n_dense": found.n_dense,
        "how": f"strongest on the {' and the '.join(sides)}, times how few samples have them",
        "words": search_api.get_search(request, served, q).features if q else None,
        "nearest": [
            (title, [card(one, one.cosine) for one in found.samples if one.modality == side])
            for side, title in (("image", "Nearest images"), ("text", "Nearest captions"))
            if any(one.modality == side for one in found.samples)
        ],
        "n": len(found.features),
    }


def heat_on(hit: FeatureHit, image: Query) -> Picture:
    """The query's image with this feature's values over it, in the finest view where it fires."""
    grid = finest([grid for grid in hit.grids or [] if grid.image == 0])
    if grid is None:
        return Picture(image.url, None)
    top = max((value for row in grid.values for value in row), default=0.0)
    return Picture(image.url, heat(grid, grid.values, top=top, size=image.size))
