"""docs/method.md as a page: the whole document, without HTML of its own, and every link to a section leads to one."""

import re

from fastapi.testclient import TestClient
from markdown_it import MarkdownIt

from backend.app import FRONTEND
from tests.helpers.architecture import ROOT


def test_the_method_is_a_page(client: TestClient) -> None:
    reply = client.get("/method", headers={"Accept": "text/html"})
    assert reply.status_code == 200
    article = re.search(r"<article.*</article>", reply.text, re.S)
    assert article
    assert not re.search(r"\sstyle=|<script|javascript:|\.md", article[0])
    source = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    n_rows = sum(one.type == "tr_open" for one in MarkdownIt("commonmark").enable("table").parse(source))
    assert article[0].count("<tr>") == n_rows
    anchors = re.findall(r'<h\d id="([^"]+)"', article[0])
    assert len(anchors) == len(re.findall(r"^##+ ", source, re.M)) == len(set(anchors))
    templates = "".join(one.read_text(encoding="utf-8") for one in (FRONTEND / "templates").rglob("*.html"))
    titles = [
        *re.findall(r'href="#([^"]+)"', article[0]),
        *re.findall(r"m\.why\('[^']+', '([^']+)'\)", templates), *re.findall(r"'/method'\) }}#([\w-]+)\"", templates),
        "cross-modal-weight-ω", "names", "pair-evidence", "notation",
    ]  # fmt: skip
    assert not {one.replace("%CF%89", "ω") for one in titles} - set(anchors)
