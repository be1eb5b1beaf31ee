"""Times `saevx demo` as a person meets it: from the command to a page, and once more.

    python -m precompute.demo.timing [DIR]

Writes docs/results/demo-timing.json. Without DIR, which must not exist yet, the demo is made in a scratch folder.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

OUT = Path("docs/results/demo-timing.json")
SAMPLES = 1500


def until_page(folder: Path) -> float:
    """Seconds until the front page answers."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "backend.cli", "demo", "--dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = next((m for line in process.stdout if (m := re.search(r"http://\S+", line))), None)
            if found is None:
                raise SystemExit("the demo did not start")
            with urllib.request.urlopen(found[0], timeout=60) as reply:
                reply.read()
            return time.monotonic() - begin
        finally:
            process.terminate()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # The converted language model is kept between demos; a first run has to make it.
        os.environ["SAEVX_CACHE"] = str(Path(scratch) / "cache")
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch) / "demo"
        if folder.exists():
            raise SystemExit(f"{folder} is there already.")
        first, again = until_page(folder), until_page(folder)
    told = {
        "command": "python -m precompute.demo.timing",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "samples": SAMPLES,
        "first_seconds": round(first, 1),
        "again_seconds": round(again, 1),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
