"""Every page, in both themes and two widths, under axe-core: no serious violation, size of targets included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.app import FRONTEND
from tests.helpers.servers import page_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

AXE = FRONTEND / "node_modules" / "axe-core" / "axe.min.js"
# WCAG 2.5.8 excepts targets in a sentence; axe knows them by text beside them, and here each word is one.
NOT_WORDS = "axe.configure({rules: [{id: 'target-size', selector: '*:not(a.tok)'}]})"
RUN = f"{NOT_WORDS}, axe.run(document, {{resultTypes: ['violations'], rules: {{'target-size': {{enabled: true}}}}}})"
PATHS = [
    "/", "/features", "/features/0", "/map", "/samples", "/samples/s00000", "/search?q=red", "/quality", "/sae",
    "/cooccurrence", "/steer", "/explain", "/docs", "/method", "/rejected", "/features/0/factsheet",
    "/features/0/partners", "/lists", "/basket?features=0,1", "/map?of=samples",
    "/map?of=samples&q=red&row=3&area=0-0_65534-0_65534-65534_0-65534",
    "/features/0?tour=2", "/features?cols=place_map,agreement", "/features/0?modality=image&heat=spotlight",
]  # fmt: skip


@pytest.fixture(scope="module")  # a new page of Chromium takes longer than to open an address in one that is there
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    with page_of(browser, base_url) as one:
        yield one


@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing_serious(page: Page, path: str) -> None:
    for theme, width in (("light", 1440), ("dark", 390)):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path)
        page.wait_for_load_state("networkidle")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        serious = [
            (one["id"], one["nodes"][0]["html"])
            for one in page.evaluate(RUN)["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, (theme, width, serious)
