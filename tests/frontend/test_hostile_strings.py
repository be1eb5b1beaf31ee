"""Texts that would run as scripts stay text, wherever they stand: on every page, in the exported site, in drawings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from backend.links import sample_path
from backend.mcp.server import attach
from backend.settings import Settings
from tests.helpers.hostile.strings import CASES, MARK, make_store
from tests.helpers.in_process import apart, saevx
from tests.helpers.running import Running
from tests.helpers.shared import made_once

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

PLAIN = [
    "/", "/features", "/features?view=cards", "/map", "/samples", "/samples?sort=row&order=desc", "/quality",
    "/map?of=samples&row=0&area=0-0_65534-0_65534-65534",
    "/rejected", "/sae", "/cooccurrence", "/compare?a=3&b=5", "/lists", "/lists/hostile", "/method", "/hallucination",
    "/tour", "/docs", "/api/v1/samples", "/api/v1/store", "/api/v1/rejected", "/annotations", "/steer", "/explain",
    "/try", "/search",
]  # fmt: skip
TYPED = [
    "/search?q={}", "/samples?words={}", "/features?words={}", "/features?tag={}", "/try?text=a+{}+dog",
    "/steer?text={}", "/explain?text=a+{}", "/explain?text=a+{}&f=3", "/cooccurrence?words={}", "/rejected?kind={}",
    "/lists/{}", "/{}", "/features/3?text={}", "/basket?features={}", "/quality?flag={}", "/compare?a={}",
    "/map?layout={}", "/map?of=samples&q={}", "/docs?{}",
]  # fmt: skip
FOREIGN = (
    "iframe, base, meta[http-equiv=refresh], [onload], [onerror], [onmouseover], a[href^='javascript:' i], "
    "a[href^='data:text' i]"
)
"""What no page of ours has."""
CENTRE_OF = """at => {
    const element = document.querySelectorAll("main [tabindex], main [data-feature], main .tok")[at];
    element?.scrollIntoView({ block: "center", behavior: "instant" });
    const { x, y, width, height } = element?.getBoundingClientRect() ?? { width: 0, height: 0 };
    return width && height ? [x + width / 2, y + height / 2] : null;
}"""
"""Where to point at. Asked of the page in one go: an element seen a moment ago may be gone."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "hostile-strings", make_store)


@pytest.fixture(scope="module")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With the model, and with labels, notes, tags, a list and filters that are as hostile as the data."""
    notes = f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'notes.sqlite'}"
    running = Running(Settings(stores=[place / "store"], device="cpu", annotations=notes))
    attach(running.app)
    with running:
        held = {one["sample_id"] for one in running.get("/api/v1/samples?limit=100").json()["items"]}
        texts = [case.text for case in CASES if case.text in held]
        for feature, text in zip(used_features(running), texts, strict=False):
            written = {"label": text, "note": f"{text}\n{text}", "tags": [as_tag(text)], "author": text[:80]}
            put(running, f"features/{feature}", written)
        for text in texts:
            put(running, f"sample?id={quote(text, safe='')}", {"note": text, "tags": [as_tag(text)]})
        script = texts[1]
        put(running, "lists/hostile", {
            "title": script, "note": "\n".join(texts), "features": used_features(running)[:5], "samples": texts[:1],
            "pair": {"text": f"a {script} dog"},
        })  # fmt: skip
        put(running, "filters/hostile", {"title": script, "page": "/features", "query": f"words={quote(script)}"})
        yield running


def used_features(running: Running) -> list[int]:
    return [one["id"] for one in running.get("/api/v1/features?limit=60").json()["items"]]


def as_tag(text: str) -> str:
    return text[:60].replace(",", ";")


def put(running: Running, path: str, body: Mapping[str, object]) -> None:
    import httpx

    reply = httpx.put(f"{running.url}/api/v1/annotations/{path}", json=body, headers={"If-Match": "0"}, timeout=60)
    assert reply.status_code == 200, reply.text


class Watch:
    """What a page did that no text may do."""

    def __init__(self, page: Page) -> None:
        self.page, self.wrong = page, list[str]()
        page.on("dialog", self.dismiss)
        page.on("console", lambda one: self.wrong.append(one.text) if "Content Security" in one.text else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda one: self.wrong.append(one.url) if "127.0.0.1:9/" in one.url else None)
        page.add_init_script(
            "window.reports = []; addEventListener('securitypolicyviolation', e => reports.push(e.violatedDirective))"
        )

    def dismiss(self, dialog: Dialog) -> None:
        self.wrong.append("a dialog")
        dialog.dismiss()

    def visit(self, address: str, *, touch: bool = True) -> None:
        """Open an address, touch what can be touched, and look."""
        self.page.goto(address, wait_until="load")
        for at in range(6 if touch else 0):
            if centre := self.page.evaluate(CENTRE_OF, at):
                self.page.mouse.move(*centre)
        self.page.keyboard.press("Tab")
        body = "document.querySelector('main, body, svg').textContent"
        kind, reports, text = self.page.evaluate(f"[typeof window.{MARK}, window.reports || [], {body}]")
        assert (kind, reports, self.wrong) == ("undefined", [], []), address
        assert text.strip() and self.page.locator("main, body, svg").first.is_visible(), address
        assert not self.page.locator(FOREIGN).count(), address


@pytest.fixture(scope="module")
def watch(browser: Browser, server: Running) -> Iterator[Watch]:
    """One page for all addresses."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1440, "height": 900})
    yield Watch(context.new_page())
    context.close()


@pytest.mark.parametrize("address", PLAIN)
def test_a_page_of_a_hostile_store_runs_nothing(watch: Watch, address: str) -> None:
    watch.visit(address)


@pytest.mark.parametrize("address", TYPED)
def test_what_stands_in_an_address_runs_nothing(watch: Watch, address: str) -> None:
    for case in CASES[1:8:4]:
        watch.visit(address.format(quote(case.text, safe="")))


def test_every_hostile_sample_and_feature_runs_nothing(watch: Watch, server: Running) -> None:
    for case in CASES[::3]:
        watch.visit(sample_path(case.text))
    for feature in used_features(server)[:3]:
        for tail in ("", "/factsheet", "/factsheet.svg", "/effect"):
            watch.visit(f"/features/{feature}{tail}")


def test_each_text_is_shown_as_it_is_written(watch: Watch) -> None:
    for case in CASES[1::3]:
        watch.page.goto(sample_path(case.text))
        assert case.text in (watch.page.locator("main").text_content() or ""), case.name


class Quiet(SimpleHTTPRequestHandler):
    """Without a line per request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_the_exported_site_runs_nothing_without_any_policy(browser: Browser, place: Path, tmp_path: Path) -> None:
    bounds = ("--features", "2", "--samples", "3", "--pairs", "1")
    done = apart(saevx, "export", place / "store", "--out", tmp_path / "site", *bounds)
    assert done.status == 0, done.err
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as files:
        Thread(target=files.serve_forever, daemon=True).start()
        context = browser.new_context(base_url=f"http://127.0.0.1:{files.server_port}")
        watch = Watch(context.new_page())
        pages = sorted(path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html"))
        assert len(pages) > 15
        for page in pages:
            watch.visit("/" + quote(page), touch=False)
        context.close()
        files.shutdown()


def test_agents_get_the_texts_as_data(server: Running) -> None:
    from mcp import Client

    async def ask() -> list[str]:
        async with Client(f"{server.url}/mcp") as client:
            results = [await client.call_tool("about_store", {}), await client.call_tool("list_samples", {"limit": 50})]
            return [json.dumps(one.structured_content, ensure_ascii=False) for one in results]

    about, samples = apart(asyncio.run, ask())
    assert json.dumps(f"model {CASES[1].text}")[1:-1] in about
    assert sum(json.dumps(case.text, ensure_ascii=False)[1:-1] in samples for case in CASES) == len(CASES)
