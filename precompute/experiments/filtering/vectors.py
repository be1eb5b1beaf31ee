"""Sample vectors of the filtering experiment's pairs, by which a set is chosen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from precompute.demo.drawing import draw
from precompute.experiments.filtering.pairs import Pair
from precompute.experiments.script import demo_engine
from precompute.live.engine import encode_pair, load_engine
from precompute.model import batch
from precompute.store.places import event_maxima
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
            sides = zip(event_maxima(encoded_pair.events(store.scale_log2)), MODALITIES, strict=True)
            vectors = [store.search.sample_vector(*maxima, name) for maxima, name in sides]
            rows.append(np.concatenate(vectors) / np.float32(np.sqrt(2)))
        store.close()
        with atomic_write(path) as file:
            np.save(file, np.stack(rows))
    return np.load(path, allow_pickle=False)
