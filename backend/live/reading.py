"""A visitor's own pair as the live model reads it: all that a store has of one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi.concurrency import run_in_threadpool

from backend.deps import Visit
from backend.live.live_answers import as_views, number, reconstruction
from backend.live.query import OwnPair, Query, Reading
from backend.live.uploads import uploaded_pixels
from backend.stores import OpenStore
from precompute.live.feature_search import has_words, maxima
from precompute.store.schema import FLAGS, IMAGE, MODALITIES, SCORES, SINK, SPECIAL, TEXT

if TYPE_CHECKING:
    from PIL import Image

    from backend.live.engines import Engine
    from precompute.scoring.pairs import NewPairs

N_STRONGEST = 24
"""Features of each list."""


async def read_own(visit: Visit, pair: OwnPair) -> Reading:
    """The pair, read by the model or not long ago.

    Raises:
        HTTPException: 404 if the image is no longer held, 503 if the model is not ready or its queue is full.
        SaevxError: the model refuses the pair.
        ClientLeft: the client closed the connection while it waited.
    """
    if pair.image is not None:
        visit.state.uploads.get(pair.image)  # or what is cached would outlive it
    cache = visit.store.recomputed.readings
    if (cached_reading := cache.get(pair)) is not None:
        return cached_reading
    with visit.reserve() as reservation:
        images: list[Image.Image] = []
        if pair.image is not None:
            images = [await run_in_threadpool(uploaded_pixels, visit.state.uploads, pair.image, visit.state.settings)]

        def work(engine: Engine) -> Reading:  # held here, so that whoever left finds it when they come again
            return cache.get_or_make(pair, lambda: read_pair(engine, visit.store, pair.text, images))

        return await reservation.call(work, visit.request)


def read_pair(engine: Engine, store: OpenStore, text: str, images: Sequence[Image.Image]) -> Reading:
    """The features, scores and flags of a visitor's pair. Runs in the live model's worker.

    They are those that the pair would have in the store, except `random` and `near-duplicate`, which a single pair does
    not have. A text without image is read as a search reads it.

    Raises:
        SaevxError: the model refuses the pair.
    """
    from precompute.live.engine import Pair, caption_nll, read_query
    from precompute.scoring.flags import Reference, pair_fvu
    from precompute.scoring.pairs import live_pair

    reader, nll_3 = store.reader, caption_nll(engine.mllm, Pair(text, list(images)))
    encoded_pair = read_query(engine.mllm, engine.sae, reader.manifest, text, images)
    reference = Reference.from_store(reader)
    with TemporaryDirectory() as folder:
        pair = live_pair(reader, encoded_pair, text, images, Path(folder), nll_3)
        judgement = judge(store, pair, reference)
    fvu_2 = pair_fvu(pair.error_nm, pair.n_tokens_nm, reference.variance_m)[0]
    sides = [(side.indices.astype(np.int64), side.data) for side in pair.maxima]
    events, modality_t = encoded_pair.events(reader.scale_log2), np.asarray(encoded_pair.modality_t)
    modalities = tuple(m for m, present in ((TEXT, bool(text)), (IMAGE, bool(images))) if present)
    max_f2 = maxima(events, reader.n_features)
    query = Query(max_f2, modalities, events, encoded_pair.view_lists(), None, number(fvu_2[IMAGE]))
    words = np.flatnonzero(modality_t == TEXT)
    detail = {
        "text": text,
        "n_text": int(pair.n_tokens_nm[0, TEXT]),
        "n_image": int(pair.n_tokens_nm[0, IMAGE]),
        "n_special": int((modality_t == SPECIAL).sum()),
        "n_sink": int((modality_t == SINK).sum()),
        "views": as_views(query.views),
        "fvu_text": number(fvu_2[TEXT]),
        "fvu_image": number(fvu_2[IMAGE]),
        "reconstruction": reconstruction(reader, query),
        **judgement,
        "top_features": {
            name: reader.features.strongest(*sides[m], m, N_STRONGEST) for m, name in enumerate(MODALITIES)
        },
        "groups": reader.features.grouped(sides, N_STRONGEST),
    }
    # Without an image the first token of several words is not read (`queried_tokens`): it stands just before.
    unread = int(words[0]) - 1 if not images and has_words(text) and len(words) else None
    return Reading(detail, query, images[0].size if images else None, unread)


def judge(store: OpenStore, pair: NewPairs, reference: Any) -> dict[str, Any]:
    """Scores with their ranks among the store's samples, flags with their reasons. What only a text can have is no flag
    of an image alone.

    Args:
        reference: `precompute.scoring.flags.Reference` of the store.
    """
    from precompute.scoring.flags import flag_scores
    from precompute.scoring.reasons import reasons
    from precompute.scoring.scores import pair_scores

    quality = store.reader.quality
    scores = pair_scores(pair, reference.weights)
    flags = flag_scores(pair, scores, reference)
    flag_items = []
    for flag in quality.flags:
        name, value = flag["name"], flags[flag["name"]]
        if value[0] > flag["threshold"] and (pair.texts[0] or FLAGS[name][1] != "text"):
            reason = quality.reason(reasons(name, value, pair, reference)[0])
            about = {key: flag[key] for key in ("name", "title", "threshold")}
            flag_items.append({**about, "score": float(value[0]), "reason": reason})
    numbers = {name: number(scores[name][0]) for name in SCORES}
    return {
        "scores": numbers,
        "score_ranks": quality.rank_scores(numbers),
        "flags": flag_items,
        "flag_scores": {name: number(flags[name][0]) for name in FLAGS},
    }
