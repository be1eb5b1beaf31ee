"""What `saevx verify` says of the maps of features and of samples."""

from __future__ import annotations

from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.making.verify_examples import need
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain


def check_maps(store: Store) -> str:
    """How many places the maps have; stores made by older versions lack some or all. Raises where one is not of this
    store."""
    rows = fetch_plain(store.engine, "SELECT verdict FROM features ORDER BY id")
    verdicts, n_places = [s.VERDICTS.index(verdict) for (verdict,) in rows], []
    paths = {name: path for name, file in mapfile.LAYOUTS.items() if (path := store.path / file).is_file()}
    for name, stored in ((name, mapfile.read_map(path)) for name, path in paths.items()):
        need(stored.verdict.tolist() == verdicts, "the map's verdicts are not the features'")
        nowhere = (stored.x == mapfile.NOWHERE) | (stored.y == mapfile.NOWHERE)
        dead = stored.verdict == s.VERDICTS.index("dead")
        right = nowhere[dead] if name == "profile" else nowhere == dead
        need(bool(right.all()), "the map leaves out other features than the dead ones")
        n_places.append(f"{int((~nowhere).sum())} places")
    if (store.path / mapfile.SAMPLES_NAME).is_file():
        n_places.append(_check_samples(store))
    return ", ".join(n_places) or "none"


def _check_samples(store: Store) -> str:
    stored, summary = store.sample_map, store.manifest.get("sample_map", {})
    need(len(stored.x) == store.n_samples, f"the map of samples has {len(stored.x)} samples, not {store.n_samples}")
    nowhere = stored.x == mapfile.NOWHERE
    need(bool((nowhere == (stored.y == mapfile.NOWHERE)).all()), "a sample has half a place on the map")
    counts = {"n": int((~nowhere).sum()), "laid_out": int((~nowhere & (stored.source == 0)).sum())}
    need(counts.items() <= summary.items(), f"the map of samples has {counts}, the manifest says otherwise")
    return f"{counts['n']} places of samples"
