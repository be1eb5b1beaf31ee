"""The map of 65,536 features: how long its layout takes, how many bytes it is, and when a browser shows it; how long a
frame takes while a map of 262,144 is dragged; and how long the layout of the demo's samples takes.

The directions are drawn at random, seven in ten of them in groups of a hundred. The page is the demo store's with the
large map in it, as everything else on it (lists, names) comes from tables whose size hardly matters to it.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from precompute.steps import feature_map, sample_map
from precompute.steps.index import nearest
from precompute.store import mapfile
from precompute.store.reader import Store
from precompute.store.schema import MODALITIES, VERDICTS
from precompute.utils.stats import unit
from precompute.utils.types import Array
from tests.bench._places import grouped_places
from tests.bench.common import Figure, Setup
from tests.helpers.chromium import FLAGS, chromium

FEATURES, WIDTH, VISITS = 65_536, 64, 7
MANY_FEATURES, MOVES = 262_144, 90


def run(setup: Setup) -> dict[str, Any]:
    n, visits = (2_000, 1) if setup.small else (FEATURES, VISITS)
    folder = setup.scratch / "store"
    shutil.copytree(setup.demo / "store", folder)
    store = Store.open(folder)
    columns, index = weighed(store), store.search.index("decoder")
    sample_seconds, n_samples = samples_laid_out(store, setup.scratch), store.n_samples
    demo = unit(np.stack([index.reconstruct(i) for i in range(index.ntotal)]).astype(np.float32))
    store.close()

    demo_seconds = laid_out(folder, demo, columns)
    columns = {name: np.resize(values, (n, *values.shape[1:])) for name, values in columns.items()}
    large_seconds = laid_out(folder, directions(n), columns)
    size = (folder / mapfile.NAME).stat().st_size
    note_size(folder, size)
    paints, why = first_paints(folder, setup.scratch, visits)
    many = n if setup.small else MANY_FEATURES
    frames = frames_while_dragged(folder, setup.scratch, many) if not why else []
    figures: list[Figure] = [
        {
            "what": f"bytes of the map of {n:,} features",
            "value": float(size), "unit": "B", "goal": 500_000, "sense": "≤",
            "note": "the file that GET /map sends, not compressed",
        },
        {
            "what": f"first paint of the page /map with {n:,} features",
            "value": float(np.median(paints)) if paints else None, "unit": "s", "goal": 1.5, "sense": "≤",
            "note": why or f"navigation to the frame after the points are drawn, nothing cached, median of {visits} "
            "visits, Chromium on the same machine without a GPU",
        },
        {
            "what": f"frame while the map of {many:,} features is dragged, 95th percentile",
            "value": float(np.quantile(frames, 0.95)) if frames else None, "unit": "ms", "goal": 50, "sense": "≤",
            "note": why or f"{MOVES} moves of the mouse, all of a made-up map in view; between two frames that the "
            f"browser draws, median {np.median(frames):.0f} ms; the same Chromium, 1440 × 900",
        },
        {
            "what": "layout of the demo's features", "value": demo_seconds, "unit": "s", "goal": 5, "sense": "≤",
            "note": f"{len(demo)} directions, their neighbours known, processor time",
        },
        {
            "what": "layout of the demo's samples", "value": sample_seconds, "unit": "s", "goal": 5, "sense": "≤",
            "note": f"{n_samples} pairs, with the search for neighbours, processor time",
        },
        {
            "what": f"layout of {n:,} features", "value": large_seconds, "unit": "s", "goal": 300, "sense": "≤",
            "note": "directions at random, seven in ten in groups; their neighbours known, processor time",
        },
    ]  # fmt: skip
    return {"options": {"features": n, "visits": visits}, "figures": figures, "paint_seconds": paints}


def weighed(store: Store) -> dict[str, Array]:
    """What step `weigh` said of the store's features."""
    table, named = store.features.table, store.features.refs(range(store.n_features))
    return {
        "verdict": np.array([VERDICTS.index(named[i]["verdict"]) for i in range(store.n_features)]),
        "omega": table["omega"],
        "density": np.stack([table["density_text"], table["density_image"]], 1),
    }


def directions(n: int) -> Array:
    rng = np.random.default_rng(0)
    group = rng.integers(0, n // 100, n)
    centre = rng.standard_normal((n // 100, WIDTH))[group] * (rng.random(n) < 0.7)[:, None]
    return unit((centre + 0.5 * rng.standard_normal((n, WIDTH))).astype(np.float32))


def note_size(folder: Path, size: int) -> None:
    """Put the larger map's size into the manifest: a store is opened only where every file has its own."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sizes"][list(manifest["files"]).index(mapfile.NAME)] = size
    path.write_text(json.dumps(manifest))


def laid_out(folder: Path, vectors: Array, columns: dict[str, Array]) -> float:
    """Writes the map; processor seconds of it without the search for neighbours, which step `index` does anyway."""
    other, _ = nearest(vectors)
    begin = time.process_time()
    feature_map.write(folder / mapfile.NAME, vectors, other, columns)
    return time.process_time() - begin


def samples_laid_out(store: Store, scratch: Path) -> float:
    """Writes the map of samples; processor seconds."""
    sides = [store.search.index(f"sample_{modality}") for modality in MODALITIES]
    begin = time.process_time()
    sample_map.write(scratch / "sample_map.bin", sides)
    return time.process_time() - begin


def frames_while_dragged(folder: Path, scratch: Path, n: int) -> list[float]:
    """Milliseconds between frames while the mouse drags a map of n points, in groups as t-SNE makes them."""
    from playwright.sync_api import sync_playwright

    from tests.helpers.servers import Server

    rng = np.random.default_rng(0)
    place = grouped_places(rng, n)
    colours = [rng.integers(1, high, n).astype(np.uint8) for high in (len(VERDICTS) - 1, 255, 255)]
    mapfile.write_map(folder / mapfile.NAME, mapfile.FeatureMap(place[:, 0], place[:, 1], *colours))
    note_size(folder, (folder / mapfile.NAME).stat().st_size)
    with Server(folder, "--no-live", log=scratch / "serve.txt") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{server.url}/map")
        page.wait_for_selector("[data-drawn]", timeout=60_000)
        box = page.locator("#map").bounding_box()
        assert box
        page.evaluate(RECORD)
        page.mouse.move(box["x"] + 200, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 500, box["y"] + 250, steps=MOVES)
        frames: list[float] = page.evaluate("stopFrames()")
        browser.close()
    return frames


RECORD = """() => {
  const times = [];
  let on = true;
  const note = (now) => { times.push(now); if (on) requestAnimationFrame(note); };
  requestAnimationFrame(note);
  globalThis.stopFrames = () => { on = false; return times.slice(1).map((at, i) => at - times[i]); };
}"""


def first_paints(folder: Path, scratch: Path, visits: int) -> tuple[list[float], str]:
    """Seconds from navigation to the drawn map in so many fresh browsers; why, where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.helpers.servers import Server

    path = chromium()
    if path is None:
        return [], "no Chromium on this machine"
    seconds = []
    with Server(folder, "--no-live", log=scratch / "serve.txt") as server, sync_playwright() as playwright:
        for visit in range(visits + 1):  # the first warms the server and the file cache
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{server.url}/map")
            page.wait_for_selector("[data-drawn]", timeout=60_000)
            if visit:
                seconds.append(page.evaluate("performance.getEntriesByName('map-drawn')[0].startTime") / 1000)
            browser.close()
    return seconds, ""
