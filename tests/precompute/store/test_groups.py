"""The groups of a sample's features, against a plain loop over its families."""

import pytest

from precompute.store import schema as s
from precompute.store.reader import Store
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(synthetic.small_store(tmp_path_factory))


def test_a_family_has_its_strongest_share_of_each_side(store: Store) -> None:
    p999, concept = store.features.table["p999"], store.features.concept
    n_rows = 0
    for row in range(0, store.n_samples, 7):
        sides = [dict(zip(*(one.tolist() for one in store.events.maxima(row, m)), strict=True)) for m in (0, 1)]
        groups = store.samples.get(store.samples.sample_id(row), 256)["groups"]
        for name, items in groups.items():
            for one in items:
                shares = [
                    max((z / p999[k] for k, z in side.items() if concept[k] == concept[one["id"]]), default=0.0)
                    for side in sides
                ]
                expected = [share if share >= s.DELTA_SHARE else None for share in shares]
                for m, side in enumerate(s.MODALITIES):
                    assert one[f"share_{side}"] == pytest.approx(expected[m])
                assert (
                    name
                    == {(True, True): "both", (False, True): "image_only", (True, False): "text_only"}[
                        expected[0] is not None, expected[1] is not None
                    ]
                )
                n_rows += 1
    assert n_rows > 50
