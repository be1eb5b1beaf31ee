"""The rooms of the code, from the bottom floor to the top, and what imports what.

`python -m tests.helpers.architecture` draws the rooms in docs/architecture.md from the imports, and their table.
"""

import ast
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
FLOORS = {
    "precompute.errors": "the exceptions that end a command in one sentence",
    "precompute.utils": "files, text, memory, processes, statistics",
    "precompute.products": "the largest of many products, quickly and exactly",
    "precompute.geometry": "which patch of which view an image token stands for",
    "precompute.data": "the user's rows: formats, ids, texts, images, batches",
    "precompute.options": "the options of every command",
    "precompute.store": "the finished store: tables, readers, writer, checks",
    "precompute.model": "the multimodal model, up to a layer",
    "precompute.sae": "sparse autoencoders: formats, checks, encoding",
    "precompute.collect": "the one pass over all pairs",
    "precompute.live": "search, scores and steering for a running server",
    "precompute.training": "training an SAE, and its evaluation in a model",
    "precompute.scoring": "scores, flags and their reasons",
    "precompute.patches": "a task with the best patches of images alone",
    "precompute.steps": "the steps after the pass, as --only names them",
    "precompute.controls": "how many verdicts chance alone would give",
    "precompute.estimate": "time, memory and bytes of --dry-run",
    "precompute.pipeline": "order of the steps, manifest",
    "precompute.migrate": "an older store of this schema, brought up to date",
    "precompute.demo": "the demo's model, SAE-V and data",
    "precompute.experiments": "the paper's experiments on the demo",
    "precompute.cli": "the offline commands",
    "backend.annotations": "what people write about a store, in another database",
    "backend": "the server: pages and JSON API",
}
"""Each floor and what it holds, from the bottom to the top. A module imports only from its own floor and from those
before it in this list."""
PICTURE = ROOT / "docs" / "img" / "architecture.svg"
PAGE = ROOT / "docs" / "architecture.md"
MARK = "<!-- rooms: rendered by python -m tests.helpers.architecture -->"


def floor_of(module: str) -> int | None:
    """Index in FLOORS of the floor on which a module stands."""
    for index, floor in enumerate(FLOORS):
        if module == floor or module.startswith(f"{floor}."):
            return index
    return None


@cache
def modules() -> dict[str, Path]:
    """Name and file of every module of `precompute` and `backend`."""
    paths = sorted(path for top in ("precompute", "backend") for path in (ROOT / top).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax tree of a file, from the module on. Those of all files take 200 MB: `nodes.cache_clear()`."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and full name of all that a file imports, wherever in the file: a module, or a name in a module."""
    names: list[tuple[int, str]] = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    return names


def floors_imported() -> set[tuple[int, int]]:
    """Pairs of floors (importing, imported) with at least one import between them."""
    pairs = set()
    for module, path in modules().items():
        floor = floor_of(module)
        for _, name in imports(path):
            target_floor = floor_of(name)
            if floor is not None and target_floor is not None and floor != target_floor:
                pairs.add((floor, target_floor))
    return pairs


def picture() -> str:
    """An SVG: the floors from top to bottom, and a dot for each lower floor from which one imports.

    Dots lie left of the stair alone, because no floor imports from one above it.
    """
    row, column, left, top = 26, 24, 500, 120
    names = [floor.removeprefix("precompute.") for floor in FLOORS]
    purposes = list(FLOORS.values())
    n = len(names)
    width, height = left + (n - 1) * column + 20, top + n * row + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#1f2430">',
        "<title>The rooms, from top to bottom, and from which lower rooms each imports</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="28" font-size="15" font-weight="600">The rooms, top to bottom</text>',
        '<text x="16" y="50" fill="#5b6270">● imports from the room of the column</text>',
        '<text x="16" y="70" fill="#5b6270">A room imports only from rooms below it.</text>',
    ]
    for index in range(n - 1):
        x = left + index * column + column // 2
        lines.append(f'<text transform="translate({x + 4} {top - 8}) rotate(-60)" font-size="12">{names[index]}</text>')
    pairs = floors_imported()
    for index in reversed(range(n)):
        y = top + (n - 1 - index) * row
        lines.append(f'<rect x="8" y="{y}" width="{left - 16}" height="{row - 3}" rx="4" fill="#eef2f8"/>')
        lines.append(f'<text x="16" y="{y + 16}" font-weight="600">{names[index]}</text>')
        lines.append(f'<text x="116" y="{y + 16}" fill="#5b6270">{escape(purposes[index])}</text>')
        for lower in range(index):
            x = left + lower * column
            lines.append(f'<rect x="{x}" y="{y}" width="{column - 3}" height="{row - 3}" rx="4" fill="#f6f8fb"/>')
            if (index, lower) in pairs:
                lines.append(f'<circle cx="{x + column // 2 - 1}" cy="{y + row // 2 - 2}" r="4.5" fill="#2f6fde"/>')
    return "\n".join([*lines, "</svg>", ""])


def rooms_table() -> str:
    """The floors from top to bottom and what each holds, as Markdown."""
    paths = {floor: floor.replace(".", "/") for floor in FLOORS}
    paths |= {floor: f"{path}.py" for floor, path in paths.items() if (ROOT / f"{path}.py").is_file()}
    rows = [f"| `{paths[floor]}` | {description} |" for floor, description in reversed(FLOORS.items())]
    return "\n".join(["| room | what it holds |", "|---|---|", *rows])


def page() -> str:
    """docs/architecture.md with the table of rooms in its place."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index(MARK) + len(MARK), text.index("<!-- /rooms -->")
    return f"{text[:begin]}\n{rooms_table()}\n{text[end:]}"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
