"""The cross-entropies of `--nll`: of captions by themselves, and of some beside others' images."""

import numpy as np
import pytest

from precompute.collect.captions import row_of
from precompute.data.images import open_image
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.pipeline import Pipeline
from precompute.store.making.unfinished import Collected
from tests.helpers.tinies import Maker


def test_captions_alone_and_beside_other_images(options: Maker, whole: Mllm) -> None:
    """Of the pairs with the smallest hashes each caption is read once more, none beside its own image."""
    job = Pipeline(options(nll=True))
    data = Collected(job.part, job.collect())
    rows, other = job.session.data_and_plan[0].rows, data.sample["other_row"]
    chosen = np.flatnonzero(other >= 0)
    assert len(chosen) > 10 and (other[chosen] != chosen).all() and len(set(other[chosen])) == len(chosen)
    assert np.array_equal(np.isfinite(data.sample["other_nll"]), other >= 0)

    def nll(pair: Pair) -> float:
        return float(whole.hidden_and_nll(whole.prepare([pair]))[1][0])

    for row in chosen[:5].tolist():
        images = [open_image(image).image for image in rows[row].images]
        text, another = (data.samples[i]["text"] for i in (row, int(other[row])))
        measured = (data.sample[name][row] for name in ("caption_nll", "caption_nll_alone", "other_nll"))
        expected = nll(Pair(text, images)), nll(Pair(text, [])), nll(Pair(another, images))
        assert tuple(measured) == pytest.approx(expected, rel=1e-2)  # the pass may round above layer L


def test_rows_of_the_store_by_index_of_the_data() -> None:
    assert row_of(np.array([7, 2, 3, -1, 99]), np.array([2, 5, 7])).tolist() == [2, 0, -1, -1, -1]
