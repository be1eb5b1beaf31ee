"""Files that are dropped or pasted on a page in Chromium."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

SEND = """([how, name, type, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name, { type }));
  const init = { bubbles: true, cancelable: true };
  const heading = document.querySelector("h1");
  if (how === "paste") { heading.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: data })); return; }
  for (const kind of ["dragover", "drop"]) heading.dispatchEvent(new DragEvent(kind, { ...init, dataTransfer: data }));
}"""


def drop(page: Page, name: str, kind: str, data: bytes, *, how: str = "drop") -> None:
    """Drop or paste a file on the heading: anywhere on the page will do."""
    page.evaluate(SEND, [how, name, kind, base64.b64encode(data).decode()])
