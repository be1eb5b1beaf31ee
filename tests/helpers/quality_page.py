"""What tests read off the page Quality and its exports in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def number(text: str) -> int:
    """All digits of a text as one number."""
    return int(re.sub(r"\D", "", text))


def handle_share(page: Page) -> float:
    """Where the handle of the threshold is: 0 at the left end of its range, 1 at the right."""
    handle = page.get_by_test_id("handle")
    low, high, value = (float(handle.get_attribute(name) or 0) for name in ("min", "max", "value"))
    return (value - low) / (high - low)


def exported_ids(page: Page, press: Callable[[], None]) -> list[str]:
    """Ids of the samples in the file that a press of the button saves."""
    with page.expect_download() as download:
        press()
    return [json.loads(line)["id"] for line in download.value.path().read_text().splitlines()]


def unflagged_ids(page: Page, flag: str, threshold: str) -> list[str]:
    """Ids of the samples that the flag does not have, of a store of at most 200, from the API."""
    items = page.request.get(f"/api/v1/samples?flag={flag}&threshold={threshold}&limit=200").json()["items"]
    everyone = page.request.get("/api/v1/samples?limit=200").json()["items"]
    left_out = {item["sample_id"] for item in items}
    return [item["sample_id"] for item in everyone if item["sample_id"] not in left_out]
