"""One line a name: what lists begin with."""

from typing import Any

import pytest

from precompute.store.reader import Store
from precompute.store.schema import GOOD_NAME
from tests.helpers.stores import walk


def group_of(feature: dict[str, Any]) -> str | int:
    """What a line of the list stands for: the first word of a name that passes its test, else the family."""
    good = feature["label"] and (feature["label_score"] or 0) >= GOOD_NAME
    if good:
        return str(feature["label"].partition(" (")[0].partition(",")[0].lower())
    return int(feature["id"] if feature["family"] is None else feature["family"])


def strength(feature: dict[str, Any]) -> tuple[float, float, int]:
    evidence = feature["evidence"]
    return -float("-inf" if evidence is None else evidence), -feature["max_activation"], feature["id"]


@pytest.mark.parametrize("filters", [{}, {"verdict": ["image-only"]}, {"q": "red"}], ids=str)
def test_one_line_a_name_is_the_strongest_of_each(made_up: Store, filters: dict[str, Any]) -> None:
    best: dict[str | int, dict[str, Any]] = {}
    for feature in walk(made_up.features.list, limit=50, **filters):
        one = best.setdefault(group_of(feature), feature)
        best[group_of(feature)] = min(one, feature, key=strength)
    folded = walk(made_up.features.list, limit=50, fold="names", **filters)
    assert [one["id"] for one in folded] == sorted(one["id"] for one in best.values())
    assert filters or len(folded) < made_up.n_features


def test_flagged_pairs_are_counted_once_and_reasons_by_sample(made_up: Store) -> None:
    flagged, used = 0, dict[int, int]()
    for sample in walk(made_up.samples.list, limit=50):
        flagged += bool(sample["flags"])
        own = {
            f["id"]
            for flag in made_up.samples.get(sample["sample_id"])["flags"]
            for f in (flag["reason"] or {"features": []})["features"]
        }
        for k in own:
            used[k] = used.get(k, 0) + 1
    assert made_up.quality.n_flagged == flagged < sum(flag["count"] for flag in made_up.quality.flags)
    ranked = sorted(used, key=lambda k: (-used[k], k))
    assert made_up.quality.features_of_reasons == ranked[:24] and ranked
