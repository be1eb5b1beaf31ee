"""A search by picture or words through the live model, over the one forward pass that it needs."""

import json
from types import SimpleNamespace
from typing import Any, cast

from backend.live import live_answers as query
from backend.live.engines import Engine
from backend.live.engines import load_engine as load
from backend.settings import Settings
from backend.stores import OpenStore
from precompute.data.images import open_image
from precompute.live.feature_search import readable
from precompute.model.batch import Pair
from precompute.model.processor import mean_colour
from precompute.store.reader import Store
from tests.bench.common import Figure, Setup, alternately, ratio

QUERIES, ROUNDS = 10, 3


def run(setup: Setup) -> dict[str, Any]:
    n, rounds = (1, 1) if setup.small else (QUERIES, ROUNDS)
    path = setup.demo / "store"
    store = Store.open(path)
    served = cast(OpenStore, SimpleNamespace(name="demo", path=path, manifest=store.manifest, reader=store))
    engine: Engine = load(Settings(stores=[path], device=setup.device), served, [])
    lines = (setup.demo / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:n]
    rows = [json.loads(line) for line in lines]
    pictures = [open_image(setup.demo / "data" / row["file_name"]).image for row in rows]
    request_args = {
        "a picture": [("", [picture]) for picture in pictures],
        "words": [(row["text"], []) for row in rows],
        "both": [(row["text"], [picture]) for row, picture in zip(rows, pictures, strict=True)],
    }
    neutral = mean_colour(engine.mllm.processor)
    figures: list[Figure] = []
    report = {}
    for name, pairs in request_args.items():
        batches = [
            engine.mllm.prepare([Pair(*readable(text, images, engine.mllm.multimodal, neutral))])
            for text, images in pairs
        ]

        def bare(batches: list[Any] = batches) -> None:
            for batch in batches:
                engine.mllm.hidden(batch)

        def search(pairs: list[Any] = pairs) -> None:
            for text, images in pairs:
                query.search(served, query.live_query(engine, served, text, images), 24)

        seconds = alternately({"forward": bare, "search": search}, rounds)
        report[name] = seconds
        figures.append({
            "what": f"a search by {name} over its forward pass", "value": ratio(seconds["search"], seconds["forward"]),
            "unit": "×", "goal": 1.3, "sense": "≤",
            "note": f"the demo's model to layer L, {n} queries, words alone behind the neutral image; preparing, "
            "encoding, ranking, nearest samples included",
        })  # fmt: skip
    store.close()
    return {"options": {"queries": n, "rounds": rounds}, "figures": figures, "seconds": report}
