"""Regions of a query's image, and the features of each (METHOD, *Search*).

The features that a whole image activates are mostly those of its background. Patches on which the same features are
strong form a region, and each region names its own features.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_matrix, diags
from scipy.spatial.distance import squareform

from precompute.live.feature_search import Ranked, is_dense
from precompute.store.events import Patches, SampleEvents, patches
from precompute.store.reader import Store
from precompute.store.schema import IMAGE
from precompute.utils.types import Array

CUT = 0.7
"""Cosine distance at which average linkage stops; chosen on validation scenes (docs/method.md)."""
MOST_CELLS = 2048
"""Patches that are clustered one by one; of a larger image neighbouring ones are taken together."""
N_BEST = 3
"""Families, those of one name as one, of a region that are listed, and count for its rank."""
N_MEMBERS = 12
"""Features of a family that are listed."""


class Region(NamedTuple):
    """Patches on which the same features are strong; p patches, n features."""

    background: bool
    """Whether no other region touches the image's border with more patches."""
    view_p: Array
    """int64: view of each patch."""
    row_p: Array
    """int64."""
    col_p: Array
    """int64."""
    feature_n: Array
    """int64: features, best first."""
    score_n: Array
    """float64."""


def groups(store: Store, events: SampleEvents | None, views: Sequence[Any], ranking: Ranked) -> list[dict[str, Any]]:
    """The image's regions, best first, then its background, then the features that are tied to a place: of each the
    best families, as `POST /search` has them. Without the query's events there are no regions.

    Args:
        views: [rows, cols, box, image] of each view. ranking: from `rank`, for the images.
    """
    features, table = store.features, store.features.table
    is_apart = is_dense(table) | features.has_place
    specificity = np.where(is_apart, 0, features.specificity[:, IMAGE])
    regions: list[Region] = []
    if events is not None and views:
        regions = find_regions(events, views, np.nan_to_num(table["p999"]), specificity, features.concept)
    result: list[tuple[str, list[tuple[int, ...]], Array, Array]] = []
    for region in regions:
        places = zip(region.view_p.tolist(), region.row_p.tolist(), region.col_p.tolist(), strict=True)
        kind = "background" if region.background else "region"
        result.append((kind, list(places), region.feature_n, region.score_n))
    of_place = features.has_place[ranking.feature] & ~ranking.dense
    if of_place.any():
        result.append(("place", [], ranking.feature[of_place], ranking.score[of_place]))
    return [
        {"kind": kind, "patches": places, "families": families(store, feature_n, score_n)}
        for kind, places, feature_n, score_n in result
    ]


def families(store: Store, feature_n: Array, score_n: Array) -> list[dict[str, Any]]:
    """The best families among features.

    Args:
        feature_n: int64 [n], best first. score_n: float64 [n].

    Returns:
        at most N_BEST of {family, features}, the features best first.
    """
    concept_n = store.features.concept[feature_n]
    concepts = concept_n[np.sort(np.unique(concept_n, return_index=True)[1])[:N_BEST]]
    members = [np.flatnonzero(concept_n == concept)[:N_MEMBERS] for concept in concepts]
    refs = store.features.refs(np.concatenate([feature_n[:0], *(feature_n[at] for at in members)]))
    return [
        {
            "family": int(store.features.family[feature_n[at[0]]]),
            "features": [
                {**refs[int(k)], "score": float(score)} for k, score in zip(feature_n[at], score_n[at], strict=True)
            ],
        }
        for at in members
    ]


def find_regions(
    events: SampleEvents, views: Sequence[Any], p999: Array, specificity: Array, concept: Array
) -> list[Region]:
    """The regions of a query's image, best first, the background last; sinks and patches without features in none.

    Args:
        views: [rows, cols, box, image] of each view.
        p999: float64 [F]. specificity: float64 [F], of the images; 0 for features that form no region.
        concept: int64 [F].
    """
    where = patches(events, views)
    weight_pf = weights(events, where, p999, specificity)
    has = np.flatnonzero(np.diff(weight_pf.indptr) > 0)
    where, weight_pf = Patches(*(column[has] for column in where)), weight_pf[has]
    if not len(has):
        return []
    label_p = cluster(weight_pf, where)
    border_p = on_border(where, views)
    total_f = np.maximum(np.asarray(weight_pf.sum(axis=0)).ravel(), 1e-30)
    at = [np.flatnonzero(label_p == label) for label in range(label_p.max() + 1)]
    background = max(range(len(at)), key=lambda i: (int(border_p[at[i]].sum()), len(at[i]), -i))
    regions = []
    for i, at_q in enumerate(at):
        own_qf = weight_pf[at_q]
        # Strong somewhere in the region, and not elsewhere.
        share_f = np.asarray(own_qf.sum(axis=0)).ravel() / total_f
        score_f = own_qf.max(axis=0).toarray().ravel() * share_f
        feature_n = np.flatnonzero(score_f)
        feature_n = feature_n[np.argsort(-score_f[feature_n], kind="stable")]
        view_q, row_q, col_q = (column[at_q] for column in where[1:])
        at_best = np.sort(np.unique(concept[feature_n], return_index=True)[1])[:N_BEST]
        rank = score_f[feature_n][at_best].sum() * (len(at_q) / len(has)) ** -0.25
        region = Region(i == background, view_q, row_q, col_q, feature_n, score_f[feature_n])
        regions.append((i == background, -rank, i, region))
    return [region for *_, region in sorted(regions, key=lambda r: r[:3])]


def weights(events: SampleEvents, where: Patches, p999: Array, specificity: Array) -> csr_matrix:
    """float64 CSR [p, F]: min(z / p99.9, 1) · specificity on each patch; nothing on sinks.

    Args:
        p999: float64 [F]. specificity: float64 [F], ≥ 0.
    """
    patch_t = np.full(len(events.modality_t), -1)
    patch_t[where.position] = np.arange(len(where.position))
    patch_t[events.modality_t != IMAGE] = -1
    patch_e, k = events.by_event(patch_t), events.feature_e
    has_weight = (patch_e >= 0) & (specificity[k] > 0) & (p999[k] > 0)
    k = k[has_weight]
    weight_e = np.minimum(events.z_e[has_weight] / p999[k], 1) * specificity[k]
    return csr_matrix((weight_e, (patch_e[has_weight], k)), shape=(len(where.position), len(p999)))


def cluster(weight_pf: csr_matrix, where: Patches) -> Array:
    """int64 [p]: the region of each patch, from 0: average linkage over the cosine distance of their weights."""
    block = ceil(sqrt(len(where.position) / MOST_CELLS))
    cells = np.stack([where.view, where.row // block, where.col // block])
    cell_p = np.unique(cells, axis=1, return_inverse=True)[1].ravel()
    n = len(cell_p)
    total_cf = csr_matrix((np.ones(n), (cell_p, np.arange(n)))) @ weight_pf
    unit_cf = diags(1 / np.sqrt(np.asarray(total_cf.multiply(total_cf).sum(axis=1)).ravel())) @ total_cf
    if unit_cf.shape[0] == 1:
        return np.zeros(n, np.int64)
    distance_cc = np.clip(1 - (unit_cf @ unit_cf.T).toarray(), 0, None)
    np.fill_diagonal(distance_cc, 0)
    tree = linkage(squareform(distance_cc, checks=False), "average")
    return (fcluster(tree, CUT, "distance").astype(np.int64) - 1)[cell_p]


def on_border(where: Patches, views: Sequence[Any]) -> Array:
    """bool [p]: patches at the edge of their image, which several views may cover."""
    rows, cols, box, image = zip(*views, strict=True)
    box_v4, image_v, n_v2 = np.array(box, float), np.array(image), np.stack([rows, cols], axis=1)
    edge_v4 = np.array([[*box_v4[image_v == i, :2].min(0), *box_v4[image_v == i, 2:].max(0)] for i in image_v])
    outer_p4 = (np.abs(box_v4 - edge_v4) < 1)[where.view]
    first_p2 = np.stack([where.col == 0, where.row == 0], axis=1)
    last_p2 = np.stack([where.col == n_v2[where.view, 1] - 1, where.row == n_v2[where.view, 0] - 1], axis=1)
    return (outer_p4 & np.concatenate([first_p2, last_p2], axis=1)).any(axis=1)
