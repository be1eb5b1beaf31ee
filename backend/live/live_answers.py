"""Search: with the live model, in its worker, by the offline pass's own code; or, for a stored sample, from the store
alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.live.query import Query
from backend.stores import OpenStore
from precompute.live.feature_search import OUTSIDE, maxima, rank
from precompute.live.regions import groups
from precompute.store.events import SampleEvents, dense_values, patches
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, MODALITIES, TEXT
from precompute.utils.types import Array

if TYPE_CHECKING:
    from PIL import Image

    from backend.live.engines import Engine


N_GRIDS = 24
"""Features whose grids over the image are in the reply."""
N_NEAREST = 12
"""Nearest samples for each modality of the query."""


def as_views(views: list[list[Any]]) -> list[dict[str, Any]]:
    """The views as `schemas.common.View` has them."""
    return [dict(zip(("rows", "cols", "box", "image"), view, strict=True)) for view in views]


def grids(events: SampleEvents, views: list[list[Any]], features: list[int]) -> list[list[dict[str, Any]]]:
    """Per feature and view: the view and its activations, rows of columns."""
    z_tk = dense_values(events, features)
    where = patches(events, views)
    grids_k: list[list[dict[str, Any]]] = [[] for _ in features]
    for index, view in enumerate(as_views(views)):
        of_view = where.view == index
        values_krc = np.zeros((len(features), view["rows"], view["cols"]))
        values_krc[:, where.row[of_view], where.col[of_view]] = z_tk[where.position[of_view]].T
        for column, values_rc in enumerate(values_krc.tolist()):
            grids_k[column].append({**view, "view": index, "values": values_rc})
    return grids_k


def live_query(engine: Engine, store: OpenStore, text: str, images: Sequence[Image.Image]) -> Query:
    """The query as the live model reads it."""
    from precompute.live.engine import read_query

    reader = store.reader
    encoded_pair = read_query(engine.mllm, engine.sae, reader.manifest, text, images)
    events = encoded_pair.events(reader.scale_log2)
    max_f2 = maxima(events, reader.n_features)
    modalities = tuple(m for m, present in ((TEXT, bool(text)), (IMAGE, bool(images))) if present)
    on_image = encoded_pair.modality_t == IMAGE
    total = int(on_image.sum()) * (reader.manifest["quality"].get("variance", {}).get("image") or 0)
    fvu = float(encoded_pair.error_t[on_image].sum() / total) if total else None
    tokens = reader.vocabulary.texts(events.token_id_t[events.modality_t == TEXT])
    return Query(max_f2, modalities, events, encoded_pair.view_lists(), None, fvu, tuple(tokens))


def stored_query(store: OpenStore, row: int, live_events: SampleEvents | None) -> Query:
    """The same for the image of a stored sample, or for its text if it has no image: without the model, from what the
    pass has stored.

    Args:
        live_events: the sample's events, if the store does not hold them. Without either, the stored maxima of the
            sample are ranked, and the reply does not say where on the image the features fire.
    """
    reader = store.reader
    item = reader.samples.get(reader.samples.sample_id(row), 1)
    events = reader.events.of(row) if reader.events.has(row) else live_events
    if events is not None:
        max_f2 = maxima(events, reader.n_features)
    else:
        max_f2 = np.zeros((reader.n_features, 2))
        for m in (TEXT, IMAGE):
            feature, z = reader.events.maxima(row, m)
            max_f2[feature, m] = z
    modalities = (IMAGE,) if item["images"] else (TEXT,)
    views = [[view["rows"], view["cols"], view["box"], view["image"]] for view in item["views"]]
    return Query(max_f2, modalities, events, views, row, item["fvu_image"])


def search(store: OpenStore, query: Query, limit: int, patch: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """METHOD, *Search*: ranked features, dense features, and the nearest samples of each modality.

    Args:
        patch: view, row and column of a patch: only features that are active on it are ranked.
    """
    reader, (max_f2, modalities, events, views, *_) = store.reader, query
    whole_ranking = rank(max_f2, reader.features, modalities)
    ranking = whole_ranking if patch is None else rank(query.at_patch(patch), reader.features, modalities)

    def feature_hits(mask: Array, with_grids: bool) -> list[dict[str, Any]]:
        places = np.flatnonzero(mask)[:limit]
        ids = [int(k) for k in ranking.feature[places]]
        refs = reader.features.refs(ids)
        table = reader.features.table
        drawn_ids = ids[:N_GRIDS] if with_grids and IMAGE in modalities else []
        grids_k = grids(events, views, drawn_ids) if events is not None and drawn_ids else []
        return [
            {
                **refs[k],
                "score": float(ranking.score[at]),
                **{f"strength_{name}": number(ranking.strength[at, m]) for m, name in enumerate(MODALITIES)},
                **{f"score_{name}": number(ranking.score_by[at, m]) for m, name in enumerate(MODALITIES)},
                "outside": bool(np.nanmax(ranking.strength[at]) > OUTSIDE),
                "density_text": float(table["density_text"][k]),
                "density_image": float(table["density_image"][k]),
                "grids": grids_k[place] if place < len(grids_k) else None,
            }
            for place, (at, k) in enumerate(zip(places, ids, strict=True))
        ]

    return {
        "features": feature_hits(~ranking.dense, True),
        "dense": feature_hits(ranking.dense, False),
        "n_dense": int(ranking.dense.sum()),
        "groups": groups(reader, events, views, whole_ranking) if IMAGE in modalities else [],
        "samples": nearest(reader, query),
        "views": as_views(views),
        "tokens": list(query.tokens),
        "reconstruction": reconstruction(reader, query),
    }


def nearest(reader: Store, query: Query) -> list[dict[str, Any]]:
    """The samples nearest to the query, of each of its modalities."""
    samples: list[dict[str, Any]] = []
    for modality in query.modalities:
        feature_k = np.flatnonzero(query.max_f2[:, modality])
        vector = reader.search.sample_vector(feature_k, query.max_f2[feature_k, modality], MODALITIES[modality])
        samples_near = reader.search.nearest_samples(vector, MODALITIES[modality], N_NEAREST + (query.row is not None))
        samples += [sample for sample in samples_near if sample["row"] != query.row][:N_NEAREST]
    return samples


def reconstruction(reader: Store, query: Query) -> dict[str, Any] | None:
    """How well the SAE rebuilds the query's image, beside the store's images; None without an image or figures."""
    if query.fvu is None or IMAGE not in query.modalities:
        return None
    limit = reader.search.image_fvu_limit
    store_fvu = (reader.manifest["quality"].get("fvu") or {}).get("image")
    return {"fvu": query.fvu, "store_fvu": store_fvu, "limit": limit, "unlike": limit is not None and query.fvu > limit}


def number(value: float) -> float | None:
    """The value as JSON can carry it: None for NaN."""
    return None if np.isnan(value) else float(value)
