"""The reader's questions about samples: lists, one pair with scores and strongest features, its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select, text

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.base import feature_ref
from precompute.store.opening import IMAGES
from precompute.store.quality import QualityQueries
from precompute.store.sql import Columns, Page, fetch_plain, keyset_page, marks, match_words
from precompute.utils.types import Array

Item = dict[str, Any]


_SAMPLE = Columns(s.samples.c)


class SampleQueries(QualityQueries):
    """Answers about samples."""

    def samples(
        self,
        *,
        sort: str = "row",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        flag: str | None = None,
        threshold: float | None = None,
        q: str | None = None,
        ids: Iterable[str] | None = None,
    ) -> Page:
        """One page of samples; `flag` keeps those above its threshold (or above `threshold`)."""
        if sort not in s.SAMPLE_SORTS:
            raise SaevxError(f"Cannot sort samples by {sort!r}: use one of {', '.join(s.SAMPLE_SORTS)}.")
        c = s.samples.c
        where: list[ColumnElement[bool]] = []
        total, over = self.n_samples, threshold
        if flag is not None:
            known = self._flag(flag)
            total, over = known["count"], known["threshold"] if threshold is None else threshold
            where.append(c[s.flag_column(flag)] > over)
        wanted = None if ids is None else [str(i) for i in ids]
        if wanted is not None:
            where.append(c.sample_id.in_(wanted))
        if q and q.strip():
            match = match_words(q)
            found = text("SELECT rowid FROM sample_fts WHERE sample_fts MATCH :q").bindparams(q=match)
            where.append(c.row.in_(found.columns(c.row).scalar_subquery()) if match else c.row < 0)
        is_known = threshold is None and ids is None and not (q and q.strip())
        tag = self.list_tag("samples", sort=sort, order=order, flag=flag, over=over, q=q, ids=wanted)
        rows, total, after = keyset_page(
            self.engine, select(s.samples), by=_sample_sort(sort), key=c.row, order=order, limit=limit,
            cursor=cursor, tag=tag, where=where, n=self.n_samples, total=total if is_known else None,
        )  # fmt: skip
        return Page([self._sample_item(r._mapping) for r in rows], total, after)

    def _sample_rows(self, rows: Sequence[int]) -> list[Item]:
        return _SAMPLE.fetch(self.engine, f"samples WHERE row IN ({marks(len(rows))})", [int(r) for r in rows])

    def _sample_row(self, sample_id: str) -> Item:
        found = _SAMPLE.fetch(self.engine, "samples WHERE sample_id = ?", (str(sample_id),))
        if not found:
            raise _no_sample(sample_id)
        return found[0]

    def _sample_item(self, values: Mapping[Any, Any]) -> Item:
        thresholds = {f["name"]: f["threshold"] for f in self.flags}
        raised = [n for n, limit in thresholds.items() if (values[s.flag_column(n)] or -np.inf) > limit]
        return {
            **{k: values[k] for k in ("sample_id", "row", "text", "images", "n_text", "n_image")},
            "scores": {name: values[s.score_column(name)] for name in s.SCORES},
            "flags": raised,
        }

    def sample(self, sample_id: str, top: int = 24) -> Item:
        """One pair with scores, ranks, flags, reasons and strongest features (`GET /samples/{id}`)."""
        values = self._sample_row(sample_id)
        row, near_row = values["row"], values["near_row"]
        item = self._sample_item(values)
        flag_scores = {name: values[s.flag_column(name)] for name in s.FLAGS}
        others = (row - 1, row + 1, -1 if near_row is None else near_row)
        id_of = dict(fetch_plain(self.engine, "SELECT row, sample_id FROM samples WHERE row IN (?, ?, ?)", others))
        return {
            **item,
            **{
                k: values[k] for k in ("n_special", "n_sink", "fvu_text", "fvu_image", "extra", "near_cosine")
            },
            "near_sample_id": None if near_row is None else id_of[near_row],
            "views": [_view(v) for v in values["views"]],
            "score_ranks": self.rank_scores(item["scores"]),
            "flags": [self._flag_hit(row, name, flag_scores[name]) for name in item["flags"]],
            "flag_scores": flag_scores,
            "top_features": {name: self._top(row, m, top) for m, name in enumerate(s.MODALITIES)},
            "previous": id_of.get(row - 1),
            "next": id_of.get(row + 1),
        }

    def sample_id(self, row: int) -> str:
        return str(fetch_plain(self.engine, "SELECT sample_id FROM samples WHERE row = ?", (int(row),))[0][0])

    def original(self, row: int) -> Item:
        """By what a sample's pair is known again in the data: `sample_id`, `text`, `sha256` of each picture file."""
        found = self._sample_rows([row])[0]
        hashes = [one["sha256"] for one in found["images"]]
        return {"sample_id": found["sample_id"], "text": found["text"], "sha256": hashes}

    def row(self, sample_id: str) -> int:
        found = fetch_plain(self.engine, "SELECT row FROM samples WHERE sample_id = ?", (str(sample_id),))
        if not found:
            raise _no_sample(sample_id)
        return int(found[0][0])

    def _top(self, row: int, modality: int, top: int) -> list[Item]:
        return self.strongest(*self.events.maxima(row, modality), modality, top)

    def strongest(self, feature: Array, z: Array, modality: int, top: int) -> list[Item]:
        """The features with the largest share of their own maximum in that modality, as the pages list
        them.
        """
        largest = self.max_by_modality[feature, modality]
        share = np.divide(z, largest, out=np.zeros(len(z)), where=largest > 0)
        order = np.lexsort((feature, -share))[:top]
        refs = self.feature_refs(feature[order])
        return [
            {**feature_ref(refs[int(k)]), "activation": float(z[i]), "share": float(min(share[i], 1.0))}
            for i, k in zip(order, feature[order], strict=True)
        ]

    def image_path(self, sample_id: str, image: int = 0) -> Path:
        """WebP file of a sample's picture.

        Raises:
            SaevxError: no such sample or picture, or the store names a file outside its images.
        """
        images = self._sample_row(sample_id)["images"]
        if not 0 <= image < len(images):
            raise SaevxError(f"Sample {sample_id!r} has {len(images)} pictures: choose one, counted from 0.")
        name = str(images[image]["path"])
        if not name.startswith(IMAGES) or ".." in Path(name).parts:  # whoever made the store may be a stranger
            raise SaevxError(f"The image of sample {sample_id!r} is not among the images of the store: {name!r}.")
        return self.path / name


def _no_sample(sample_id: str) -> SaevxError:
    return SaevxError(f"No sample {sample_id!r} in this store: see the list of samples.")


def _sample_sort(sort: str) -> Any:
    if sort in s.SCORES:
        return s.samples.c[s.score_column(sort)]
    return s.samples.c[s.flag_column(sort)] if sort in s.FLAGS else s.samples.c.row


def _view(view: Any) -> Item:
    return {"rows": view[0], "cols": view[1], "box": view[2], "image": view[3]}
