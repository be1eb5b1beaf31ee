"""`store.sae`: how the SAE's features and its errors are spread over this data, from what the store holds."""

import json
from functools import cached_property

import numpy as np

from precompute.store.core import Core, feature_columns
from precompute.store.events import patches
from precompute.store.schema import MODALITIES, PLACE_SIDE
from precompute.store.sql import fetch_plain
from precompute.utils.ragged import expand
from precompute.utils.stats import histogram
from precompute.utils.types import Array, Item

N_SAMPLES, N_TOKENS, N_PLACED = 2_000, 1_000_000, 200
"""At most so many samples, evenly spaced, stand for all: each is looked up on its own, as their rows are long. At most
so many tokens of these; and so many samples for places."""
N_BINS = 32
DECADES, CELLS_PER_DECADE = 6, 5
"""Of the axes of densities, which end at 1; rarer features are counted in the lowest cells."""


class SaeFigures:
    """Distributions over features, samples, tokens and places."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @cached_property
    def density(self) -> Item:
        """Features by density on text and on images: `edges` of the cells after the first, which holds the features
        that never fire, and `counts` by text cell and image cell."""
        edges = 10.0 ** (np.arange(-DECADES * CELLS_PER_DECADE, 1) / CELLS_PER_DECADE)
        density_fm = feature_columns(self._core.engine, "density_text", "density_image")
        cell_fm = np.clip(np.searchsorted(edges, density_fm, "right"), 1, len(edges) - 1)
        cell_fm[density_fm == 0] = 0
        counts = np.zeros((len(edges), len(edges)), np.int64)
        np.add.at(counts, (cell_fm[:, 0], cell_fm[:, 1]), 1)
        return {"edges": edges.tolist(), "counts": counts.tolist()}

    @cached_property
    def fvu(self) -> Item:
        """By modality a histogram of the samples' FVU, of at most `N_SAMPLES` samples; `n` says of how many. The bins
        are the same; the last holds the highest half per cent too."""
        rows = evenly_spaced(np.arange(self._core.n_samples), N_SAMPLES)
        query = "SELECT fvu_text, fvu_image FROM samples WHERE row IN (SELECT value FROM json_each(?))"
        values = np.array(fetch_plain(self._core.engine, query, (json.dumps(rows.tolist()),)), np.float64)
        values_nm = values.reshape(-1, 2)
        finite = values_nm[np.isfinite(values_nm)]
        edges = histogram(np.minimum(finite, np.quantile(finite, 0.995)), N_BINS)["edges"] if len(finite) else []
        sides = {name: values_nm[np.isfinite(values_nm[:, m]), m] for m, name in enumerate(MODALITIES)}
        return {"n": len(rows)} | {
            name: {"edges": edges, "counts": np.histogram(np.minimum(side, edges[-1]), edges)[0].tolist()}
            if edges
            else {"edges": [], "counts": []}
            for name, side in sides.items()
        }

    @cached_property
    def l0(self) -> Item:
        """By modality a histogram of the number of active features of a token, of at most about `N_TOKENS` tokens of
        the samples whose events the store holds; `n` says of how many samples."""
        events, rows = self._core.events, self._rows
        first_r, length_r = events.sample_token[rows], np.diff(events.sample_token)[rows]
        begin_r = first_r if events.kept_rows is None else events.kept_token[np.searchsorted(events.kept_rows, rows)]
        modality_t = events.token_modality[expand(first_r, length_r)]
        event_t = expand(begin_r, length_r)
        n_active_t = (events.token_event[event_t + 1] - events.token_event[event_t]).astype(np.int64)
        width = int(n_active_t.max(initial=0)) // N_BINS + 1
        n_bins = int(n_active_t.max(initial=0)) // width + 1
        edges = (np.arange(n_bins + 1) * float(width)).tolist()
        bins = [np.bincount(n_active_t[modality_t == m] // width, minlength=n_bins) for m in range(len(MODALITIES))]
        return {"n": len(rows)} | {
            name: {"edges": edges, "counts": counts.tolist()} for name, counts in zip(MODALITIES, bins, strict=True)
        }

    @cached_property
    def l0_places(self) -> Item:
        """Mean number of active features of an image token by its place in the view: `rows` × `columns`, null where the
        data has no such place; from the events of `n` samples."""
        total, n_tokens = np.zeros(PLACE_SIDE**2), np.zeros(PLACE_SIDE**2)
        rows = evenly_spaced(self._rows, N_PLACED)
        query = "SELECT row, views FROM samples WHERE row IN (SELECT value FROM json_each(?))"
        for row, views in fetch_plain(self._core.engine, query, (json.dumps(rows.tolist()),)):
            grids = json.loads(views)
            if not grids:
                continue
            sample, size = self._core.events.of(row), np.array([g[:2] for g in grids], np.int64)
            at = patches(sample, grids)
            row_p, col_p = ((2 * k + 1) * PLACE_SIDE // (2 * size[at.view, i]) for i, k in enumerate((at.row, at.col)))
            np.add.at(total, row_p * PLACE_SIDE + col_p, np.diff(sample.offset_t)[at.position])
            np.add.at(n_tokens, row_p * PLACE_SIDE + col_p, 1)
        mean = [t / n if n else None for t, n in zip(total.tolist(), n_tokens.tolist(), strict=True)]
        grid = [mean[i : i + PLACE_SIDE] for i in range(0, PLACE_SIDE**2, PLACE_SIDE)]
        return {"n": len(rows), "mean": grid if n_tokens.any() else None}

    @property
    def fvu_places(self) -> Item:
        """FVU of image tokens by place, from all `n` samples: as `l0_places`; null in a store of an older version."""
        return {"n": self._core.n_samples, "mean": self._core.manifest["quality"].get("fvu_places")}

    @cached_property
    def _rows(self) -> Array:
        """int64 [n], rising: samples with events, evenly spaced."""
        events = self._core.events
        rows = np.arange(self._core.n_samples) if events.kept_rows is None else np.asarray(events.kept_rows)
        per_sample = max(1.0, len(events.token_modality) / max(1, self._core.n_samples))
        return evenly_spaced(rows, min(N_SAMPLES, int(N_TOKENS / per_sample) + 1))


def evenly_spaced(rows: Array, limit: int) -> Array:
    """At most `limit` of these rows, evenly spaced: int64 [n]."""
    n = min(limit, len(rows))
    return rows[np.arange(n) * len(rows) // max(n, 1)]
