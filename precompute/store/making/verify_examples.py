"""Part of `saevx verify`: do the examples follow from the events, and is each what it says of its sample?"""

import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import feature_columns
from precompute.store.events import of_bits
from precompute.store.making.example_views import number_files, views
from precompute.store.reader import Store
from precompute.store.schema import BAND, N_BANDS, TOP
from precompute.store.sql import fetch_plain
from precompute.utils.ragged import find, rank_in_run, run_starts

Array = NDArray[np.int64]
FEATURES_AT_ONCE = 1 << 12
COLUMNS = ("feature", "modality", "band", "rank", "row", "position", "value", "n_active", "n_same")


def need(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise SaevxError(message)


def table(store: Store, sql: str, width: int) -> Array:
    """int64 [n, width]: the rows of a query."""
    rows = fetch_plain(store.engine, sql)
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64, width * len(rows)).reshape(-1, width)


def image_records(store: Store) -> Iterator[tuple[list[str], str]]:
    """The SHA-256 of each sample's image files, and its views as JSON, in row order."""
    query = "SELECT images, views FROM samples ORDER BY row"
    with store.engine.connect() as conn:
        for images, grids in conn.execution_options(yield_per=1000).exec_driver_sql(query):
            yield [image["sha256"] for image in json.loads(images)], grids


class EventRun(NamedTuple):
    """The events of a run of samples."""

    rows: Array
    """int64 [n], rising: all samples between two rows whose events the store holds."""
    token_e: Array
    """int64 [e], rising: the token, counted over the tokens of all samples."""
    feature_e: Array
    """int64 [e]."""
    value_e: Array
    """float16 [e], in stored units."""


class ByGroup(NamedTuple):
    """The events of a run, sorted by sample, modality and feature, then value."""

    group: Array
    """int64 [e]: ((row − first row) · 2 + modality) · F + feature."""
    bits: Array
    """int64 [e]: the 16 bits of the float16 value; for positive values they order as the values do."""
    last: Array
    """int64 [g]: the index of each group's largest value."""


class ExampleTable:
    """All examples of a store as columns, each int64 [n] in the table's order; names with _fm are [F, 2]."""

    def __init__(self, store: Store) -> None:
        self.store, self.n_features = store, store.n_features
        # In chunks of features: the driver makes a Python object of every number.
        query = f"SELECT {', '.join(COLUMNS)} FROM examples WHERE feature BETWEEN {{}} AND {{}} ORDER BY 1, 2, 3, 4"
        blocks = [
            table(store, query.format(low, low + FEATURES_AT_ONCE - 1), len(COLUMNS))
            for low in range(0, self.n_features, FEATURES_AT_ONCE)
        ]
        columns = np.concatenate(blocks).T.copy()
        self.feature, self.modality, self.band, self.rank, self.row, self.position, self.bits = columns[:7]
        self.n_active, self.n_same = columns[7:]
        self.list = (self.feature * 2 + self.modality) * (N_BANDS + 1) + self.band + 1
        self.begin = run_starts(self.list)
        self.token = store.events.sample_token[self.row] + self.position
        self.by_row = np.argsort(self.row, kind="stable")
        max_fm = (store.features.max_by_modality / store.events.unit).astype(np.float16)
        self.octave_fm = octaves(max_fm)
        top = np.flatnonzero(self.band == -1)
        self.weakest_fm = np.full((self.n_features, 2), 1 << 16)
        np.minimum.at(self.weakest_fm, (self.feature[top], self.modality[top]), self.bits[top])
        self.n_above_fm = np.zeros((self.n_features, 2), np.int64)

    def __len__(self) -> int:
        return len(self.row)

    def check_lists(self) -> None:
        """Checks that need the table and the lists of tokens only, and no events."""
        e = self.store.events
        need((self.token < e.sample_token[self.row + 1]).all(), "an example lies beyond its sample")
        need((e.token_modality[self.token] == self.modality).all(), "an example has the wrong modality")
        need((np.diff(self.list) >= 0).all(), "the examples are not in order")
        need((self.rank == rank_in_run(self.list)).all(), "ranks of examples have gaps")
        need(distinct(self.list, self.row), "a sample stands twice in a list of examples")
        need((self.n_active > 0).all() and (self.n_same >= 0).all(), "an example's counts are no counts")
        top = self.band == -1
        follows = top[1:] & (self.list[1:] == self.list[:-1])
        falls = (self.bits[:-1] > self.bits[1:]) | ((self.bits[:-1] == self.bits[1:]) & (self.row[:-1] < self.row[1:]))
        need(falls[follows].all(), "the strongest examples do not fall")
        self._check_folding()

    def _check_folding(self) -> None:
        """Checks that a list shows nothing twice, and that every sample of the pass is listed or counted."""
        for m in (s.TEXT, s.IMAGE):
            of_modality = np.flatnonzero(self.modality == m)
            files = number_files(self.store.n_samples, image_records(self.store) if m == s.IMAGE else ())
            view = views(self.store.events, files, m, self.row[of_modality], self.position[of_modality])
            need(distinct(self.list[of_modality], view), f"two {s.MODALITIES[m]} examples of a list show the same")
        n_listed, n = np.diff(np.append(self.begin, len(self))), self.sample_counts()
        of_list = (self.feature[self.begin], self.modality[self.begin])
        samples_fm = feature_columns(self.store.engine, "samples_text", "samples_image", dtype=np.int64)
        top = self.band[self.begin] == -1
        n_passed = np.minimum(samples_fm[of_list], np.where(top, TOP, BAND))
        is_short = top & (n_listed < s.SHOWN)
        agrees = (n <= n_passed).all() and (n[is_short] == n_passed[is_short]).all()
        need(agrees, "examples that were folded are miscounted")
        need(samples_fm.astype(bool).sum() == top.sum(), "a feature that fires has no example")

    def sample_counts(self) -> Array:
        """int64, of each list: the samples that it shows or counts."""
        return np.add.reduceat(1 + self.n_same, self.begin) if len(self) else np.zeros(0, np.int64)

    def check_events(self, run: EventRun, by_group: ByGroup) -> None:
        """Checks the examples of a run of samples against their events."""
        near_examples = self.by_row[slice(*np.searchsorted(self.row[self.by_row], [run.rows[0], run.rows[-1] + 1]))]
        at = near_examples[np.isin(self.row[near_examples], run.rows)]
        group, bits, last = by_group
        side, feature = np.divmod(group[last], self.n_features)
        is_above = bits[last] > self.weakest_fm[feature, side % 2]
        np.add.at(self.n_above_fm, (feature[is_above], side[is_above] % 2), 1)
        if not len(at):
            return
        key_e, key = run.token_e * self.n_features + run.feature_e, self.token[at] * self.n_features + self.feature[at]
        event, is_event = find(key_e, key)
        need(is_event.all(), "an example is no event")
        need((run.value_e[event].view(np.uint16) == self.bits[at]).all(), "an example's value is not its event's")
        example_key = ((self.row[at] - run.rows[0]) * 2 + self.modality[at]) * self.n_features + self.feature[at]
        first, end = (np.searchsorted(group, example_key, to) for to in ("left", "right"))
        need((end - first == self.n_active[at]).all(), "an example's sample has another number of active tokens")
        # What of the sample is larger than its example lies in a higher band; over the strongest there is nothing.
        larger = np.searchsorted(group << 16 | bits, example_key << 16 | self.bits[at], "right")
        top_octave = self.octave_fm[self.feature[at], self.modality[at]]
        bands = [
            np.minimum(top_octave - octaves(of_bits(x)), N_BANDS - 1)
            for x in (self.bits[at], bits[np.minimum(larger, len(bits) - 1)])
        ]
        band = self.band[at]
        need(((band == -1) | (band == bands[0])).all(), "an example lies in another band")
        need(((larger == end) | (bands[1] < band)).all(), "an example is not its sample's strongest")

    def check_strongest(self) -> None:
        """Once the events of all samples were seen: none that is stronger than a list's last is missing from it."""
        top = self.band[self.begin] == -1
        n_fm = np.zeros_like(self.n_above_fm)
        n_fm[self.feature[self.begin[top]], self.modality[self.begin[top]]] = self.sample_counts()[top]
        need((self.n_above_fm <= np.maximum(n_fm - 1, 0)).all(), "a stronger sample is not among the examples")


def distinct(*keys: Array) -> bool:
    """Whether no two entries agree in all keys."""
    order = np.lexsort(keys)
    return len(run_starts(*(key[order] for key in keys))) == len(order)


def octaves(value: NDArray[np.float16]) -> Array:
    """int64 of the same shape: ⌊log2⌋, and −64 for 0, which is below all others."""
    return np.where(value > 0, np.frexp(value.astype(np.float64))[1] - 1, -64)
