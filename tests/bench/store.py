"""Bytes of a store: the demo's real one, and the wide made-up one (`_wide.py`) on which `server` is measured."""

from pathlib import Path
from typing import Any

from sqlalchemy import text

from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.reader import Store
from tests.bench import _wide
from tests.bench.common import Figure, Setup

WIDE = (65_536, 1_000_000)
SMALL = (512, 400)
OF_FEATURES = ("features", "feature_", "families", "examples", "top_words")
OF_SAMPLES = ("samples", "sample_", "sqlite_autoindex_samples", "flag_reasons", "sqlite_autoindex_flag_reasons")


def wide(setup: Setup) -> Path:
    """The wide store, made where it is not there yet."""
    return _wide.write(setup.wide, setup.demo, *(SMALL if setup.small else WIDE))


def sizes(path: Path) -> dict[str, float]:
    """Bytes by what they grow with: per event, feature, kept maximum, sample; of vectors, over two bytes a number."""
    store = Store.open(path, time_limit_s=600)
    query = text("SELECT name, sum(pgsize) FROM dbstat GROUP BY name")
    with store.engine.connect() as conn:
        pages = {str(name): int(n) for name, n in conn.execute(query)}
        own = "length(CAST(text AS BLOB)) + length(CAST(extra AS BLOB)) + length(CAST(sample_id AS BLOB))"
        words = int(conn.execute(text(f"SELECT sum({own}) FROM samples")).scalar_one())
    file = {name: (path / name).stat().st_size for name in store.manifest["files"] if not name.startswith("images/")}

    def files(*starts: str) -> int:
        return sum(size for name, size in file.items() if name.startswith(starts))

    def tables(starts: tuple[str, ...]) -> int:
        return sum(size for name, size in pages.items() if name.startswith(starts))

    f, n, e = store.n_features, store.n_samples, store.events
    vectors = 2 * 2 * (f * store.search.index("decoder").d + n * store.search.index("sample_text").d)
    result = {
        "event": files("events/event", "events/token", "events/sample_token") / len(e.event_feature),
        "feature": (tables(OF_FEATURES) + files("cooccurrence/") + file["index/neighbours.npy"]) / f,
        "vectors": sum(size for name, size in file.items() if name.endswith(".faiss")) / vectors,
        "maximum": files("events/max") / len(e.max_feature),
        "sample": (tables(OF_SAMPLES) - words + files(mapfile.SAMPLES_NAME)) / n,
    }
    known = (*OF_FEATURES, *OF_SAMPLES, "vocabulary", "sqlite_", "scores", "flags", "quarantine")
    assert not [name for name in pages if not name.startswith(known)], pages
    store.close()
    return result


def run(setup: Setup) -> dict[str, Any]:
    f, n = SMALL if setup.small else WIDE
    demo, big = sizes(setup.demo / "store"), sizes(wide(setup))
    half_f = sizes(_wide.write(setup.scratch / "half-f", setup.demo, f // 4, n // 4))
    half_n = sizes(_wide.write(setup.scratch / "half-n", setup.demo, f // 4, n // 2))
    goals = {
        "event": ("bytes of an event", 6.0, "tokens included"),
        "feature": ("bytes of a feature's tables", 6000.0, "examples, pairs, neighbours, histogram, logits, indices"),
        "vectors": ("bytes of all vectors over two a number", 1.001, "decoder, profile and both of each sample"),
        "maximum": ("bytes of a kept maximum", 6.0, "at most 256 a sample and modality, offsets included"),
        "sample": ("bytes of a sample beside its own fields", 1e3, "scores, flags, indices, full text, no thumbnail"),
    }
    figures: list[Figure] = []
    for key, (what, goal, note) in goals.items():
        for title, result in ((f"{f} features, {n} pairs", big), ("the demo", demo)):
            unit = "×" if key == "vectors" else "bytes"
            figures.append({
                "what": f"{what}: {title}", "value": result[key], "unit": unit, "goal": goal, "sense": "≤",
                "note": note,
            })  # fmt: skip
    apart = max(abs(half_f["feature"] / big["feature"] - 1), abs(half_n["sample"] / half_f["sample"] - 1))
    figures.append(
        {
            "what": "how far bytes are from growing in line with features and pairs",
            "value": apart,
            "unit": "",
            "goal": 0.1,
            "sense": "≤",
            "note": f"bytes a feature with {f // 4} and {f}, bytes a sample with {n // 4} and {n // 2}",
        }
    )
    return {
        "options": {"features": f, "samples": n},
        "figures": figures,
        "bytes": {"demo": demo, "wide": big, "quarter": half_f, "twice the pairs": half_n},
        "tables": [table.name for table in s.metadata.sorted_tables],
    }
