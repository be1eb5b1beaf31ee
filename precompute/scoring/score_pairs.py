"""What `saevx score` says of some pairs: every score and flag, measured against a finished store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.collect.collector import thumb_path
from precompute.collect.shard import Sample
from precompute.data import Row
from precompute.model.mllm import IMAGE, TEXT
from precompute.scoring.pixels import pixel_flags, tiny
from precompute.scoring.token_support import text_excess
from precompute.steps.flag import fvu_of
from precompute.steps.score import Weights, chance, score_maxima
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, SCORES, flag_column, score_column
from precompute.utils.ragged import expand, offsets
from precompute.utils.text import has_letters, repeated_share
from precompute.utils.types import Array


class Standard(NamedTuple):
    """What of the store every pair is measured against."""

    weights: Weights
    p999_f: Array
    unit: float
    """One stored unit in z."""
    median_l0: float
    variance_m: list[float | None]
    """Of h, by modality; None in stores that do not tell."""
    mismatch_score: str
    threshold: dict[str, float]
    seed: int

    @classmethod
    def of(cls, store: Store) -> Standard:
        manifest, table = store.manifest, store.features.table
        variance = manifest["quality"].get("variance", {})
        return cls(
            Weights.of_store(store),
            table["p999"],
            2.0**-store.scale_log2,
            store.quality.score_median("l0"),
            [variance.get("text"), variance.get("image")],
            str(manifest.get("mismatch_score", "pooled-cosine")),
            {flag["name"]: float(flag["threshold"]) for flag in store.quality.flags},
            int(manifest["options"].get("seed", 0)),
        )


def measure(known: Standard, rows: list[Row], samples: list[Sample], thumbs: Path) -> dict[str, Array]:
    """Every score and flag score by its name, float64 [n] with NaN where it does not apply: the formulas of
    the steps `score` and `flag`, on a shard instead of the whole store.

    Args:
        thumbs: folder in which the pass has left the pictures' thumbnails.
    """
    n, n_features = len(samples), len(known.p999_f)
    token_n = np.array([len(sample.token_id_t) for sample in samples])
    kind_t, count_t, feature_e, value_e, feature, value = (
        np.concatenate([getattr(sample, name) for sample in samples])
        for name in ("modality_t", "count_t", "feature_e", "value_e", "max_feature", "max_value")
    )
    feature_e = feature_e.astype(np.int64)
    row_e = np.repeat(np.repeat(np.arange(n), token_n), count_t)
    position_e = np.repeat(np.concatenate([np.arange(m) for m in token_n]), count_t)
    kind_e = np.repeat(kind_t, count_t)
    n_side = np.stack([sample.max_m for sample in samples])
    start = offsets(n_side.reshape(-1))
    text, image = (
        csr_matrix(
            (
                value[at := expand(start[m:-1:2], n_side[:, m])].astype(np.float64) * known.unit,
                feature[at],
                offsets(n_side[:, m]),
            ),
            shape=(n, n_features),
        )
        for m in (TEXT, IMAGE)
    )
    n_tm = np.stack([np.array([(s.modality_t == m).sum() for s in samples]) for m in (TEXT, IMAGE)], axis=1)
    has_both = (n_side[:, TEXT] > 0) & (n_tm[:, IMAGE] > 0)

    found = score_maxima(text, image, known.weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["l0"] = np.bincount(row_e, minlength=n) / n_tm.sum(1).astype(np.float64)
    found["caption-nll"] = -np.array([sample.nll for sample in samples])
    found["random"] = chance([row.sample_id for row in rows], known.seed)

    at = np.flatnonzero(kind_e == TEXT)
    p999_e, p999_i = (np.maximum(known.p999_f[k], 1e-30) for k in (feature_e[at], image.indices))
    ratio = csr_matrix((image.data / p999_i, image.indices, image.indptr), shape=image.shape)
    ratio_e = value_e[at].astype(np.float64) * known.unit / p999_e
    excess = text_excess(row_e[at], position_e[at], feature_e[at], ratio_e, ratio, known.weights.support_f)
    lacking = np.full(n, np.nan)
    np.fmax.at(lacking, excess.row_t, excess.share_t)
    found["mismatch"] = np.where(has_both, 1 - found[known.mismatch_score], np.nan)
    found["unsupported"] = np.where(has_both, lacking, np.nan)
    found["near-duplicate"] = np.full(n, np.nan)  # it compares with the other pairs of a store
    found |= pixels(samples, thumbs)
    found["empty-text"] = np.array([float(not has_letters(row.text)) for row in rows])
    found["repeated-text"] = np.array([repeated_share(row.text) for row in rows])
    found["reconstruction"] = np.fmax(
        *(fvu_of(np.array([s.error_m[m] for s in samples]), n_tm[:, m].astype(np.float64), v)
          for m, v in enumerate(known.variance_m))
    )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        found["few-features"] = 1 - found["l0"] / np.float64(known.median_l0)
    found["n_text"], found["n_image"] = n_tm.T
    found["flags"] = np.stack([found[name] > known.threshold[name] for name in FLAGS], axis=1)
    return found


def pixels(samples: list[Sample], thumbs: Path) -> dict[str, Array]:
    """blank, dark, blurred and tiny, from thumbnails as a store keeps them."""
    places = [(i, j) for i, sample in enumerate(samples) for j in range(len(sample.record["images"]))]
    row_p = np.array([i for i, _ in places], dtype=np.int64)
    found: dict[str, Array] = {}
    for name, values in pixel_flags([thumb_path(thumbs, samples[i].index, j) for i, j in places]).items():
        found[name] = np.full(len(samples), np.nan)
        np.fmax.at(found[name], row_p, values)
    firsts = [(sample.record["images"] or [{"width": 0, "height": 0}])[0] for sample in samples]
    sides = (np.array([first[edge] for first in firsts]) for edge in ("width", "height"))
    return {**found, "tiny": tiny(*sides)}


def as_items(rows: list[Row], samples: list[Sample], found: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """Rows of the file: COLUMNS of score_file.py."""
    columns = {score_column(name): found[name].tolist() for name in SCORES}
    columns |= {flag_column(name): found[name].tolist() for name in FLAGS}
    for i, row in enumerate(rows):
        yield {
            "id": row.sample_id,
            "n_text": int(found["n_text"][i]),
            "n_image": int(found["n_image"][i]),
            **{name: values[i] if math.isfinite(values[i]) else None for name, values in columns.items()},
            "flags": [name for name, raised in zip(FLAGS, found["flags"][i], strict=True) if raised],
            "fields": {"text": row.text, **row.extra},
        }
