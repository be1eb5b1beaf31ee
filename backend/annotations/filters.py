"""What a list of features or samples takes of the annotations."""

import json
from collections.abc import Iterable

import numpy as np

from backend.annotations.book import Annotations
from precompute.store.lists.marked import Marked
from precompute.store.reader import Store
from precompute.utils.types import Array


def filter_of_notes(
    annotations: Annotations, store: Store, kind: str, *, tag: str | None, reviewed: bool | None, q: str | None
) -> Marked | None:
    """Which features or samples have the tag and are reviewed or not, and which have the words of `q` in what was
    written; None where that limits and adds nothing."""

    def numbers(keys: Iterable[str]) -> list[int]:
        if kind == "sample":
            return sorted(store.selection.rows_of(keys).values())
        return sorted(n for key in keys if (n := int(key)) < store.n_features)

    marked_ids = excluded_ids = None
    if tag is not None or reviewed:
        marked_ids = numbers(annotations.keys(kind, tag=tag, reviewed=True if reviewed else None))
    if reviewed is False:
        excluded_ids = numbers(annotations.keys(kind, reviewed=True))
    word_matches = numbers(annotations.search(kind, q)) if q and q.strip() else []
    if tag is None and reviewed is None and not word_matches:
        return None
    name = "" if tag is None and reviewed is None else json.dumps([tag, reviewed])
    return Marked(name, marked_ids, excluded_ids or (), word_matches)


def rightly_flagged(annotations: Annotations, store: Store, flag: str) -> Array:
    """bool [N]: the samples on which a person marked this flag as right."""
    bodies = [entry.body for entry in annotations.entries("mark") if entry.body]
    ids = [body["sample_id"] for body in bodies if body["flag"] == flag and body["right"]]
    is_right = np.zeros(store.n_samples, bool)
    is_right[[*store.selection.rows_of(ids).values()]] = True
    return is_right
