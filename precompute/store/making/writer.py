"""Writes the tables of the finished store from what the steps left in STORE.part: `store.sqlite` in one go.

Same inputs give the same bytes: rows go in a fixed order, no time or path is written, and the file is
vacuumed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import JSON, URL, Connection, Table, create_engine, text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from precompute.store import schema as s
from precompute.store.features import NEIGHBOUR
from precompute.store.histogram import pack
from precompute.store.making.family_rows import Families, evidence_and_families
from precompute.store.making.unfinished import Collected, Lens, load_json, load_step
from precompute.store.relations import feature_pairs
from precompute.store.sql import indexed_words
from precompute.utils.ragged import batched, slices
from precompute.utils.text import bare_name
from precompute.utils.types import Array, Item

RowChunk = dict[str, Sequence[Any]]
"""Some thousand rows of a table, as a list of values for each column."""

_CHUNK = 5000
EXAMPLE_COLUMNS = ("row", "position", "value", "n_active", "n_same")


def write_database(part: Path, manifest: Item) -> None:
    """store.sqlite from the steps' results; an unfinished one is replaced."""
    path = part / "store.sqlite"
    path.unlink(missing_ok=True)
    # Not as a URL: in one, a folder's `%20` or `?` would mean something else.
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    data = Collected(part, manifest)
    with engine.connect() as conn:
        # Nobody reads it before it is whole, and it is checked at the end.
        for pragma in ("page_size=4096", "journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
            conn.exec_driver_sql(f"PRAGMA {pragma}")
        for table in s.metadata.sorted_tables:
            conn.execute(CreateTable(table))
        for statement in s.FTS:
            conn.exec_driver_sql(statement)
        labels, lens = load_json(part, "label"), Lens.from_steps(data)
        flags = load_json(part, "flag")
        weigh, families = evidence_and_families(data)
        fill(conn, s.features, feature_rows(data, labels, weigh))
        fill(conn, s.families, family_rows(families, labels, weigh["evidence"]))
        fill(conn, s.feature_details, detail_rows(data, lens))
        fill(conn, s.top_words, top_word_rows(load_json(part, "top_words")))
        fill(conn, s.samples, sample_rows(data))
        fill(conn, s.flags, _of_rows(s.flags, flags["flags"]))
        fill(conn, s.flag_reasons, reason_rows(flags["reasons"]))
        fill(conn, s.examples, example_rows(data))
        fill(conn, s.scores, _of_rows(s.scores, load_json(part, "score")))
        fill(conn, s.vocabulary, [{"token_id": range(len(data.vocabulary)), "text": data.vocabulary}])
        fill(conn, s.quarantine, _of_rows(s.quarantine, rejected_rows(data)))
        for words in batched(feature_words(labels, lens), _CHUNK):
            conn.exec_driver_sql("INSERT INTO feature_fts(rowid, label, promoted) VALUES (?, ?, ?)", words)
        for captions in batched(sample_words(data), _CHUNK):
            conn.exec_driver_sql("INSERT INTO sample_fts(rowid, text) VALUES (?, ?)", captions)
        for table in s.metadata.sorted_tables:  # sorted once, not kept in order row by row
            for index in sorted(table.indexes, key=lambda index: str(index.name)):  # they are a set
                index.create(conn)
        for name in ("feature_fts", "sample_fts"):
            conn.execute(text(f"INSERT INTO {name}({name}) VALUES ('optimize')"))
        conn.commit()
        conn.exec_driver_sql("ANALYZE")
        conn.commit()
        conn.exec_driver_sql("VACUUM")
    engine.dispose()


def fill(conn: Connection, table: Table, chunks: Iterable[RowChunk]) -> None:
    """Inserts rows by the driver itself, which is faster: SQLAlchemy would look at every value."""
    names = [column.name for column in table.columns]
    json_names = {column.name for column in table.columns if isinstance(column.type, JSON)}
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for chunk in chunks:
        columns = (map(_dump, chunk[name]) if name in json_names else chunk[name] for name in names)
        if rows := list(zip(*columns, strict=True)):
            conn.exec_driver_sql(statement, rows)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _dump(value: Any) -> str | None:
    return None if value is None else _ENCODER.encode(value)


def _of_rows(table: Table, rows: Iterable[Item]) -> list[RowChunk]:
    """A small table's rows as one chunk of columns."""
    items = list(rows)
    return [{column.name: [item[column.name] for item in items] for column in table.columns}]


def _to_list(values: Array) -> list[Any]:
    """Python values, NaN as None."""
    items = values.tolist()
    return [None if v != v else v for v in items] if values.dtype.kind == "f" else items


def feature_rows(data: Collected, labels: list[str | None], weigh: dict[str, Array]) -> Iterator[RowChunk]:
    """The table `features`; `weigh` is of `evidence_and_families`."""
    accum = data.accum
    max_fm = accum["max"].astype(np.float64) * data.unit
    columns = {
        "id": np.arange(data.n_features),
        "label_score": weigh["score"],
        "n_samples": weigh["n_samples"],
        "max_density": weigh["density"].max(1),
        "max_activation": max_fm.max(1),
    }
    two_sided = {"n": accum["count"], "samples": weigh["samples"], "density": weigh["density"], "max": max_fm}
    for name, values_f2 in two_sided.items():
        columns |= {f"{name}_{modality}": values_f2[:, m] for m, modality in enumerate(s.MODALITIES)}
    for name in ("p999", *s.OMEGA_FIELDS, "omega_all_pairs", "modality_share", "same_sample_rate"):
        columns[name] = weigh[name]
    for name in (*s.PAIR_FIELDS, "place_share", "family", "namesake", "mean_cosine", "evidence"):
        columns[name] = weigh.get(name, np.full(data.n_features, np.nan))  # not every store has texts alone
    descriptions = load_json(data.part, "description")
    for chunk in slices(data.n_features, _CHUNK):
        row_chunk: RowChunk = {name: _to_list(values[chunk]) for name, values in columns.items()}
        row_chunk["label"], row_chunk["description"] = labels[chunk], descriptions[chunk]
        row_chunk["place"] = [name or None for name in weigh["place"][chunk].tolist()]
        row_chunk["verdict"] = [s.VERDICTS[v] for v in weigh["verdict"][chunk]]
        yield row_chunk


def detail_rows(data: Collected, lens: Lens) -> Iterator[RowChunk]:
    """The table `feature_details`."""
    mean_frc = load_step(data.part, "weigh")["place_map"]
    for chunk in slices(data.n_features, _CHUNK):
        hist = [pack(hist_m) for hist_m in data.accum["hist"][chunk]]
        places = [_place_map(mean_rc) for mean_rc in mean_frc[chunk]]
        yield {"id": range(chunk.start, chunk.stop), "hist": hist, "logits": lens.rows(chunk), "place_map": places}


def top_word_rows(words: Sequence[Mapping[str, object]]) -> Iterator[RowChunk]:
    """The table `top_words`, from the words of each feature."""
    for chunk in slices(len(words), _CHUNK):
        columns = {name: [words_of_feature[name] for words_of_feature in words[chunk]] for name in s.MODALITIES}
        yield {"id": range(chunk.start, chunk.stop), **columns}


def _place_map(mean_rc: Array) -> Item | None:
    """Of a feature's mean activation by place three digits, which are more than a page shows; None without any."""
    rows, columns = mean_rc.shape
    mean = [float(f"{value:.3g}") for value in mean_rc.ravel().tolist()]
    return {"rows": rows, "columns": columns, "mean": mean} if any(mean) else None


def family_rows(families: Families, labels: list[str | None], evidence: Array) -> list[RowChunk]:
    """The table `families`; `evidence` is float64 [F]."""
    ids = families.id_n.tolist()
    names, values = [labels[i] for i in ids], _to_list(evidence[families.id_n])
    return [{"id": ids, "name": names, "n_members": families.size_n.tolist(), "evidence": values}]


def sample_rows(data: Collected) -> Iterator[RowChunk]:
    """The table `samples`."""
    score, flag = load_step(data.part, "score"), load_step(data.part, "flag")
    sample = data.sample
    arrays = {
        **{name: sample[name].astype(np.int64) for name in ("n_text", "n_image", "n_special", "n_sink")},
        "fvu_text": flag["fvu_text"],
        "fvu_image": flag["fvu_image"],
        **{s.score_column(name): score[name] for name in s.SCORES},
        **{s.flag_column(name): flag[name] for name in s.FLAGS},
        "near_cosine": flag["near_cosine"],
    }
    for chunk in slices(data.n_samples, _CHUNK):
        records = data.samples[chunk]
        yield {
            "row": range(chunk.start, chunk.stop),
            "sample_id": [str(r["sample_id"]) for r in records],
            "text": [str(r["text"]) for r in records],
            **{name: _to_list(values[chunk]) for name, values in arrays.items()},
            **{name: [int(v) or None for v in sample[name][chunk]] for name in ("width", "height")},
            "n_images": [len(r["images"]) for r in records],
            "images": [[_image(image) for image in r["images"]] for r in records],
            "views": [r["views"] for r in records],
            "extra": [r.get("extra", {}) for r in records],
            "near_row": [None if v < 0 else v for v in flag["near_row"][chunk].tolist()],
        }


def _image(image: Item) -> Item:
    return {**{name: image[name] for name in ("width", "height", "sha256")}, "path": image["thumb"]}


def reason_rows(reasons: list[list[Any]]) -> Iterator[RowChunk]:
    """The table `flag_reasons`, from [row, flag, reason] of each."""
    sorted_reasons = sorted(reasons, key=lambda r: (r[0], r[1]))
    yield {name: [reason[i] for reason in sorted_reasons] for i, name in enumerate(("row", "flag", "reason"))}


def example_rows(data: Collected) -> Iterator[RowChunk]:
    """Strongest samples (band −1) and bands, in primary-key order."""
    for chunk in slices(data.n_features, _CHUNK):
        lists_of = {name: _top_and_bands(data.examples, name, chunk) for name in EXAMPLE_COLUMNS}
        feature, modality, band, rank = at = np.nonzero(lists_of["row"] >= 0)
        columns = {"feature": feature + chunk.start, "modality": modality, "band": band - 1, "rank": rank}
        columns |= {name: values[at] for name, values in lists_of.items()}
        columns["value"] = columns["value"].view(np.uint16)
        yield {name: column.tolist() for name, column in columns.items()}


def _top_and_bands(examples: dict[str, Array], name: str, chunk: slice) -> Array:
    """[f, 2, 5, 20] of f features: the overall list, then four bands widened to its length with −1 for nothing."""
    top, bands = examples[f"top_{name}"][chunk], examples[f"band_{name}"][chunk]
    padded_bands = np.full((*bands.shape[:3], top.shape[2]), -1 if name == "row" else 0, dtype=bands.dtype)
    padded_bands[..., : bands.shape[3]] = bands
    return np.concatenate([top[:, :, None], padded_bands], axis=2)


def write_pairs(part: Path, manifest: Item) -> None:
    """cooccurrence/ and index/neighbours.npy."""
    step, n = load_step(part, "cooccur"), int(manifest["cooccurrence"]["n_samples"])
    n_mf = step["n_samples"].astype(np.uint32)
    counts = {kind: [step[f"{kind}/{name}"] for name in feature_pairs.COUNTS] for kind in s.COOCCURRENCE_KINDS}
    pairs = [feature_pairs.FeaturePairs.from_counts(kind, columns, n_mf, n) for kind, columns in counts.items()]
    feature_pairs.save(part, pairs)
    step = load_step(part, "index")
    shape = len(step["decoder_neighbours"]), len(s.NEIGHBOUR_SPACES), step["decoder_neighbours"].shape[1]
    neighbours = np.zeros(shape, NEIGHBOUR)
    for i, space in enumerate(s.NEIGHBOUR_SPACES):
        neighbours["other"][:, i] = step[f"{space}_neighbours"]
        neighbours["cosine"][:, i] = np.minimum(step[f"{space}_cosine"], 1)
    np.save(part / "index" / "neighbours.npy", neighbours)


def rejected_rows(data: Collected) -> Iterator[Item]:
    """The table `quarantine`: the rows of the data that were rejected."""
    for entry in sorted(data.rejected_rows, key=lambda e: int(e["index"])):
        yield {"idx": int(entry["index"]), "sample_id": entry.get("sample_id"), "reason": entry["reason"]}


def feature_words(labels: list[str | None], lens: Lens) -> Iterator[tuple[int, str, str]]:
    """(id, label, promoted tokens where the lens says something) of each feature, for full-text search."""
    for feature, (label, tokens) in enumerate(zip(labels, lens.promoted_tokens(), strict=True)):
        words = " ".join(tokens)
        if label or words:
            yield feature, indexed_words(bare_name(label or "")), indexed_words(words)


def sample_words(data: Collected) -> Iterator[tuple[int, str]]:
    """(row, caption) of each sample, for full-text search."""
    return ((row, indexed_words(text)) for row, text in enumerate(data.samples.column("text")))
