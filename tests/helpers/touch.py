"""Fingers in Chromium: taps come from Playwright, strokes from the browser's own protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
"""Options of a browser context."""


def stroke(page: Page, places: Iterable[tuple[float, float]]) -> float:
    """One finger down at the first place of the window, through the others, and up.

    Returns: how far down the page is scrolled just before the finger is lifted; what it ends may scroll the page.
    """
    first, *later_places = places
    session = page.context.new_cdp_session(page)

    def send(kind: str, *at: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", first)
    start = first
    for to in later_places:  # in steps, as a finger moves
        for share in (0.25, 0.5, 0.75, 1):
            send("touchMove", (start[0] + (to[0] - start[0]) * share, start[1] + (to[1] - start[1]) * share))
            page.wait_for_timeout(30)
        start = to
    page.wait_for_timeout(150)  # lifted in motion, a finger flings, and the next tap only ends that
    send("touchMove", start)
    scrolled: float = page.evaluate("scrollY")
    send("touchEnd")
    session.detach()
    return scrolled


def is_reachable(page: Page) -> bool:
    """Whether the page is no wider than the window, so that a finger needs only up and down."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")
