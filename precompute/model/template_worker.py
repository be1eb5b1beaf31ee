"""Chat templates rendered in a process of its own, with little time and memory: a request a line, an answer a line.

Run as a file by chat_template.py, without the other modules of this package, whose libraries take long to load.
"""

import json
import math
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

CPU_SECONDS = 1
MEMORY = 512 << 20
"""Bytes beyond what the process has when it is ready."""
MAX_CHARACTERS = 100_000
IDLE_SECONDS = 60
"""After so long without a request, or within one, the process ends."""


def limit_memory() -> None:
    with suppress(OSError, ValueError):  # not on every system
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        set_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)


def set_limit(resource_id: int, value: int) -> None:
    hard = resource.getrlimit(resource_id)[1]
    resource.setrlimit(resource_id, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def answer(line: str) -> dict[str, object]:
    """The text, or why there is none."""
    try:
        (text,), _ = render_jinja_template(**json.loads(line))
    except MemoryError:
        return {"limit": "needs too much memory"}
    except RecursionError:
        return {"limit": "calls itself without an end"}
    except Exception as error:  # whatever a template raises
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if len(text) > MAX_CHARACTERS:
        return {"limit": "writes more than 100,000 characters"}
    return {"rendered": text}


def main() -> None:
    limit_memory()
    signal.alarm(IDLE_SECONDS)
    for line in sys.stdin:
        signal.alarm(IDLE_SECONDS)
        set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + CPU_SECONDS)  # then the system ends the process
        print(json.dumps(answer(line)), flush=True)


if __name__ == "__main__":
    main()
