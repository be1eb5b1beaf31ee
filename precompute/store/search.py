"""`store.search`: by words, and by sample vectors (METHOD, *Search*), which stored samples and live queries share."""

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import NAME_FIELDS, Core, modality_code
from precompute.store.features import Features
from precompute.store.lists.matches import best_matches
from precompute.store.opening import damaged_error
from precompute.store.samples import Samples
from precompute.store.sql import PlainQuery, fetch_of, fetch_plain, match_words
from precompute.utils.ragged import strongest_in_runs
from precompute.utils.stats import ratio, unit
from precompute.utils.types import Array, Item

WIDTH = 256
"""Dimensions of a projected sample vector."""
PROJECTION_SEED = 20250217
"""A constant of the format: live queries must draw the same signs."""

FVU_SAMPLES = 2000
N_CAPTIONS = 1000
"""Captions that have the words, of which the shortest are shown."""
_WORD_HIT = PlainQuery(
    [
        *(s.features.c[name] for name in (*NAME_FIELDS, "verdict", "agreement", "omega", "lift", "n_samples")),
        s.feature_details.c.logits,
    ]
)
"""What a search by words shows of a feature."""


class Search:
    """Searches over features and samples."""

    def __init__(self, core: Core, features: Features, samples: Samples) -> None:
        self._core = core
        self._features = features
        self._samples = samples
        self._indices: dict[str, Any] = {}

    def words(self, q: str, limit: int = 20) -> Item:
        """Features by label and promoted tokens, in the order of `best_matches`, samples by caption (`GET /search`):
        {q, features, samples, and how many of each have all the words, of captions at most N_CAPTIONS}."""
        if not match_words(q):
            return {"q": q, "features": [], "n_features": 0, "samples": [], "n_samples": 0}
        ids = best_matches(self._core, q)[:limit].tolist()
        if len(ids) < limit:  # after those with all the words the ones with any
            ids = [*dict.fromkeys([*ids, *best_matches(self._core, q, every_word=False).tolist()])][:limit]
        features = self.features(ids)
        captions, n_captions = self._captions(q, limit)
        items = self._samples.items(captions)
        return {
            "q": q,
            "features": features,
            "n_features": self._n_features(q),
            "samples": [items[row] for row in captions],
            "n_samples": n_captions,
        }

    def features(self, ids: list[int]) -> list[Item]:
        """These features as a search by words shows them, in this order."""
        tables = "features JOIN feature_details ON feature_details.id = features.id WHERE features.id IN (?)"
        rows = {r["id"]: r for r in _WORD_HIT.fetch_of(self._core.engine, tables, ids)}
        features = []
        for id in ids:
            logits = rows[id].pop("logits")
            tokens = logits["centred"]["promoted"] if logits["informative"] else []
            features.append({**rows[id], "promoted": [token for token, _ in tokens]})
        return features

    def _n_features(self, q: str) -> int:
        """Features whose label and promoted tokens have all the words."""
        query = "SELECT count(*) FROM feature_fts WHERE feature_fts MATCH ?"
        ((n,),) = fetch_plain(self._core.engine, query, (match_words(q),))
        return int(n)

    def _captions(self, q: str, limit: int) -> tuple[list[int], int]:
        """Rows of captions that have all the words, the shortest first, being most about them; and how many have them.
        The last word may be the beginning of a longer one where too few captions have it whole.

        Of many captions the first N_CAPTIONS are looked at and counted: bm25 would count every caption first. So where
        that many have the whole words, the longer ones, which take longer to find, are not looked for."""
        captions = self._with(match_words(q, prefix=False))
        with_prefixes = captions if len(captions) == N_CAPTIONS else self._with(match_words(q))
        rows = self._shortest_rows(captions, limit)
        if len(rows) < limit:
            rows += [row for row in self._shortest_rows(with_prefixes, limit) if row not in rows]
        return rows[:limit], len(with_prefixes)

    def _with(self, match: str) -> list[int]:
        """Rows of the first captions that match."""
        query = f"SELECT rowid FROM sample_fts WHERE sample_fts MATCH ? LIMIT {N_CAPTIONS}"
        return [row for (row,) in fetch_plain(self._core.engine, query, (match,))]

    def _shortest_rows(self, rows: list[int], limit: int) -> list[int]:
        """Of these samples the ones with the shortest captions."""
        query_ids = "SELECT value FROM json_each(?)"
        query = f"SELECT row FROM samples WHERE row IN ({query_ids}) ORDER BY length(text), row LIMIT ?"
        return [row for (row,) in fetch_plain(self._core.engine, query, (json.dumps(rows), limit))]

    @cached_property
    def image_fvu_limit(self) -> float | None:
        """Fraction of variance unexplained that 99 % of the store's images do not exceed, from FVU_SAMPLES samples at
        equal distances; None without images."""
        rows = np.unique(np.linspace(0, self._core.n_samples - 1, FVU_SAMPLES).astype(int)).tolist()
        query = "SELECT fvu_image FROM samples WHERE fvu_image IS NOT NULL AND row IN (?)"
        values = [value for (value,) in fetch_of(self._core.engine, query, rows)]
        return float(np.quantile(values, 0.99)) if values else None

    def nearest_samples(self, vector: Array, modality: str, k: int = 12) -> list[Item]:
        """Samples whose vector of that modality is nearest: {sample_id, row, text, images, modality, cosine}.

        Args:
            vector: float32 [256], as `sample_vector` makes it.
        """
        modality_code(modality)
        if not np.any(vector):
            return []
        cosines, rows = self.index(f"sample_{modality}").search(np.asarray(vector, np.float32)[None], k)
        cosine_of = {int(r): float(c) for r, c in zip(rows[0], cosines[0], strict=True) if r >= 0}
        items = self._samples.items(cosine_of)
        return [
            {
                **{name: items[row][name] for name in ("sample_id", "row", "text", "images")},
                "modality": modality,
                "cosine": min(cosine, 1.0),
            }
            for row, cosine in cosine_of.items()
        ]

    def sample_vector(self, feature_k: Array, z_k: Array, modality: str) -> Array:
        """float32 [256]: the vector of a live query, as the store's own samples have it.

        Args:
            feature_k: int [k], the features active on the query's tokens of `modality`, rising.
            z_k: float [k], the largest activation (z) of each on these tokens.
        """
        n_features, table = self._core.n_features, self._features.table
        maxima = csr_matrix((np.asarray(z_k, np.float64), feature_k, [0, len(feature_k)]), shape=(1, n_features))
        n_with_f = table[f"samples_{modality}"]
        return np.asarray(sample_vectors(maxima, table["p999"], n_with_f, self._core.n_samples)[0])

    def vectors_of(self, row_n: Array) -> Array:
        """float32 [n, 512]: the text vectors of these rows beside their image vectors, over √2."""
        return joint_vectors([self.index(f"sample_{modality}") for modality in s.MODALITIES], row_n)

    def index(self, name: str) -> Any:
        """FAISS index `decoder`, `profile`, `sample_text` or `sample_image`, memory-mapped when first used.

        Raises:
            SaevxError: no such index, or it cannot be read.
        """
        file = f"index/{name}.faiss"
        if name not in self._indices:
            if not (self._core.path / file).is_file() and file not in self._core.stamps:
                raise SaevxError(f"This store has no index {name!r}.")
            path = self._core.file(file)
            try:
                self._indices[name] = map_index(path)
            except RuntimeError as error:
                raise damaged_error(self._core.path, f"{file} is cut off or no index") from error
        return self._indices[name]


def map_index(path: Path) -> Any:
    """A FAISS index, memory-mapped. Raises RuntimeError: it cannot be read."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def joint_vectors(sides: Sequence[Any], row_n: Array) -> Array:
    """float32 [n, 512]: the text vectors of these rows beside their image vectors, over √2.

    Args:
        sides: FAISS indexes `sample_text` and `sample_image`. row_n: int64 [n].
    """
    return np.concatenate([side.reconstruct_batch(row_n) for side in sides], axis=1) / np.float32(np.sqrt(2))


@lru_cache(maxsize=2)
def projection(n_features: int) -> Array:
    """float32 [F, 256] of ±1/16: the signs are the bits of NumPy's PCG64(20250217), `integers(0, 2, (F, 256))`."""
    rng = np.random.Generator(np.random.PCG64(PROJECTION_SEED))
    signs = rng.integers(0, 2, (n_features, WIDTH), dtype=np.int8)
    return (signs.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(WIDTH))


def sample_vectors(maxima: csr_matrix, p999: Array, n_with: Array, n_samples: int) -> Array:
    """Unit vectors float32 [n, 256] of samples in one modality; zero where nothing is active.

    Of each sample the 256 maxima largest relative to p99.9 count. Their weight is log(1 + z / p99.9) ·
    log(N / n), n the samples with an active token of that modality (n = 0 left out); scaled to length 1,
    projected, scaled again.

    Args:
        maxima: float64 CSR [n, F], largest z of each feature in each sample, features rising in a row.
        p999: float64 [F], the 99.9th percentile of each feature's activations (z).
        n_with: int or float [F], samples with the feature active in this modality.
        n_samples: N, samples of the store.
    """
    row = np.repeat(np.arange(maxima.shape[0]), np.diff(maxima.indptr))
    k = maxima.indices
    share = maxima.data / np.maximum(p999[k], 1e-30)
    counts = strongest_in_runs(share, maxima.indptr, s.KEPT_MAXIMA) & (n_with[k] > 0)
    row, k, share = row[counts], k[counts], share[counts]
    weight = np.log1p(share) * np.log(n_samples / np.maximum(n_with[k], 1))
    length = np.sqrt(np.bincount(row, weight**2, minlength=maxima.shape[0]))
    weight = ratio(weight, length[row])
    sparse_vectors = csr_matrix((weight.astype(np.float32), (row, k)), shape=maxima.shape)
    return unit(np.asarray(sparse_vectors @ projection(maxima.shape[1]), dtype=np.float32))
