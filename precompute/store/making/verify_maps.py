"""What `saevx verify` says of the maps of features and of samples."""

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
    for name, map_columns in ((name, mapfile.read_map(path)) for name, path in paths.items()):
        need(map_columns.verdict.tolist() == verdicts, "the map's verdicts are not the features'")
        nowhere = (map_columns.x == mapfile.NOWHERE) | (map_columns.y == mapfile.NOWHERE)
        is_dead = map_columns.verdict == s.VERDICTS.index("dead")
        right = nowhere[is_dead] if name == "profile" else nowhere == is_dead
        need(right.all(), "the map leaves out other features than the dead ones")
        n_places.append(f"{int((~nowhere).sum())} places")
    if (store.path / mapfile.SAMPLES_NAME).is_file():
        n_places.append(_check_samples(store))
    return ", ".join(n_places) or "none"


def _check_samples(store: Store) -> str:
    columns, summary = store.sample_map, store.manifest.get("sample_map", {})
    need(len(columns.x) == store.n_samples, f"the map of samples has {len(columns.x)} samples, not {store.n_samples}")
    nowhere = columns.x == mapfile.NOWHERE
    need((nowhere == (columns.y == mapfile.NOWHERE)).all(), "a sample has half a place on the map")
    counts = {"n": int((~nowhere).sum()), "laid_out": int((~nowhere & (columns.source == 0)).sum())}
    need(counts.items() <= summary.items(), f"the map of samples has {counts}, the manifest says otherwise")
    return f"{counts['n']} places of samples"
