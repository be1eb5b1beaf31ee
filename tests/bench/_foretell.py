"""What `saevx precompute --dry-run` would print, as numbers: `python -m tests.bench._foretell DATA MODEL SAE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def foretell(data: str, model: str, sae: str, device: str) -> dict[str, Any]:
    from precompute.estimate.budget import estimate
    from precompute.options.precompute import Options

    told = estimate(Options(data=data, model=model, sae=sae, out=Path("nowhere"), device=device))[0].forecast
    return {
        "seconds": told.total, "memory": told.memory, "bytes": told.of["all"], "steps": told.seconds,
        "parts": told.bytes,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(foretell(*sys.argv[1:])))
