"""`make audit`: asks the databases of PyPI and npm whether a locked version has a known vulnerability.

Ends with 0 where none has, 1 where one has, and 2, in one sentence, where a database gives no answer.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PIP_AUDIT = (
    ".venv/tools/bin/pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json",
    "-r", "requirements.lock",
)  # fmt: skip
NPM = ("npm", "--prefix", "frontend", "audit", "--json")


class NoAnswerError(Exception):
    """A database gives no answer."""


def report(name: str, command: Sequence[str]) -> dict[str, Any]:
    """What a command prints as JSON.

    Raises:
        NoAnswerError: it prints none, or only that it failed.
    """
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
    except (OSError, ValueError) as error:
        raise NoAnswerError(name) from error
    if not isinstance(answer, dict) or "error" in answer or not answer.keys() & {"dependencies", "vulnerabilities"}:
        raise NoAnswerError(name)
    return answer


def python_holes(answer: dict[str, Any]) -> list[str]:
    packages = answer["dependencies"]
    return [f"{one['name']} {one['version']}: {hole['id']}" for one in packages for hole in one.get("vulns", ())]


def npm_holes(answer: dict[str, Any]) -> list[str]:
    return [f"{name}: {one['severity']}" for name, one in answer["vulnerabilities"].items()]


def main(python: Sequence[str] = PIP_AUDIT, npm: Sequence[str] = NPM) -> int:
    """The exit status."""
    try:
        holes = python_holes(report("PyPI", python)) + npm_holes(report("npm", npm))
    except NoAnswerError as error:
        print(
            f"{error} gives no answer, so nothing is known of the locked versions: try again with a network.",
            file=sys.stderr,
        )
        return 2
    print("\n".join(holes) or "No locked version has a known vulnerability.")
    return bool(holes)


if __name__ == "__main__":
    sys.exit(main())
