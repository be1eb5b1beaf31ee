"""Where Chromium is on this machine, and what of it tests do without."""

import os
import shutil

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
"""The first is the same browser without its own windows, which take a fifth of the time of a test."""
WITHOUT = "WebUIOmniboxPopup,WebUIOmniboxAimPopup,HttpsUpgrades,LensOverlay,MediaRouter,PaintHolding,OptimizationHints"
"""The address bar of each window of the others runs two pages of its own, which cost as much as the page under test;
the rest is what Playwright switches off, as this list takes the place of its own."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    f"--disable-features={WITHOUT}",
]


def chromium() -> str | None:
    """The variable CHROMIUM, or a browser of this machine."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
