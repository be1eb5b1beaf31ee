"""Features times tokens that a whole `saevx precompute` finishes a second, from loading the model to the verified
store: the unit by which tools that make the data of all features can be compared.

The model is the demo's language model to layer 10. The SAE is a TopK with random directions. The text is the demo's
captions, in another order each time they are used up. A smaller store is made with and without --exact-products, and
all files are compared.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from tests.bench._dashboard_inputs import LENGTH, corpus, hidden, language_model, random_sae
from tests.bench.common import Figure, Setup

GOAL = 4e7


class Size(NamedTuple):
    documents: int
    """Of 128 tokens."""
    layer: int
    features: int
    active: int
    """Features that TopK keeps at a token."""
    compared: tuple[int, int]
    """Documents and features of the store that is made in both ways."""


FULL = Size(1024, 10, 65536, 32, (64, 8192))
SMALL = Size(16, 1, 256, 8, (16, 256))


def run(setup: Setup) -> dict[str, Any]:
    size = SMALL if setup.small else FULL
    mllm = language_model(setup, size.layer)
    documents, _ = corpus(setup, mllm, size.documents, again=True)
    hidden_td = hidden(mllm, documents)
    del mllm
    sae, small_sae = (
        random_sae(setup.scratch / f"sae{n}", hidden_td, size.layer, n, "topk", active=size.active)
        for n in (size.features, size.compared[1])
    )
    report = whole_run(setup, documents, sae)
    few = setup.scratch / "few.jsonl"
    few.write_text("".join(documents.read_text().splitlines(keepends=True)[: size.compared[0]]))
    low, exact = (whole_run(setup, few, small_sae, exact=exact) for exact in (False, True))
    differ = sum(low["files"].get(name) != exact["files"].get(name) for name in {*low["files"], *exact["files"]})
    n_tokens = size.documents * LENGTH
    speed = size.features * n_tokens / report["seconds_total"]
    work: Figure = {
        "what": "features × tokens a second, end to end, store verified",
        "value": speed,
        "unit": "/s",
        "goal": GOAL,
        "sense": "≥",
        "note": f"{size.features} features, {n_tokens} tokens, TopK {size.active}, the demo's language model to layer "
        f"{size.layer}; {report['seconds_total']:.0f} s, {report['collect']['forward_seconds']:.0f} s of them the "
        "model's forward",
    }
    same: Figure = {
        "what": "files of a store that are others with --exact-products",
        "value": float(differ),
        "unit": "",
        "goal": 0.0,
        "sense": "=",
        "note": f"SHA-256 of {len(low['files'])} files, all but run.json; {size.compared[0]} documents, "
        f"{size.compared[1]} features",
    }
    return {
        "options": size._asdict(), "figures": [work, same],
        "seconds": {"total": report["seconds_total"], "forward": report["collect"]["forward_seconds"],
                    "steps": report["seconds"]},
        "products": {"bfloat16": report["products"], "exact": exact["products"]},
    }  # fmt: skip


def whole_run(setup: Setup, documents: Path, sae: Path, *, exact: bool = False) -> dict[str, Any]:
    """run.json of a whole run, with `seconds_total` from loading the model to the verified store, and `files`."""
    store = setup.scratch / "store"
    shutil.rmtree(store, ignore_errors=True)
    options = PrecomputeOptions(
        data=str(documents), model=str(setup.scratch / "lm"), sae=str(sae), out=store, name="bench", sinks="keep",
        device=setup.device, dtype="float32", exact_products=exact,
    )  # fmt: skip
    begin = time.perf_counter()
    precompute(options)
    seconds = time.perf_counter() - begin
    report: dict[str, Any] = json.loads((store / "run.json").read_text())
    files = json.loads((store / "manifest.json").read_text())["files"]
    return report | {"seconds_total": seconds, "files": files}
