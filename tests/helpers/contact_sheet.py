"""Photographs every page and state of the explorer and puts them on contact sheets to look at.

    python -m tests.helpers.contact_sheet --store demo/store --out demo/screenshots

One sheet per theme and width: OUT/sheet-light-1280.png … The single images are beside them, and each page in its whole
length as …-all.png. The images of README and docs/tour.md:

    python -m tests.helpers.contact_sheet --docs docs/img
"""

import argparse
import html
import io
import json
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

from tests.helpers.chromium import FLAGS, chromium
from tests.helpers.servers import Server

THEMES = ("light", "dark")
WIDTHS = (1280, 768, 390)
COLUMNS, THUMB, HEIGHT = 4, 400, 900
BEST_FIRST = "sort=evidence&order=desc"


def pages(base: str) -> dict[str, str]:
    """Paths by the names of their images, with ids that this store has."""

    def first(path: str, field: str) -> str:
        with urllib.request.urlopen(f"{base}/api/v1/{path}") as reply:
            answer = json.load(reply)
        items = answer["items"] if isinstance(answer, dict) else answer
        return str(items[0][field]) if items else "0"

    feature, sample = first(f"features?{BEST_FIRST}&limit=1", "id"), first("samples?limit=1", "sample_id")
    dead_id, image_only = (first(f"features?verdict={verdict}&limit=1", "id") for verdict in ("dead", "image-only"))
    return {
        "front": "/",
        "features": "/features", "features-empty": "/features?q=zzzzqq", "features-wrong": "/features?min_lift=x",
        "feature": f"/features/{feature}", "feature-text": f"/features/{feature}?modality=text",
        "feature-counter": f"/features/{feature}?band=counter", "feature-image-only": f"/features/{image_only}",
        "feature-spotlight": f"/features/{feature}?modality=image&heat=spotlight",
        "factsheet": f"/features/{feature}/factsheet", "partners": f"/features/{feature}/partners",
        "factsheet-image-only": f"/features/{image_only}/factsheet", "factsheet-dead": f"/features/{dead_id}/factsheet",
        "partners-empty": f"/features/{dead_id}/partners", "effect": f"/features/{feature}/effect",
        "features-places": "/features?cols=agreement,place_map", "features-tag": "/features?tag=zzzzqq",
        **{f"tour-{number}": step for number, step in enumerate(tour(base), 1)},
        "feature-dead": f"/features/{dead_id}", "feature-missing": "/features/99999999",
        "samples": "/samples", "samples-empty": "/samples?q=zzzzqq", "sample": f"/samples/{sample}",
        "sample-missing": "/samples/zzzz", "search": "/search", "search-word": "/search?q=dog",
        "search-empty": "/search?q=zzzzqq", "try": "/try", "try-text": "/try?text=a+red+dog",
        "search-sample": f"/search?sample={sample}",
        "cooccurrence": "/cooccurrence", "cooccurrence-one": f"/cooccurrence?feature={feature}",
        "pair": f"/cooccurrence/pair?a={feature}&b={image_only}",
        "lists": "/lists", "list": "/lists/" + first("annotations/lists", "name"), "list-missing": "/lists/zzzz",
        "basket": f"/basket?features={feature},{image_only}&sample={sample}", "basket-empty": "/basket",
        "map": "/map", "map-profile": "/map?layout=profile", "map-chosen": f"/map?feature={feature}&q=dog",
        "map-samples": "/map?of=samples", "map-samples-chosen": "/map?of=samples&row=0&q=dog&colour=pooled-cosine",
        "map-samples-area": "/map?of=samples&area=0-0_32767-0_32767-32767_0-32767",
        "map-samples-empty": "/map?of=samples&q=zzzzqq",
        "quality": "/quality", "rejected": "/rejected", "sae": "/sae",
        "steer": f"/steer?feature={feature}", "explain": "/explain", "method": "/method", "docs": "/docs",
        "missing": "/nowhere",
    }  # fmt: skip


def tour(base: str) -> list[str]:
    """Paths of the steps of the tour, in their order."""
    paths: list[str] = []
    path = "/tour"
    while path:
        with urllib.request.urlopen(base + path) as reply:
            paths.append(path if paths else reply.url.removeprefix(base))
            follows = re.search(r'href="([^"]+)" data-testid="tour-next"', reply.read().decode())
        path = html.unescape(follows[1]) if follows else ""
    return paths


def pages_of_docs(base: str) -> dict[str, str]:
    """Paths by the files of their images in docs/img."""
    with urllib.request.urlopen(f"{base}/api/v1/features?q=dog&verdict=cross-modal&{BEST_FIRST}&limit=1") as reply:
        dog = json.load(reply)["items"][0]["id"]
    with urllib.request.urlopen(f"{base}/api/v1/samples?q=dog&feature={dog}&side=both&limit=1") as reply:
        sample = json.load(reply)["items"][0]["sample_id"]
    return {
        "feature.png": f"/features/{dog}?modality=image", "features.webp": "/features", "quality.webp": "/quality",
        "sample.webp": f"/samples/{sample}?f={dog}", "map.webp": f"/map?feature={dog}",
        "search.webp": f"/search?sample={sample}", "map-of-samples.webp": "/map?of=samples&colour=pooled-cosine",
    }  # fmt: skip


def photograph_for_docs(browser: Browser, base: str, out: Path) -> None:
    """The first window of each page, light, 1280 wide."""
    context = browser.new_context(color_scheme="light", viewport={"width": WIDTHS[0], "height": HEIGHT})
    page = context.new_page()
    for name, path in pages_of_docs(base).items():
        page.goto(base + path, wait_until="networkidle")
        page.wait_for_timeout(700)
        with Image.open(io.BytesIO(page.screenshot())) as image:
            image.convert("RGB").save(out / name, quality=82)
    context.close()


def write_notes(base: str) -> None:
    """A label, a tag and a note on the features that the sheets show first, and a list of two of them."""
    with urllib.request.urlopen(f"{base}/api/v1/features?{BEST_FIRST}&limit=3") as reply:
        ids = [item["id"] for item in json.load(reply)["items"]]
    with urllib.request.urlopen(f"{base}/api/v1/samples?limit=2") as reply:
        samples = [sample["sample_id"] for sample in json.load(reply)["items"]]
    bodies: dict[str, dict[str, Any]] = {
        f"features/{ids[0]}": {"label": "seen by Ada", "tags": ["to test"], "note": "Fires on small ones too."},
        "lists/to-look-at-again": {
            "title": "To look at again",
            "features": ids,
            "samples": samples,
            "pair": {"sample_id": samples[0]},
        },
    }
    for path, body in bodies.items():
        content = json.dumps({**body, "author": "Ada"}).encode()
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        request = urllib.request.Request(f"{base}/api/v1/annotations/{path}", content, headers, method="PUT")
        urllib.request.urlopen(request).close()


def photograph(browser: Browser, base: str, out: Path, theme: str, width: int) -> list[tuple[str, Path]]:
    """Two images a page, its first window and all of it, of which this returns the first. Says on standard output where
    a page is wider than its window or reports an error."""
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": HEIGHT})  # type: ignore[arg-type]
    page, shots, errors = context.new_page(), [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name, path in pages(base).items():
        page.goto(base + path, wait_until="load")
        page.wait_for_timeout(700)  # the map and the images that appear late
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        wrong = [error for error in errors if "the server responded with a status of 4" not in error]
        if overflow > 0 or wrong:
            print(f"{name} {theme} {width}: {overflow} px too wide; errors: {wrong}")
        errors.clear()
        file = out / f"{name}-{theme}-{width}.png"
        page.screenshot(path=file)
        page.evaluate("for (const one of document.images) one.loading = 'eager'")
        page.wait_for_timeout(300)
        page.screenshot(path=out / f"{name}-{theme}-{width}-all.png", full_page=True)
        shots.append((name, file))
    context.close()
    return shots


def sheet(shots: list[tuple[str, Path]], file: Path, width: int) -> None:
    """The images in a grid, each with its name."""
    thumb = min(THUMB, width)
    height = round(HEIGHT * thumb / width)
    rows = -(-len(shots) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * (thumb + 8), rows * (height + 24)), "#777")
    draw = ImageDraw.Draw(canvas)
    for i, (name, path) in enumerate(shots):
        x, y = i % COLUMNS * (thumb + 8), i // COLUMNS * (height + 24)
        draw.text((x + 4, y + 5), name, fill="white")
        with Image.open(path) as image:
            canvas.paste(image.convert("RGB").resize((thumb, height), Image.Resampling.LANCZOS), (x, y + 22))
    canvas.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", type=Path, default=Path("demo/store"))
    parser.add_argument("--out", type=Path, default=Path("demo/screenshots"))
    parser.add_argument("--url", help="a server that runs already, instead of one of its own")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--themes", nargs="+", default=THEMES)
    parser.add_argument("--docs", type=Path, help="folder for the images of the documents, in place of the sheets")
    o = parser.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)

    def shoot(base: str) -> None:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            if o.docs:
                photograph_for_docs(browser, base, o.docs)
            for theme in [] if o.docs else o.themes:
                for width in o.widths:
                    sheet(photograph(browser, base, o.out, theme, width), o.out / f"sheet-{theme}-{width}.png", width)
            browser.close()

    if o.url:
        shoot(o.url.rstrip("/"))
    else:
        with tempfile.TemporaryDirectory() as scratch:  # what the sheets write stays away from the store's own notes
            notes = f"sqlite:///{scratch}/notes.sqlite"
            with Server(o.store, "--no-live", "--annotations", notes, log=o.out / "server.log") as server:
                if not o.docs:
                    write_notes(server.url)
                shoot(server.url)


if __name__ == "__main__":
    main()
