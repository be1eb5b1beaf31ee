"""Opens a finished store and answers what pages and programs ask. Read-only; needs neither a GPU nor the
model.

Answers are plain dicts named as the public API names its fields. Features are integers 0…F−1, samples the
user's own ids, activations real SAE units (z). The questions are grouped by noun: `features`, `samples`,
`quality`, `places`, `rejected`; this module adds those about the whole store.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import func, select

from precompute.store import schema as s
from precompute.store.base import modality_code
from precompute.store.examples import PlaceQueries
from precompute.store.rejected import RejectedQueries
from precompute.store.run_info import created, read_run
from precompute.store.sql import Columns, Page, fetch_plain, marks, match_words
from precompute.utils.types import Array

Item = dict[str, Any]

__all__ = ["Page", "Store"]

LOOKED_AT = 1000
_NAMED = Columns(
    [
        *(s.features.c[name] for name in ("id", "label", "verdict", "omega", "lift", "n_samples")),
        s.feature_details.c.logits,
    ]
)
"""What a search by words shows of a feature."""


class Store(PlaceQueries, RejectedQueries):
    """A finished store, opened with `Store.open`."""

    @cached_property
    def summary(self) -> Item:
        """The manifest's public fields."""
        m = self.manifest
        return {
            "name": m["name"],
            "model": m["model"]["name"],
            "layer": m["model"]["layer"],
            "d_model": m["model"]["d_model"],
            "n_features": self.n_features,
            "n_samples": self.n_samples,
            "n_text_tokens": m["tokens"]["text"],
            "n_image_tokens": m["tokens"]["image"],
            "sae": m["sae"]["name"],
            "dataset": m["data"]["name"],
            "created": created(m, read_run(self.path)),
            "version": m["code_version"],
            "content_id": m["content_id"],
        }

    @cached_property
    def detail(self) -> Item:
        """`summary`, verdict counts, special and sink tokens, quality, and the manifest without its images."""
        c = s.features.c
        rows = self._all(select(c.verdict, func.count().label("n")).group_by(c.verdict))
        counts = {row.verdict: int(row.n) for row in rows}
        m = self.manifest
        return {
            **self.summary,
            "verdicts": {name: counts.get(name, 0) for name in s.VERDICTS},
            "n_special_tokens": m["tokens"]["special"],
            "n_sink_tokens": m["tokens"]["sink"],
            "n_quarantined": m["data"]["n_quarantined"],
            "delta": m["delta"],
            "quality": m["quality"],
            "manifest": m,
        }

    def quarantine(self) -> list[Item]:
        """All rejected rows of the data, with the reason."""
        return [dict(r._mapping) for r in self._all(select(s.quarantine).order_by(s.quarantine.c.idx))]

    def search_words(self, q: str, limit: int = 20) -> Item:
        """Features by label and promoted tokens, samples by caption (`GET /search`)."""
        if not match_words(q):
            return {"q": q, "features": [], "samples": []}
        # Features by that name come first, those with evidence on both sides and the best-fitting name ahead;
        # then the ones that only promote the word (bm25 is lower for better matches).
        named = (
            "SELECT f.rowid FROM feature_fts f JOIN features x ON x.id = f.rowid WHERE feature_fts MATCH ? "
            "ORDER BY x.verdict != 'cross-modal', x.label_score DESC, f.rowid LIMIT ?"
        )
        ranked = "SELECT rowid FROM feature_fts WHERE feature_fts MATCH ? ORDER BY bm25(feature_fts), rowid LIMIT ?"
        any_word = match_words(q, join=" OR ")
        found = fetch_plain(self.engine, named, (f"label : ({any_word})", limit))
        promoting = fetch_plain(self.engine, ranked, (any_word, limit))
        ids = list(dict.fromkeys(id for (id,) in [*found, *promoting]))[:limit]
        asked = f"feature_details ON feature_details.id = features.id WHERE features.id IN ({marks(len(ids))})"
        rows = {r["id"]: r for r in _NAMED.fetch(self.engine, f"features JOIN {asked}", ids)}
        features = []
        for id in ids:
            logits = rows[id].pop("logits")
            features.append({**rows[id], "promoted": [t for t, _ in logits["promoted"]]})
        order = self._captions(q, limit)
        by_row = {r["row"]: self._sample_item(r) for r in self._sample_rows(order)}
        return {"q": q, "features": features, "samples": [by_row[row] for row in order]}

    def _captions(self, q: str, limit: int) -> list[int]:
        """Rows of captions that have all the words, the last one whole or, failing that, as a beginning; the shortest
        first, being most about them. Of many the first thousand are looked at: bm25 would count every caption first."""
        query = (
            "SELECT row FROM samples WHERE row IN "
            f"(SELECT rowid FROM sample_fts WHERE sample_fts MATCH ? LIMIT {LOOKED_AT}) "
            "ORDER BY length(text), row LIMIT ?"
        )
        whole = [row for (row,) in fetch_plain(self.engine, query, (match_words(q, prefix=False), limit))]
        if len(whole) >= limit:
            return whole
        begun = [row for (row,) in fetch_plain(self.engine, query, (match_words(q), limit))]
        return list(dict.fromkeys([*whole, *begun]))[:limit]

    def nearest_samples(self, vector: Array, modality: str, k: int = 12) -> list[Item]:
        """Samples whose vector of that modality is nearest; `vector` as `sample_vectors.sample_vector` makes it."""
        modality_code(modality)
        if not np.any(vector):
            return []
        cosine, rows = self.index(f"sample_{modality}").search(np.asarray(vector, np.float32)[None], k)
        kept = [(int(r), float(c)) for r, c in zip(rows[0], cosine[0], strict=True) if r >= 0]
        by_row = {r["row"]: r for r in self._sample_rows([r for r, _ in kept])}
        return [
            {
                **{k: by_row[r][k] for k in ("sample_id", "row", "text", "images")},
                "modality": modality,
                "cosine": min(c, 1.0),
            }
            for r, c in kept
        ]
