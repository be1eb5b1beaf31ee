"""Sample vectors of the filtering experiment's pairs, by which a set is chosen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from precompute.demo.drawing import draw
from precompute.experiments.filtering.pairs import Pair
from precompute.experiments.script import demo_engine
from precompute.live.engine import encode_pair, load_engine
from precompute.model import batch
from precompute.scoring.pairs import largest_values
from precompute.store.reader import Store
from precompute.store.schema import MODALITIES
from precompute.utils.files import atomic_write


def pair_vectors(path: Path, pairs: Sequence[Pair], demo: Path) -> np.ndarray:
    """float32 [n, 512]: as `vectors_of` a store's samples, from the file where it lies there."""
    if not path.exists():
        store = Store.open(demo / "store")
        mllm, sae = load_engine(demo_engine(demo), store.manifest, full=False)
        rows = []
        for pair in pairs:
            encoded_pair = encode_pair(mllm, sae, store.manifest, batch.Pair(pair.caption, [draw(pair.scene)]))
            modality_e = np.repeat(encoded_pair.modality_t, np.diff(encoded_pair.offset_t))
            sides = []
            for m, name in enumerate(MODALITIES):
                is_e = modality_e == m
                feature, value = largest_values(encoded_pair.feature_e[is_e], encoded_pair.value_e[is_e])
                z = value.astype(np.float64) * 2.0**-store.scale_log2
                sides.append(store.search.sample_vector(feature, z, name))
            rows.append(np.concatenate(sides) / np.float32(np.sqrt(2)))
        store.close()
        with atomic_write(path) as file:
            np.save(file, np.stack(rows))
    return np.load(path, allow_pickle=False)
