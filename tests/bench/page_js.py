"""JavaScript that a page loads before it is whole, as Chromium asks for it."""

import gzip
from typing import Any

from playwright.sync_api import sync_playwright

from tests.bench.common import Figure, Setup, begin, free_port, until_ready
from tests.helpers.chromium import FLAGS, chromium

PAGES = ("/", "/features", "/features/0", "/samples", "/search", "/cooccurrence", "/quality", "/sae", "/steer")


def run(setup: Setup) -> dict[str, Any]:
    pages = PAGES[2:3] if setup.small else PAGES
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    store = str(setup.demo / "store")
    server = begin("serve", store, "--port", port, "--no-live")
    result: dict[str, dict[str, int]] = {}
    try:
        until_ready(server, url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            for page in pages:
                scripts: dict[str, int] = {}
                tab = browser.new_context().new_page()
                tab.on(
                    "response",
                    lambda r, s=scripts: (
                        s.update({r.url: len(gzip.compress(r.body()))}) if r.request.resource_type == "script" else None
                    ),
                )
                tab.goto(url + page, wait_until="networkidle")
                result[page] = {name.removeprefix(url): size for name, size in scripts.items()}
                tab.context.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    size = {page: sum(scripts.values()) for page, scripts in result.items()}
    most = max(size, key=lambda page: size[page])
    figure: Figure = {
        "what": "JavaScript of a page, compressed", "value": size[most] / 1000, "unit": "KB", "goal": 30.0,
        "sense": "≤", "note": f"gzip, every module that the page asks for; the largest of {len(pages)} pages is {most}",
    }  # fmt: skip
    return {"options": {"pages": len(pages)}, "figures": [figure], "bytes": result}
