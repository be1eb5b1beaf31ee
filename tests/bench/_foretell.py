"""What `saevx precompute --dry-run` would print, as numbers: `python -m tests.bench._foretell DATA MODEL SAE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    from precompute.pipeline import Options, Run

    data, model, sae, device = sys.argv[1:]
    told = Run(Options(data=data, model=model, sae=sae, out=Path("nowhere"), device=device)).forecast().forecast
    print(
        json.dumps(
            {"seconds": told.total, "memory": told.memory, "bytes": told.of["all"], "steps": told.seconds,
             "parts": told.bytes}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
