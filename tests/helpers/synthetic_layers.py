"""The made-up store in another layer: the same samples and features, under other numbers, in other directions."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.utils.types import Array
from tests.helpers import synthetic
from tests.helpers.shared import made_once
from tests.helpers.synthetic import N_FEATURES, D, World, word_feature

SILENCED = "dog"
"""Word whose features another layer lacks."""


def layer_order(layer: int) -> Array:
    """int64 [F]: the feature of layer 3 that each feature of the layer is."""
    return np.random.Generator(np.random.PCG64(layer)).permutation(N_FEATURES)


def of_layer(world: World, layer: int) -> World:
    """The world of another layer: its directions have nothing in common with those of layer 3."""
    turn_dd = np.linalg.qr(np.random.Generator(np.random.PCG64(layer)).standard_normal((D, D)))[0].astype(np.float32)
    silent = tuple(word_feature(SILENCED) + i for i in range(3))
    return world._replace(
        order_f=layer_order(layer), silent=silent, layer=layer, directions_fd=world.directions_fd @ turn_dd
    )


def write_layer(out: Path, n: int = 240, seed: int = 0, layer: int = 7) -> dict[str, Any]:
    """A finished store of another layer at `out`; returns its manifest."""
    return synthetic.write_store(out, n, seed, of_layer=partial(of_layer, layer=layer))


def layer_store(factory: pytest.TempPathFactory) -> Path:
    """Layer 7 of the samples of `synthetic.small_store`; tests must not change it."""
    return made_once(factory, "synthetic-7", lambda root: write_layer(root / "store", 80)) / "store"
