"""Families × families: which share samples, in an order in which blocks show; and the graph around one feature."""

from __future__ import annotations

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
    listed, concept = pairs.measures(at), store.features.concept
    first, second = concept[listed.a], concept[listed.b]
    weight = np.log2(np.maximum(listed.lift_low, 1))
    both = kind != "text-image"
    if both:
        of_both = np.concatenate([first, second]), np.concatenate([listed.a, listed.b])
        (rows, row_features) = (columns, column_features) = _strongest(*of_both, np.tile(weight, 2), n)
    else:
        rows, row_features = _strongest(first, listed.a, weight, n)
        columns, column_features = _strongest(second, listed.b, weight, n)
    inside = np.flatnonzero(np.isin(first, rows) & np.isin(second, columns))
    table = np.zeros((len(rows), len(columns)))
    row_c, column_c = np.searchsorted(rows, first[inside]), np.searchsorted(columns, second[inside])
    table[row_c, column_c] = weight[inside]
    if both:
        table = np.maximum(table, table.T)
    row_order = seriate(table)
    column_order = row_order if both else follow(table[row_order])
    row_place, column_place = np.argsort(row_order), np.argsort(column_order)
    refs = store.features.refs([*row_features.tolist(), *column_features.tolist()])
    values = {name: getattr(listed, name)[inside].tolist() for name in ("a", "b", *MEASURES)}
    values |= {"row": row_place[row_c].tolist(), "column": column_place[column_c].tolist()}
    values["n_alike"] = n_alike[inside].tolist()
    return {
        "kind": kind,
        "rows": [_family_ref(refs[f], store) for f in row_features[row_order].tolist()],
        "columns": [_family_ref(refs[f], store) for f in column_features[column_order].tolist()],
        "cells": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)],
    }


def _family_ref(ref: Item, store: Store) -> Item:
    return {**feature_ref(ref), "family": int(store.features.family[ref["id"]])}


def _strongest(concept_p: Array, feature_p: Array, weight_p: Array, n: int) -> tuple[Array, Array]:
    """int64 [≤ n], rising: the families with the largest sums of weights, and the feature of the first pair of each."""
    different, first, of_p = np.unique(concept_p, return_index=True, return_inverse=True)
    total = np.bincount(of_p, weight_p, len(different))
    chosen = np.sort(np.lexsort((different, -total))[:n])
    return different[chosen], feature_p[first[chosen]]


def seriate(table: Array) -> Array:
    """int64 [r]: an order of the rows in which neighbours are alike, by the cosine of their values.

    Args:
        table: float64 [r, c], at least 0.
    """
    if len(table) < 3:
        return np.arange(len(table))
    distance = pdist(unit(table))
    order: Array = leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance)).astype(np.int64)
    return order


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
        for one in items:
            m = one["modality"]
            kind = f"{m}-{m}" if group == "same" else "text-image"
            ends = (one["id"], feature) if group == "image_to_text" else (feature, one["id"])
            ends = ends if kind == "text-image" else (min(ends), max(ends))
            partners.append({**one, "kind": kind, "a": ends[0], "b": ends[1]})
    partners.sort(key=lambda one: -one["lift_low"])
    concept = store.features.concept
    best = {(one["modality"], int(concept[one["id"]])): one for one in reversed(partners)}  # the first of each stays
    by_side = [[one for (side, _), one in [*best.items()][::-1] if side == m][:n] for m in ("text", "image")]
    partners = [one for side in by_side for one in side]
    refs = store.features.refs([feature, *(one["id"] for one in partners)])
    texts, images = ({one["id"] for one in partners if one["modality"] == m} for m in ("text", "image"))
    links = []
    for kind, sides in {"text-image": (texts, images), "text-text": (texts,) * 2, "image-image": (images,) * 2}.items():
        pairs = store.cooccurrence.pairs[kind]
        numbers = [pairs.of(a, "a") for a in sorted(sides[0])]
        at = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        result = pairs.measures(at[np.isin(pairs.column("b")[at], sorted(sides[1]))])
        strong = np.flatnonzero((result.lift_low >= 1) & (result.lift >= 1.5) & (result.a != result.b))
        columns = {name: getattr(result, name)[strong].tolist() for name in ("a", "b", *MEASURES)}
        links += [{"kind": kind, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]
    return {
        "feature": _family_ref(refs[feature], store),
        "partners": [{**_family_ref(refs[one["id"]], store), **one} for one in partners],
        "links": links,
    }
