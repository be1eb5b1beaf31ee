"""Build hook: what `npm ci` installed and the wheel must carry, so that its pages and its demo need no Node."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = ("htm/preact/standalone.module.js", "htm/LICENSE")
"""Third-party modules that pages load."""


class NodeFiles(BuildHookInterface[Any]):
    """Adds modules under frontend/static/vendor and the demo's drawings under precompute/demo/drawings."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        installed = root / "frontend/node_modules"
        wanted = {installed / name: f"frontend/static/vendor/{name}" for name in MODULES}
        emoji = installed / "@lobehub/fluent-emoji-3d"
        for code in drawings(root / "precompute/demo/scenes.py"):
            wanted[emoji / f"assets/{code}.webp"] = f"precompute/demo/drawings/{code}.webp"
        wanted[emoji / "README.md"] = "precompute/demo/drawings/README.md"
        missing = [path for path in wanted if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{missing[0]} is not there: build the wheel with `make wheel`.")
        build_data["force_include"].update({str(path): target for path, target in wanted.items()})


def drawings(scenes: Path) -> list[str]:
    """Code points of OBJECTS, read without importing the package."""
    for node in ast.parse(scenes.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OBJECTS" and node.value is not None:
            return [code for codes in ast.literal_eval(node.value).values() for code in codes]
    raise LookupError("scenes.py names no OBJECTS")
