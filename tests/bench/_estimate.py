"""What `saevx precompute --dry-run` would print, as numbers: `python -m tests.bench._estimate DATA MODEL SAE`."""

import json
import sys
from pathlib import Path
from typing import Any


def measured_estimate(data: str, model: str, sae: str, device: str) -> dict[str, Any]:
    from precompute.estimate.budget import estimate
    from precompute.options.precompute import PrecomputeOptions

    options = PrecomputeOptions(data=data, model=model, sae=sae, out=Path("nowhere"), device=device)
    result = estimate(options)[0].estimate
    return {
        "seconds": result.total,
        "memory": result.memory,
        "bytes": result.bytes_with["all"],
        "steps": result.seconds,
        "parts": result.bytes,
    }


if __name__ == "__main__":
    print(json.dumps(measured_estimate(*sys.argv[1:])))
