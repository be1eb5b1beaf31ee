"""The errors of the SAE by place of the image, against plain loops over the tokens."""

import numpy as np
import pytest
import torch

from precompute.data.images import open_image
from precompute.model.batch import IMAGE, Pair
from precompute.pipeline import Pipeline
from precompute.steps.flag import fvu_places, variance_of
from precompute.store.making.unfinished import Collected
from precompute.store.schema import PLACE_SIDE
from tests.helpers.tinies import Maker


def test_errors_by_place(options: Maker) -> None:
    job = Pipeline(options(shard_samples=9, sinks="keep"))
    data = Collected(job.part, job.collect())
    errors, counts = np.zeros((PLACE_SIDE, PLACE_SIDE)), np.zeros((PLACE_SIDE, PLACE_SIDE))
    mllm, sae, rows = job.session.mllm, job.session.sae, job.session.data_and_plan[0].rows
    for record in data.samples:
        row = next(one for one in rows if one.index == record["index"])
        made = mllm.prepare([Pair(row.text, [open_image(image).image for image in row.images])])
        patches = [(i, j, n, m) for n, m, *_ in record["views"] for i in range(n) for j in range(m)]
        with torch.inference_mode():
            hidden_td = mllm.hidden(made)[0]
            error_t = (hidden_td - sae.decode(sae.encode(hidden_td))).double().square().sum(-1).tolist()
        places = [error for error, kind in zip(error_t, made.modality_bs[0], strict=True) if kind == IMAGE]
        for (i, j, n, m), error in zip(patches, places, strict=True):
            place = (2 * i + 1) * PLACE_SIDE // (2 * n), (2 * j + 1) * PLACE_SIDE // (2 * m)
            errors[place] += error
            counts[place] += 1
    np.testing.assert_allclose(data.sample["sse_place"], errors, rtol=1e-3)
    assert data.sample["sse_place"].sum() == pytest.approx(data.sample["sse_image"].sum())

    variance = variance_of(data)
    of_images = variance.variance["image"]
    assert of_images is not None
    fvu = fvu_places(data, of_images)
    right = [
        [e / (n * of_images) if n else None for e, n in zip(*one, strict=True)]
        for one in zip(errors.tolist(), counts.tolist(), strict=True)
    ]
    assert fvu is not None and [[v is None for v in one] for one in fvu] == [[v is None for v in one] for one in right]
    shares = counts / counts.sum()
    assert (np.array(fvu, float)[counts > 0] * shares[counts > 0]).sum() == pytest.approx(variance.fvu["image"])
