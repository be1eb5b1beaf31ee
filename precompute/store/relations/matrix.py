"""Families × families: which share samples, in an order in which blocks show; and the graph around one feature."""

from typing import Unpack

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist

from precompute.store.core import feature_ref
from precompute.store.reader import Store
from precompute.store.relations.feature_pairs import MEASURES, PairFilters
from precompute.utils.stats import unit
from precompute.utils.types import Array, Item


def matrix(store: Store, kind: str, n: int = 40, **filters: Unpack[PairFilters]) -> Item:
    """The `n` families of each side with the most and strongest pairs, and the strongest pair of every two.

    A family's strength is the sum over its listed pairs of log2 of the lift's lower bound, at least 0. Rows are ordered
    by hierarchical clustering with optimal leaf ordering; so are columns of a kind with one modality, which are the
    same families. Other columns follow the rows they belong to.

    Args:
        kind, filters: as `Cooccurrence.list`; a family here is what lists show as one (`Features.concept`).

    Returns:
        `rows` and `columns`: feature references, each with its `family`; `cells`: {row, column, a, b, n_alike, and
        `MEASURES`}, row and column being places in the two lists, a and b features.
    """
    pairs, (at, n_alike, _) = store.cooccurrence.pairs[kind], store.cooccurrence.ranked(kind, "lift_low", **filters)[1]
    measures, concept = pairs.measures(at), store.features.concept
    concept_a, concept_b = concept[measures.a], concept[measures.b]
    weight = np.log2(np.maximum(measures.lift_low, 1))
    is_symmetric = kind != "text-image"
    if is_symmetric:
        of_both = np.concatenate([concept_a, concept_b]), np.concatenate([measures.a, measures.b])
        (rows, row_features) = (columns, column_features) = _strongest_concepts(*of_both, np.tile(weight, 2), n)
    else:
        rows, row_features = _strongest_concepts(concept_a, measures.a, weight, n)
        columns, column_features = _strongest_concepts(concept_b, measures.b, weight, n)
    cell_pairs = np.flatnonzero(np.isin(concept_a, rows) & np.isin(concept_b, columns))
    table = np.zeros((len(rows), len(columns)))
    row_c, column_c = np.searchsorted(rows, concept_a[cell_pairs]), np.searchsorted(columns, concept_b[cell_pairs])
    table[row_c, column_c] = weight[cell_pairs]
    if is_symmetric:
        table = np.maximum(table, table.T)
    row_order = seriate(table)
    column_order = row_order if is_symmetric else follow(table[row_order])
    row_place, column_place = np.argsort(row_order), np.argsort(column_order)
    refs = store.features.refs([*row_features.tolist(), *column_features.tolist()])
    values = {name: getattr(measures, name)[cell_pairs].tolist() for name in ("a", "b", *MEASURES)}
    values |= {"row": row_place[row_c].tolist(), "column": column_place[column_c].tolist()}
    values["n_alike"] = n_alike[cell_pairs].tolist()
    return {
        "kind": kind,
        "rows": [_family_ref(refs[f], store) for f in row_features[row_order].tolist()],
        "columns": [_family_ref(refs[f], store) for f in column_features[column_order].tolist()],
        "cells": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)],
    }


def _family_ref(ref: Item, store: Store) -> Item:
    return {**feature_ref(ref), "family": int(store.features.family[ref["id"]])}


def _strongest_concepts(concept_p: Array, feature_p: Array, weight_p: Array, n: int) -> tuple[Array, Array]:
    """int64 [≤ n], rising: the families with the largest sums of weights, and the feature of the first pair of each."""
    distinct_concepts, first, of_p = np.unique(concept_p, return_index=True, return_inverse=True)
    total = np.bincount(of_p, weight_p, len(distinct_concepts))
    at = np.sort(np.lexsort((distinct_concepts, -total))[:n])
    return distinct_concepts[at], feature_p[first[at]]


def seriate(table: Array) -> Array:
    """int64 [r]: an order of the rows in which neighbours are alike, by the cosine of their values.

    Args:
        table: float64 [r, c], at least 0.
    """
    if len(table) < 3:
        return np.arange(len(table))
    distance = pdist(unit(table))
    return leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance)).astype(np.int64)


def follow(table: Array) -> Array:
    """int64 [c]: the columns by the mean row of their squared values, so that blocks lie along the diagonal."""
    weight = table**2
    mean = (np.arange(len(table))[:, None] * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-12)
    return np.argsort(mean, kind="stable")


def ego(store: Store, feature: int, n: int = 8) -> Item:
    """The graph around one feature: its strongest partners, and which of them share samples with each other.

    Returns:
        `feature`, `partners`: {id, name, …, modality, kind, a, b, and `MEASURES`} of the best of each other family,
        up to `n` on text and `n` on the image; `links` between partners: {kind, a, b, and `MEASURES`}.
    """
    groups = store.cooccurrence.partners(feature, n)
    partners = []
    for group, items in groups.items():
        for p in items:
            m = p["modality"]
            kind = f"{m}-{m}" if group == "same" else "text-image"
            ends = (p["id"], feature) if group == "image_to_text" else (feature, p["id"])
            ends = ends if kind == "text-image" else (min(ends), max(ends))
            partners.append({**p, "kind": kind, "a": ends[0], "b": ends[1]})
    partners.sort(key=lambda p: -p["lift_low"])
    concept = store.features.concept
    best_of: dict[tuple[str, int], Item] = {}  # from the strongest to the weakest
    for p in partners:
        best_of.setdefault((p["modality"], int(concept[p["id"]])), p)
    by_side = [[p for (side, _), p in best_of.items() if side == m][:n] for m in ("text", "image")]
    partners = [p for side in by_side for p in side]
    refs = store.features.refs([feature, *(p["id"] for p in partners)])
    texts, images = ({p["id"] for p in partners if p["modality"] == m} for m in ("text", "image"))
    links = []
    for kind, sides in {"text-image": (texts, images), "text-text": (texts,) * 2, "image-image": (images,) * 2}.items():
        pairs = store.cooccurrence.pairs[kind]
        numbers = [pairs.of(a, "a") for a in sorted(sides[0])]
        at = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        result = pairs.measures(at[np.isin(pairs.column("b")[at], sorted(sides[1]))])
        strong_pairs = np.flatnonzero((result.lift_low >= 1) & (result.lift >= 1.5) & (result.a != result.b))
        columns = {name: getattr(result, name)[strong_pairs].tolist() for name in ("a", "b", *MEASURES)}
        links += [{"kind": kind, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]
    return {
        "feature": _family_ref(refs[feature], store),
        "partners": [{**_family_ref(refs[p["id"]], store), **p} for p in partners],
        "links": links,
    }
