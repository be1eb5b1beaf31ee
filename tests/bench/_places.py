"""Places on a map, in groups as t-SNE makes them."""

from pathlib import Path
from typing import Any

import numpy as np

from precompute.steps.sample_map import LAID_OUT
from precompute.store import mapfile
from precompute.utils.types import Array


def grouped_places(rng: np.random.Generator, n: int) -> Array:
    """uint16 [n, 2]: places in groups of a hundred."""
    n_groups = max(1, n // 100)
    centre = rng.uniform(0.05, 0.95, (n_groups, 2))[rng.integers(0, n_groups, n)]
    return mapfile.quantise_places(centre + rng.normal(0, 0.01, (n, 2)))


def with_sample_map(part: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write a made-up map of samples into an unfinished store; its manifest with what it says of the map."""
    n = manifest["data"]["n_samples"]
    place, source = grouped_places(np.random.default_rng(0), n), np.arange(n) >= LAID_OUT
    mapfile.write_map(part / mapfile.SAMPLES_NAME, mapfile.SampleMap(place[:, 0], place[:, 1], source))
    summary = {"n": n, "laid_out": min(n, LAID_OUT), "k": 10, "preserved_neighbours": 0.3}
    return {**manifest, "sample_map": summary}
