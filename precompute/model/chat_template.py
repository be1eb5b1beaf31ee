"""A model's chat template is a program that others wrote: it is rendered in a process with little time and memory.

transformers renders templates in Jinja's sandbox, which keeps them from files and from Python's internals, but not from
loops without an end or texts of gigabytes.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from precompute.errors import SaevxError
from precompute.model import __file__ as room

SCRIPT = Path(room).with_name("template_worker.py")
ADVICE = "mend its chat_template, or choose another model"
TOO_SLOW = "does not end within a second"


class TemplateError(Exception):
    """What a template raises, such as a model's own sentence about what it does not take."""


class Worker:
    """The process; it is started when it is needed first, and again after a template has ended it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.process: subprocess.Popen[str] | None = None
        self.owner = 0
        atexit.register(self.stop)

    def start(self) -> subprocess.Popen[str]:
        """The running process; its first answer comes when its libraries are loaded."""
        with self.lock:
            if self.process is None or self.process.poll() is not None or self.owner != os.getpid():
                self.owner = os.getpid()
                self.process = subprocess.Popen(
                    [sys.executable, "-P", SCRIPT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )
            return self.process

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            with suppress(BrokenPipeError), self.process as process:
                process.kill()
            self.process = None

    def ask(self, request: str) -> dict[str, Any]:
        """The answer to a request, or `limit` where the process ended over it."""
        with self.lock:
            process = self.start()
            assert process.stdin is not None and process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
            if line := process.stdout.readline():
                return dict(json.loads(line))
            self.stop()
            slow = process.returncode in (-signal.SIGXCPU, -signal.SIGALRM)
            return {"limit": TOO_SLOW if slow else f"ends the process that renders it (status {process.returncode})"}


WORKER = Worker()


@lru_cache(maxsize=256)
def _render(request: str) -> str:
    answer = WORKER.ask(request)
    if "error" in answer:
        raise TemplateError(answer["error"])
    if "limit" in answer:
        raise SaevxError(f"The model's chat template {answer['limit']}: {ADVICE}.")
    return str(answer["rendered"])


def render(template: str | dict[str, str], messages: list[dict[str, Any]], *, generate: bool, **tokens: Any) -> str:
    """One conversation in a template, as `apply_chat_template` of transformers gives it. That itself is not called: it
    compiles the template in this process, and computes constants such as `'a' * 10**10` while it does.

    Args:
        template: of several by name, the one called `default` is taken.
        generate: end with the prompt for an answer.
        tokens: special tokens by their names, such as `bos_token`.

    Raises:
        SaevxError: it takes more time or memory than a template needs.
        TemplateError: it fails.
    """
    if isinstance(template, dict):
        if "default" not in template:
            raise TemplateError(f"none of its chat templates is called default: {', '.join(template)[:200]}")
        template = template["default"]
    request = {"conversations": [messages], "chat_template": template, "add_generation_prompt": generate, **tokens}
    return _render(json.dumps(request, default=str))
