"""`saevx verify STORE`: checks that a finished store agrees with itself: every file, every count, every example."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sqlalchemy import select, text

from precompute.errors import first_line
from precompute.store import schema as s
from precompute.store.core import feature_columns
from precompute.store.events import of_bits
from precompute.store.making.sealing import changed_since_sealed, checksums, content_id
from precompute.store.making.verify_evidence import BothSides, check_evidence
from precompute.store.making.verify_examples import ByGroup, EventRun, ExampleTable, need
from precompute.store.making.verify_maps import check_maps
from precompute.store.opening import damaged_error, read_manifest
from precompute.store.reader import Store
from precompute.store.relations.feature_pairs import COLUMNS
from precompute.store.sql import fetch_plain, in_sentences
from precompute.utils import memory
from precompute.utils.ragged import expand, find
from precompute.utils.types import Array

_TIME_LIMIT_S = 600.0
CHUNK_EVENTS = 1 << 20
"""Events looked at together."""


class Check(NamedTuple):
    """One line of the report; `detail` says what was looked at, or what is wrong."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}: {self.detail}"


def verify(path: Path) -> list[Check]:
    """Checks a finished store, cheapest first.

    Raises:
        SaevxError: the folder is no store at all, its manifest is damaged, or another version made it.
    """
    store = Store.open_unchecked(path, time_limit_s=_TIME_LIMIT_S)
    try:
        checks: dict[str, Callable[[Store], str]] = {
            "files": _files, "database": _database, "counts": _counts, "offsets": _offsets, "events": _events,
            "arrays": _arrays, "indices": _indices, "families": _families, "pairs": _pairs,
            "evidence": check_evidence, "images": _images, "map": check_maps,
        }  # fmt: skip
        return [_run(name, check, store) for name, check in checks.items()]
    finally:
        store.close()


def verify_or_raise(path: Path) -> list[Check]:
    """As `verify`.

    Raises:
        SaevxError: naming the first thing that is wrong.
    """
    checks = verify(path)
    for check in checks:
        if not check.ok:
            raise damaged_error(path, f"{check.name}: {check.detail}")
    return checks


def _run(name: str, check: Callable[[Store], str], store: Store) -> Check:
    try:
        with in_sentences():
            return Check(name, True, check(store))
    except Exception as error:  # a damaged file can fail in any way, and the report goes on
        return Check(name, False, first_line(error))


def _files(store: Store) -> str:
    """Checksums in the manifest against the files."""
    manifest = read_manifest(store.path)  # the store's own has no images
    sums, file_sums = manifest["files"], checksums(store.path)
    absent, unlisted_names = sorted(set(sums) - set(file_sums)), sorted(set(file_sums) - set(sums))
    changed_names = sorted(name for name in set(sums) & set(file_sums) if sums[name] != file_sums[name])
    for problem, names in (("missing", absent), ("changed", changed_names), ("not listed", unlisted_names)):
        need(not names, f"{len(names)} file{'s' * (len(names) > 1)} {problem}, the first {names[0] if names else ''}")
    stored_id, computed_id = manifest["content_id"], content_id(manifest, sums)
    need(stored_id == computed_id, f"the manifest was changed (content id {stored_id}, should be {computed_id})")
    sizes = [(store.path / name).stat().st_size for name in sums]
    need(manifest.get("sizes", sizes) == sizes, "the manifest was changed (`sizes` are not those of the files)")
    need((changed_key := changed_since_sealed(store.path, manifest)) is None, f"{changed_key} was changed")
    return f"{len(sums)} files with their checksums"


def _database(store: Store) -> str:
    with store.engine.connect() as conn:
        state = conn.execute(text("PRAGMA integrity_check(1)")).scalar()
        need(state == "ok", f"store.sqlite: {state}")
        broken_row = conn.execute(text("PRAGMA foreign_key_check")).first()
        need(broken_row is None, f"store.sqlite: a row of {broken_row[0] if broken_row else ''} points nowhere")
        for table in ("feature_fts", "sample_fts"):
            conn.execute(text(f"SELECT count(*) FROM {table} WHERE {table} MATCH 'a'"))
    return "integrity and foreign keys"


def _counts(store: Store) -> str:
    m, events = store.manifest, store.events
    n_expected = {
        s.features: store.n_features,
        s.samples: store.n_samples,
        s.quarantine: m["data"]["n_quarantined"],
        s.scores: len(s.SCORES),
        s.flags: len(s.FLAGS),
    }
    for sql_table, n in n_expected.items():
        ((n_rows,),) = fetch_plain(store.engine, f"SELECT count(*) FROM {sql_table.name}")
        need(n_rows == n, f"{sql_table.name} has {n_rows} rows, the manifest says {n}")
    need(len(events.sample_token) == store.n_samples + 1, "sample_token has not one run per sample")
    kinds = np.zeros(256, np.int64)
    for chunk in _pieces(events.token_modality):
        kinds += np.bincount(chunk, minlength=256)
    n_stated = [m["tokens"][name] for name in s.TOKEN_KINDS]
    counted_kinds = kinds[: len(n_stated)].tolist()
    agrees = counted_kinds == n_stated and not kinds[len(n_stated) :].any()
    need(agrees, f"tokens by kind are {counted_kinds}, the manifest says {n_stated}")
    return f"{store.n_features} features, {store.n_samples} samples, {int(kinds.sum())} tokens"


def _pieces(array: Array, overlap: int = 0) -> Iterator[Array]:
    """CHUNK_EVENTS of a mapped array at a time, each with the first `overlap` of the next."""
    for low in range(0, len(array), CHUNK_EVENTS):
        yield np.asarray(array[low : low + CHUNK_EVENTS + overlap])
        memory.release(array)


def _offsets(store: Store) -> str:
    e = store.events
    runs = {
        "sample_token": (e.sample_token, len(e.token_id)),
        "token_event": (e.token_event, len(e.event_feature)),
        **({} if e.kept_rows is None else {"kept_token": (e.kept_token, len(e.token_event) - 1)}),
        "max_offset": (e.max_offset, len(e.max_feature)),
    }
    for name, (offset, length) in runs.items():
        need(offset[0] == 0 and offset[-1] == length, f"{name} does not span its array")
        need(all(bool((np.diff(chunk) >= 0).all()) for chunk in _pieces(offset, 1)), f"{name} falls")
    need(len(e.token_modality) == len(e.token_id), "token arrays differ in length")
    need(e.kept_rows is not None or len(e.token_event) == len(e.token_id) + 1, "token arrays differ in length")
    need(len(e.event_value) == len(e.event_feature), "event arrays differ in length")
    need(len(e.max_value) == len(e.max_feature), "maxima arrays differ in length")
    return f"{len(runs)} offset arrays rise and span their arrays"


def _events(store: Store) -> str:
    """The store holds the events of the samples that the manifest says."""
    e, entry = store.events, store.manifest.get("events", {"kept": "all", "n": store.n_samples})
    if e.kept_rows is None:
        need(entry == {"kept": "all", "n": store.n_samples}, f"all events are there, the manifest says {entry}")
        return f"the events of all {store.n_samples} samples"
    rows = np.asarray(e.kept_rows)
    need(entry["kept"] in ("examples", "none"), f"some events were left out, the manifest says {entry}")
    need(len(rows) == entry["n"], f"the events of {len(rows)} samples are there, the manifest says {entry['n']}")
    need(entry["kept"] != "none" or not len(rows), "events are kept, the manifest says none")
    need((np.diff(rows) > 0).all(), "the kept rows do not rise")
    need(not len(rows) or (rows[0] >= 0 and rows[-1] < store.n_samples), "a kept row is no sample")
    length_n = np.diff(e.sample_token)[rows]
    need(len(e.kept_token) == len(rows) + 1, "kept_token has not one run per kept sample")
    need((np.diff(e.kept_token) == length_n).all(), "a kept sample's tokens are not its own")
    if entry["kept"] == "examples":
        with store.engine.connect() as conn:
            on_pages = {row for (row,) in conn.execute(select(s.examples.c.row).distinct())}
            on_pages |= {row for (row,) in conn.execute(select(s.flag_reasons.c.row).distinct())}
        need(on_pages <= set(rows.tolist()), "the events of a sample that a page shows are missing")
    return f"the events of {len(rows)} of {store.n_samples} samples"


def _runs(store: Store) -> Iterator[EventRun]:
    """The events that the store holds, in runs of samples."""
    e = store.events
    rows = np.arange(store.n_samples) if e.kept_rows is None else np.asarray(e.kept_rows)
    starts = np.asarray(e.sample_token if e.kept_rows is None else e.kept_token)
    ends = np.asarray(e.token_event[starts])
    low = 0
    while low < len(rows):
        high = max(low + 1, int(np.searchsorted(ends, ends[low] + CHUNK_EVENTS, "right")) - 1)
        first, last = int(starts[low]), int(starts[high])
        n_t = np.diff(e.token_event[first : last + 1])
        at = slice(int(ends[low]), int(ends[high]))
        # What to add to a token's place in `token_event` for its place among the tokens of all samples.
        shift_t = np.repeat(e.sample_token[rows[low:high]] - starts[low:high], np.diff(starts[low : high + 1]))
        token_e = np.repeat(np.arange(first, last) + shift_t, n_t)
        yield EventRun(rows[low:high], token_e, e.event_feature[at].astype(np.int64), np.asarray(e.event_value[at]))
        memory.release(*vars(e).values())
        low = high


def _arrays(store: Store) -> str:
    """Events are well formed, and counts, examples and maxima follow from them."""
    e, n_features = store.events, store.n_features
    count_of_table = feature_columns(store.engine, "n_text", "n_image", dtype=np.int64)
    examples = ExampleTable(store)
    examples.check_lists()
    count = np.zeros((n_features, 2), np.int64)
    both_sides = BothSides(store)
    for run in _runs(store):
        need((run.feature_e < n_features).all(), "an event names a feature beyond the last")
        need((run.value_e > 0).all() and np.isfinite(run.value_e).all(), "an event value is not positive")
        key = run.token_e * n_features + run.feature_e
        need((np.diff(key) > 0).all(), "features do not rise inside a token")
        kind = e.token_modality[run.token_e]
        need((kind <= s.IMAGE).all(), "a special token has events")
        for m in (s.TEXT, s.IMAGE):
            count[:, m] += np.bincount(run.feature_e[kind == m], minlength=n_features)
        by_group = _by_group(store, run, kind)
        examples.check_events(run, by_group)
        both_sides.update(run, by_group)
        _maxima_agree(store, run, by_group)
    if e.kept_rows is None:
        need((count == count_of_table).all(), "token counts of features differ from the events")
        examples.check_strongest()
        both_sides.check(store)
    else:
        need((count <= count_of_table).all(), "features have more events than active tokens")
    return f"{len(e.event_value)} events, {len(examples)} examples, {len(e.max_value)} maxima agree"


def _by_group(store: Store, run: EventRun, kind_e: Array) -> ByGroup:
    """Sorts the events of a run; `kind_e` is the modality of each, uint8 [e]."""
    row = np.searchsorted(store.events.sample_token, run.token_e, "right") - 1 - run.rows[0]
    key = (row * 2 + kind_e) * store.n_features + run.feature_e
    # The bits of a positive float16 order as the values do, so one sort of int64 orders by key and then by value.
    packed_key = np.sort(key << 16 | run.value_e.view(np.uint16))
    key = packed_key >> 16
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True]) if len(key) else np.zeros(0, np.int64)
    return ByGroup(key, packed_key & 0xFFFF, last)


def _maxima_agree(store: Store, run: EventRun, by_group: ByGroup) -> None:
    """Each sample's largest activation of a feature is that of its events, group (sample, modality) by group."""
    e = store.events
    group = (2 * run.rows[:, None] + np.arange(2)).ravel()
    start = np.asarray(e.max_offset[group])
    length = e.max_offset[group + 1] - start
    at = expand(start, length)
    key_of_maxima = np.repeat(group - group[0], length) * store.n_features + e.max_feature[at].astype(np.int64)
    need((np.diff(key_of_maxima) > 0).all(), "features do not rise among a sample's maxima")
    key, value = by_group.group[by_group.last], of_bits(by_group.bits[by_group.last])
    at_key, is_there = find(key, key_of_maxima)
    agrees = is_there.all() and (value[at_key] == e.max_value[at]).all()
    need(agrees, "a sample's maximum is not that of its events")


def _indices(store: Store) -> str:
    sizes = {"decoder": store.n_features, "profile": store.n_features}
    sizes |= {f"sample_{m}": store.n_samples for m in s.MODALITIES}
    for name, n in sizes.items():
        n_vectors = store.search.index(name).ntotal
        need(n_vectors == n, f"index {name} holds {n_vectors} vectors, not {n}")
    shape = store.features.neighbours.shape
    need(shape[0] == store.n_features, f"the table of neighbours holds {shape[0]} features, not {store.n_features}")
    shapes = len(store.directions.mean), len(store.directions.scales)
    expected_shapes = store.manifest["model"]["d_model"], store.n_features
    need(shapes == expected_shapes, f"mean direction and direction scales have {shapes} entries, not {expected_shapes}")
    return f"{len(sizes)} indices of the right size"


def _families(store: Store) -> str:
    """Families have as many members as they say, and are named for one of them."""
    query = (
        "SELECT f.n_members, count(m.id), max(m.id = f.id) FROM families f LEFT JOIN features m ON m.family = f.id "
        "GROUP BY f.id"
    )
    rows = fetch_plain(store.engine, query)
    need(all(n == members > 1 and is_named for n, members, is_named in rows), "a family has other members than it says")
    return f"{len(rows)} families"


def _pairs(store: Store) -> str:
    """Pairs of features rise, their orders are permutations, and no support exceeds what either has."""
    n = 0
    for kind, pairs in store.cooccurrence.pairs.items():
        span = (int(pairs.start[0]), int(pairs.start[-1]), len(pairs.start))
        need(span == (0, len(pairs), store.n_features + 1), f"co-occurrence of {kind} has not one run per feature")
        a = np.repeat(np.arange(store.n_features), np.diff(pairs.start))
        b = pairs.column("b").astype(np.int64)
        need((np.diff(a * store.n_features + b) > 0).all(), f"co-occurrence of {kind} does not rise")
        for name in COLUMNS[3:]:
            n_seen = np.bincount(pairs.column(name), minlength=len(pairs))
            need(len(n_seen) == len(pairs) and bool((n_seen == 1).all()), f"{name} of {kind} is no order")
        counts = pairs.counts(np.arange(len(pairs)))
        is_possible = counts.support <= np.minimum(counts.n_a, counts.n_b)
        need(is_possible.all(), f"a support of {kind} is too large")
        n += len(pairs)
    return f"{n} pairs of features"


def _images(store: Store) -> str:
    with store.engine.connect() as conn:
        paths = [image["path"] for (images,) in conn.execute(select(s.samples.c.images)) for image in images]
    lost_paths = [name for name in paths if not (store.path / name).is_file()]
    need(not lost_paths, f"{len(lost_paths)} images missing, the first {lost_paths[0] if lost_paths else ''}")
    return f"{len(paths)} images"
