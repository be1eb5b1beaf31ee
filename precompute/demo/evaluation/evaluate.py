"""Measures the demo's model and SAE-V on scenes that neither has seen.

    python -m precompute.demo.evaluation.evaluate --model demo/model --sae demo/sae

Each part writes its figures to docs/results/demo-evaluation.json as it ends; `--only` reruns one.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from precompute.demo.evaluation.evaluate_model import Options, captions, vqa
from precompute.demo.evaluation.evaluate_sae import quality, steering, words
from precompute.demo.scenes import OBJECTS, SHAPES
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.utils.arguments import parsed


def main() -> None:
    o = parsed(Options, __doc__)
    found: dict[str, Any] = json.loads(o.out.read_text()) if o.out.exists() else {}
    found["about"] = {
        "command": "python -m precompute.demo.evaluation.evaluate",
        "options": {k: str(v) for k, v in vars(o).items() if k not in ("model", "sae", "out", "only")},
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "n_objects": len(OBJECTS),
        "n_shapes": len(SHAPES),
    }

    def part(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        if o.only and name not in o.only.split(","):
            return
        began = time.monotonic()
        found.update(measure())
        print(name, f"{time.monotonic() - began:.0f} s", flush=True)
        o.out.parent.mkdir(parents=True, exist_ok=True)
        o.out.write_text(json.dumps(found, indent=1) + "\n")

    sae = SaeV.load(o.sae) if o.sae.exists() else None
    mllm = Mllm.load(o.model, layer=sae.layer if sae else 10, full=True, dtype="float32")
    part("captions", lambda: captions(mllm, o))
    part("vqa", lambda: vqa(mllm, o))
    if sae is not None:
        part("words", lambda: words(mllm, sae, o))
        part("quality", lambda: quality(mllm, sae, o))
        part("steering", lambda: steering(mllm, sae, {w: r["candidates"] for w, r in found["words"].items()}, o))


if __name__ == "__main__":
    main()
