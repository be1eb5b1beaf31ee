"""What step `index` does with decoder directions (centring, nearest directions, logit lens), over the two float32
products that no program goes without: all directions by each other, and by the unembedding.

The directions are random; the unembedding and the final norm are the demo model's. Random directions have no near
copies, so no product is left out; whether real ones give the same result is a test's to say.
"""

from typing import Any

import numpy as np
import torch

from precompute.model.mllm import Mllm
from precompute.products.setting import Products
from precompute.sae.directions import centre
from precompute.sae.logit_lens import logit_lens
from precompute.steps.index import nearest
from precompute.utils.types import Array
from tests.bench.common import Figure, Setup, alternately, ratio

FEATURES, ROUNDS = 16384, 5
PRODUCT_BYTES = 32 << 20
"""Of each piece of the bare products, so that they stay in the processor's cache as far as they can."""


def run(setup: Setup) -> dict[str, Any]:
    n_features, rounds = (256, 1) if setup.small else (FEATURES, ROUNDS)
    mllm = Mllm.load(setup.demo / "model", layer=0, device="cpu", dtype="float32")
    norm_weight_d, unembed_vd = (weight if weight is None else weight.numpy() for weight in mllm.logit_lens_weights())
    assert unembed_vd is not None
    rng = torch.Generator().manual_seed(0)
    directions_fd = torch.randn(n_features, unembed_vd.shape[1], generator=rng).numpy()
    alive_f, used = np.ones(n_features, dtype=bool), Products()

    def ours() -> None:
        nearest(centre(directions_fd, alive_f).unit_fd, products=used)
        logit_lens(directions_fd, alive_f, norm_weight_d, unembed_vd, products=used)

    def bare() -> None:
        multiply(directions_fd, directions_fd)
        multiply(directions_fd, unembed_vd)

    seconds = alternately({"ours": ours, "products": bare}, rounds)
    figure: Figure = {
        "what": "lens, neighbours and centring over the two float32 products alone",
        "value": ratio(seconds["ours"], seconds["products"]),
        "unit": "×",
        "goal": 0.6,
        "sense": "≤",
        "note": f"{n_features} random directions of {unembed_vd.shape[1]} numbers, {len(unembed_vd)} tokens; "
        f"{'with' if used.low else 'without'} bfloat16 units; of the bare products nothing is kept or looked at",
    }
    return {
        "options": {"features": n_features, "rounds": rounds},
        "figures": [figure],
        "seconds": seconds,
        "products": used.facts(),
    }


def multiply(left_fd: Array, right_nd: Array) -> None:
    """All products of rows of one with rows of the other, in float32."""
    right_dn = torch.from_numpy(right_nd).T
    for subset in torch.from_numpy(left_fd).split(max(1, PRODUCT_BYTES // (4 * len(right_nd)))):
        subset @ right_dn
