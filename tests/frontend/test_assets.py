"""Rules that hold for every template, module and colour: a strict policy, small pages, readable text."""

import gzip
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import FRONTEND, MODULES
from tests.helpers.colours import contrast, palette

TEMPLATES = sorted((FRONTEND / "templates").rglob("*.html"))
MODULES_OF_PAGES = sorted((FRONTEND / "static" / "js").rglob("*.js"))
BUDGET = 30 * 1024
PAGES = [
    "/",
    "/features",
    "/features/0",
    "/features/0/factsheet",
    "/features/0?tour=2",
    "/map",
    "/map?of=samples",
    "/samples",
    "/search",
    "/try",
    "/quality",
    "/sae",
    "/cooccurrence",
    "/compare",
    "/compare?a=0&b=3",
    "/steer",
    "/explain",
    "/lists",
    "/basket?features=0,1",
    "/docs",
]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda p: p.name)
def test_templates_hold_nothing_inline(template: Path) -> None:
    source = template.read_text()
    if template.name == "login.html":  # who has no token gets no other file; its policy allows this style by its hash
        source = source.replace("<style>{{ style }}</style>", "")
    assert not re.search(r"<style|\sstyle\s*=|javascript:|\son[a-z]+\s*=", source, re.I)
    assert not re.search(r"<script(?![^>]*\ssrc=)", source)
    assert "|safe" not in source and "autoescape false" not in source


@pytest.mark.parametrize("module", MODULES_OF_PAGES, ids=lambda p: p.name)
def test_modules_keep_to_the_policy(module: Path) -> None:
    source = module.read_text()
    assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", source)
    assert not re.search(r"new Worker|createObjectURL|https?://(?!www\.w3\.org)", source)
    for name in imports(source):
        assert name.startswith(("./", "../")), f"{name}: a bare import needs an inline import map"
        assert resolve(module, name).is_file(), name


def imports(source: str) -> list[str]:
    return re.findall(r'^(?:import\b|export\b[^"=\n]*\bfrom\b)[^"\n]*"([^"]+)"', source, re.M)


def resolve(module: Path, name: str) -> Path:
    """Where the server finds an import; /static/vendor is node_modules in a checkout."""
    if "/vendor/" in name:
        vendor = FRONTEND / "static" / "vendor"
        return (vendor if vendor.is_dir() else FRONTEND / "node_modules") / name.partition("/vendor/")[2]
    return (module.parent / name).resolve()


def loaded(module: Path, seen: set[Path]) -> set[Path]:
    if module not in seen:
        seen.add(module)
        for name in imports(module.read_text()) if "vendor" not in str(module) else []:
            target = resolve(module, name)
            if "node_modules" in target.parts or "vendor" in target.parts:
                seen.add(target)
            else:
                loaded(target, seen)
    return seen


@pytest.mark.parametrize("path", [*PAGES, "sample"])
def test_javascript_of_a_page_is_small(client: TestClient, sample_id: str, path: str) -> None:
    page = client.get(f"/samples/{sample_id}" if path == "sample" else path).text
    files: set[Path] = set()
    for source in re.findall(r'<script[^>]*\ssrc="/static/([^"?]+)', page):
        loaded(FRONTEND / "static" / source, files)
    assert files
    size = sum(len(gzip.compress(file.read_bytes())) for file in files)
    assert size <= BUDGET, f"{size} bytes of JavaScript: {[f.name for f in files]}"


def test_packages_from_npm_are_those_in_use() -> None:
    """What pages load, what the demo draws and names its things with, what tests read: nothing else is installed."""
    package = json.loads((FRONTEND / "package.json").read_text())
    query, tools = set(package["dependencies"]), set(package["devDependencies"])
    names = [name for m in MODULES_OF_PAGES for name in imports(m.read_text())]
    vendored = {name.partition("/vendor/")[2].split("/")[0] for name in names if "/vendor/" in name}
    assert vendored == set(MODULES)
    assert query == vendored | {"@lobehub/fluent-emoji-3d", "unicode-emoji-json"}
    locked = json.loads((FRONTEND / "package-lock.json").read_text())["packages"]
    assert tools == {"axe-core"}
    assert set(locked) == {"", *(f"node_modules/{name}" for name in query | tools)}


def test_pages_send_nothing_inline(client: TestClient) -> None:
    for path in PAGES:
        page = client.get(path).text
        assert not re.search(r"<[^>]+\sstyle=|<style|<script(?![^>]*\ssrc=)", page), path


# --- contrast (WCAG 2.2, 1.4.3) --------------------------------------------------------------------------


GROUNDS = ("page", "surface", "raised")
INKS = ("ink", "ink-soft", "accent", "text-side", "image-side", "good", "warn", "bad")
PAIRS = [
    *((ink, ground) for ink in INKS for ground in GROUNDS),
    *(("ink", f"t{step}") for step in range(1, 9)),
    ("on-accent", "accent"),
    ("accent", "accent-soft"),
    ("ink", "accent-soft"),
    ("ink", "bad-soft"),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_contrast(theme: int) -> None:
    colours = palette(theme)
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in PAIRS}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    edges = {g: contrast(colours["line-strong"], colours[g]) for g in GROUNDS}
    assert all(ratio >= 3 for ratio in edges.values()), edges  # 1.4.11: borders of controls
