"""Families that are on in a sample, beside plain loops."""

import numpy as np
import pytest

from precompute.store.reader import Store


@pytest.mark.parametrize("in_a_family", [1, 3])
def test_a_sample_groups_families_by_where_they_are_on(made_up: Store, in_a_family: int) -> None:
    """Beside plain loops over families of so many features each."""
    store = Store.open(made_up.path)
    store.features._core.__dict__["concept"] = np.arange(store.n_features) // in_a_family * in_a_family
    table, n = store.features.table, store.n_samples
    for row in (3, 17, 60):
        product: dict[int, dict[str, dict[int, float]]] = {}
        for m, side in enumerate(("text", "image")):
            for k, z in zip(*store.events.maxima(row, m), strict=True):
                if z >= 0.1 * table["p999"][k]:
                    specificity = np.log(n / max(16, table[f"samples_{side}"][k]))
                    family = product.setdefault(k // in_a_family, {"text": {}, "image": {}})
                    family[side][int(k)] = min(z / table["p999"][k], 1) * specificity
        expected: dict[str, list[float]] = {"both": [], "image_only": [], "text_only": []}
        for sides in product.values():
            best = [max(of_side.values()) for of_side in sides.values() if of_side]
            where = "both" if len(best) == 2 else "text_only" if sides["text"] else "image_only"
            expected[where].append(min(best))
        groups = store.features.grouped([store.events.maxima(row, m) for m in (0, 1)], 256)
        assert groups.keys() == expected.keys() and any(expected.values())
        for where, items in groups.items():
            assert len(items) == len(expected[where])
            families = [product[item["id"] // in_a_family] for item in items]
            scores = [min(max(side.values()) for side in sides.values() if side) for sides in families]
            assert scores == pytest.approx(sorted(expected[where], reverse=True))
            for item, sides in zip(items, families, strict=True):
                assert item["members"] == sorted({*sides["text"], *sides["image"]})
                assert item["n_alike"] == len(item["members"]) - 1
                for side in ("text", "image"):
                    assert (item[f"share_{side}"] is None) == (not sides[side])
    store.close()
