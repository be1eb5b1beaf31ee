"""`--dry-run` against what then happens: seconds, memory and bytes of whole commands, each in a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench._estimate import measured_estimate
from tests.bench.common import TREE, Figure, Setup, subset
from tests.bench.shards import peak
from tests.helpers import tiny

SAMPLES: tuple[int | None, ...] = (60, 400, None)
"""Pairs of the demo; None is all."""
GOAL = 0.2
KINDS = {"seconds": "seconds", "memory": "peak memory", "bytes": "bytes of the store"}


def run(setup: Setup) -> dict[str, Any]:
    runs = {}
    if setup.small:  # the demo's SAE alone would take longer
        data = tiny.make_data(setup.scratch / "data", 40)
        model, sae = tiny.make_llava(setup.scratch / "model"), tiny.make_sae(setup.scratch / "sae")
        runs["40"] = one(setup, data, model, sae)
    else:
        for n in SAMPLES:
            data = setup.demo / "data" if n is None else subset(setup, n)
            runs["all" if n is None else str(n)] = one(setup, data, setup.demo / "model", setup.demo / "sae")
    worst = {
        kind: max(abs(result["foretold"][kind] / result["actual"][kind] - 1) for result in runs.values())
        for kind in KINDS
    }
    figures: list[Figure] = [
        {
            "what": f"largest error of the {title} that --dry-run foretells",
            "value": worst[kind], "unit": "", "goal": GOAL, "sense": "≤",
            "note": "share of what then happened; " + "; ".join(
                f"{name} pairs: {result['foretold'][kind]:.4g} foretold, {result['actual'][kind]:.4g} taken"
                for name, result in runs.items()
            ),
        }
        for kind, title in KINDS.items()
    ]  # fmt: skip
    return {"options": {"samples": list(runs)}, "figures": figures, "runs": runs}


def one(setup: Setup, data: Path, model: Path, sae: Path) -> dict[str, Any]:
    """Foretold, then done."""
    query = [str(data), str(model), str(sae), setup.device]
    if setup.small:  # here, where everything is imported already; no figure counts
        report = measured_estimate(*query)
    else:
        command = [sys.executable, "-m", "tests.bench._estimate", *query]
        done = subprocess.run(command, env=TREE, capture_output=True, text=True, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
    out = setup.scratch / f"store-{data.name}"
    begin = time.perf_counter()
    most = peak(
        ["precompute", str(data), "--model", str(model), "--sae", str(sae), "--out", str(out), "--device", setup.device]
    )
    seconds = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    steps = json.loads((out / "run.json").read_text())["seconds"]
    return {
        "foretold": report,
        "actual": {"seconds": seconds, "memory": most, "bytes": size, "steps": steps},
    }
