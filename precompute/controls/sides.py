"""Which features are above δ on the text and on the image of each pair, read from a finished store."""

from typing import NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.steps.cooccur import chosen_rows
from precompute.steps.evidence.pair_evidence import Counts, count_samples, strata
from precompute.store.making.verify_evidence import delta
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.store.sql import fetch_plain
from precompute.utils.progress import progress_bar
from precompute.utils.ragged import offsets
from precompute.utils.stats import derangement
from precompute.utils.types import Array


class Sides(NamedTuple):
    """Pairs of a store, and what fires on either side of each."""

    row: Array
    """int64 [n], ascending."""
    stratum: Array
    """int64 [n]: pairs whose captions are of about one length."""
    text: csr_matrix
    """bool [n, F]: above δ on the text."""
    image: csr_matrix
    """bool [n, F]: above δ on the image."""

    @classmethod
    def read(cls, store: Store, limit: int) -> Self:
        """At most `limit` pairs, those with the smallest SHA-256 of the sample id.

        Raises:
            SaevxError: the store has no pairs.
        """
        rows = fetch_plain(store.engine, "SELECT row, sample_id, n_text, n_image FROM samples ORDER BY row")
        pairs = [r for r in rows if r[2] and r[3]]
        if not pairs:
            raise SaevxError(f"{store.path} has no sample with both text and image: choose a store of pairs.")
        pairs_read = [pairs[i] for i in chosen_rows([pair[1] for pair in pairs], limit)]
        row, text_n, image_n = (np.array([pair[i] for pair in pairs_read], dtype=np.int64) for i in (0, 2, 3))
        text, image = features_above(store, row, delta(store))
        return cls(row, strata(text_n, image_n), text, image)

    def counts(self, order: Array | None = None) -> Counts:
        """Pairs that have each feature.

        Args:
            order: int64 [n], the pair whose image stands beside each text; default: its own.
        """
        image = self.image if order is None else self.image[order]
        members = [np.flatnonzero(self.stratum == stratum) for stratum in range(int(self.stratum.max()) + 1)]
        blocks = ((stratum, self.text[at], image[at]) for stratum, at in enumerate(members))
        return count_samples(blocks, np.array([len(at) for at in members]), self.text.shape[1])

    def draw_exchange(self, rng: np.random.Generator) -> Array:
        """int64 [n]: for each text a random pair of the same stratum, whose image stands beside it; never its own pair,
        unless that is the only one."""
        order = np.arange(len(self.row))
        for stratum in range(int(self.stratum.max()) + 1):
            members = np.flatnonzero(self.stratum == stratum)
            order[members] = members[derangement(len(members), rng)]
        return order


def features_above(store: Store, rows: Array, delta_fm: Array) -> tuple[csr_matrix, csr_matrix]:
    """(text, image), bool [n, F]: from all activations, or from each side's 256 largest maxima where the store keeps
    those alone."""
    features: list[list[Array]] = [[], []]
    with progress_bar("read", len(rows), "pairs") as progress:
        for row in rows.tolist():
            for m in (TEXT, IMAGE):
                if store.events.kept_rows is None:
                    sample = store.events.of(row)
                    of_modality = sample.by_event(sample.modality_t == m)
                    feature, z = sample.feature_e[of_modality], sample.z_e[of_modality]
                else:
                    feature, z = store.events.maxima(row, m)
                features[m].append(np.unique(feature[z > delta_fm[feature, m]]))
            progress.update(1)
    shape = (len(rows), store.n_features)
    text, image = (
        csr_matrix((np.ones(len(flat), bool), flat, offsets(np.array(list(map(len, f))))), shape=shape)
        for f in features
        for flat in (np.concatenate(f),)
    )
    return text, image
