"""`saevx export`: a folder that a plain file server shows, with no link that leads nowhere."""

import html
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, expect

from backend.static_site.html import StaticPage
from backend.static_site.names import Names
from tests.helpers import synthetic
from tests.helpers.in_process import apart, saevx


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    store = synthetic.small_store(tmp_path_factory)
    bounds = ("--features", "8", "--samples", "6", "--pairs", "2")
    done = apart(saevx, "export", store, "--out", out, *bounds)
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The folder behind the file server of Python's standard library."""
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


NAMES_DRAWN = """() => {
  const over = document.querySelector("#map-over");
  return over.getContext("2d").getImageData(0, 0, over.width, over.height).data.some((byte) => byte > 0);
}"""
"""No feature is chosen, so that only names can be drawn over the points."""


class Quiet(SimpleHTTPRequestHandler):
    """Without a line per request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Addresses(HTMLParser):
    """Every address in a page, its ids, and its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids.add(values.get("id") or "")
        names = ("href", "src", "action", "data-url", "data-activations", "data-next")
        self.targets += [values[name] or "" for name in names if name in values]


def test_every_link_of_every_page_leads_to_a_file(site: Path) -> None:
    pages = {path: Addresses(path.read_text("utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for target in page.targets:
            if target.startswith("https://arxiv.org/"):
                continue
            file, _, fragment = target.partition("#")
            there = (path.parent / unquote(file)).resolve() if file else path
            if not there.is_file() or site not in there.parents:
                wrong.append(f"{path.relative_to(site)}: {target}")
            elif fragment and fragment not in pages[there].ids and not fragment.startswith("f"):
                wrong.append(f"{path.relative_to(site)}: there is no {target}")
    assert not wrong, "\n".join(wrong[:20])
    assert len(pages) > 30


def test_no_control_that_needs_a_server_is_left(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Addresses(path.read_text("utf-8"))
        assert not {"select", "textarea", "template"} & set(page.tags), path
        assert page.tags.count("form") == 1, path  # of the dialog Keys
        text = path.read_text("utf-8")
        assert text.index("<main") < text.index("This is a copy to browse") < text.index("</h1>"), path
        assert ">More<" not in text and "choose one to see its examples" not in text, path


def test_the_copy_says_what_it_leaves_out_and_what_its_numbers_count(site: Path) -> None:
    front, features, on_map = ((site / name).read_text("utf-8") for name in ("index.html", "features.html", "map.html"))
    assert "the map of samples and steering need the server" in front
    assert "Numbers are of names, and several features may have one name" in features
    links = re.findall(r'<a class="small"([^>]*)>all [\d,]+</a>', on_map)
    assert links and all('href="features--' in one for one in links)


def test_the_numbers_of_pages_are_those_of_the_options(site: Path) -> None:
    features = [path for path in (site / "features").iterdir() if "--" not in path.name]
    pairs = list((site / "cooccurrence").glob("pair--*.html"))
    assert (len(features), len(list((site / "samples").glob("*.html"))), len(pairs)) == (8, 6, 2)


def test_a_sample_has_the_activations_of_its_features(site: Path) -> None:
    """As many values at each token as features."""
    for path in (site / "samples").glob("*.json"):
        data = json.loads(path.read_text("utf-8"))
        n = len(data["features"])
        assert n and all(len(one["values"]) == n for one in (*data["tokens"], *data["grids"]))


def test_a_sample_has_its_caption_with_each_token(site: Path) -> None:
    pages = sorted((site / "samples").glob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text("utf-8")
        title = html.unescape(text.partition("<title>")[2].partition(" – ")[0])
        caption = text.partition('data-testid="caption"')[2].partition("</div>")[0]
        tokens = re.findall(r'<a class="tok[^>]*data-position="\d+"[^>]*>([^<]+)</a>', caption)
        words = "".join(tokens) if len(tokens) > 1 else ""
        assert html.unescape(words).replace(" ", "")[:20] == title.replace(" ", "")[:20], page.name
        assert "data-swap" not in caption


def test_the_map_offers_what_the_copy_has(site: Path) -> None:
    text = (site / "map.html").read_text("utf-8")
    assert 'data-testid="colour-agreement"' in text
    assert not re.search('data-testid="layout-|selects an area|pins a feature', text.partition("<main")[2])


def test_a_page_without_a_server() -> None:
    page = (
        '<!DOCTYPE html><p title="a &amp; b">&lt;i> x &#233;<form><b>no</b><button>no</button></form>'
        '<a class="btn" href="/off">no</a><a class="label" href="/off">stays</a><a href="/on">goes</a>'
        '<svg viewBox="0 0 1 1"><path d="M0"/></svg><i data-server>no</i><template data-static>yes</template>'
    )
    result = StaticPage.convert(page, lambda address: "on.html" if address == "/on" else None, {})
    assert result == (
        '<!DOCTYPE html><p title="a &amp; b">&lt;i> x &#233;<a class="label">stays</a><a href="on.html">goes</a>'
        '<svg viewBox="0 0 1 1"><path d="M0"/></svg>yes'
    )


def test_two_addresses_have_two_files_also_where_case_does_not_count() -> None:
    names = Names()
    ids = ["a", "A", "a?b=1", "..", "a/..", "é", "e", "x" * 900, "x" * 901, "con?x=/etc", "a--1"]
    files = [names.add(f"/samples/{one}", ".html") for one in ids]
    assert len({file.lower() for file in files}) == len(ids)
    for file in files:
        assert file.isascii() and ".." not in file and all(len(part) < 120 for part in file.split("/"))
    assert names.add("/features/12?modality=text", ".html") == "features/12--text.html"
    assert names.add("/", ".html") == "index.html"


def test_no_file_has_the_name_of_a_folder_or_of_a_device_of_windows() -> None:
    names = Names()
    for sample in ("a", "a.html/b", "a.JSON/b", "CON", "nul.txt", "com1/x"):
        names.add(f"/samples/{sample}", ".html")
    parts = {part.lower() for file in names.file_of.values() for part in file.split("/")[:-1]}
    assert not any(part.endswith((".html", ".json")) for part in parts), parts
    stems = {part.lower().partition(".")[0] for file in names.file_of.values() for part in file.split("/")}
    assert not stems & {"con", "nul", "com1"}, stems


def test_the_settings_of_a_server_on_the_same_machine_change_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = synthetic.small_store(tmp_path_factory)

    def files(name: str) -> dict[Path, bytes]:
        done = apart(saevx, "export", store, "--out", tmp_path / name, "--features=1", "--samples=1", "--pairs=0")
        assert done.status == 0, done.err
        folder = tmp_path / name
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    without = files("without")
    for variable, value in {
        "ROOT_PATH": "/saevx", "TRUST_PROXY_AUTH": "X-User", "TOKEN": "12345678", "ALLOWED_HOST": "example.org",
        "LIVE": "true", "DEVICE": "cuda:99", "MAX_UPLOAD_MB": "none", "READ_ONLY": "true", "STORES": "[]",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SAEVX_{variable}", value)
    assert files("with") == without
    monkeypatch.setenv("SAEVX_ANNOTATIONS", "nosuch://")
    wrong = apart(saevx, "export", store, "--out", tmp_path / "wrong")
    assert wrong.status == 1 and "--annotations" in wrong.err and not (tmp_path / "wrong").exists()


def test_what_is_there_is_not_overwritten(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = saevx("export", synthetic.small_store(tmp_path_factory), "--out", site)
    assert done.status == 1
    assert done.err == f"saevx: {site} exists already: choose another --out or delete it.\n"


def test_a_folder_that_is_no_store_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = saevx("export", tmp_path, "--out", tmp_path / "out")
    assert done.status == 1 and done.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_in_a_browser_no_request_fails(site: Path, url: str, browser: Browser) -> None:
    """The way of a reader: list, feature, its other side, a sample with the feature on it, the map."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page, wrong = context.new_page(), list[str]()
        page.on("response", lambda reply: wrong.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
        page.on("requestfailed", lambda one: wrong.append(one.url) if one.failure != "net::ERR_ABORTED" else None)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        page.get_by_role("link", name="All features").first.click()
        page.locator("[data-testid=feature-row] a.label").first.click()
        page.get_by_test_id("modality-text").click()
        page.get_by_test_id("modality-image").click()
        page.locator("[data-testid=example] a[href*='#f']").first.click()
        page.locator("[data-testid=heat] path").first.wait_for(state="attached")
        page.get_by_test_id("keys-button").click()
        page.keyboard.press("Escape")
        for name in ("Samples", "Co-occurrence", "Quality", "SAE", "Method", "Map"):
            page.get_by_role("link", name=name, exact=True).first.click()
            page.wait_for_load_state()
        page.wait_for_selector("canvas[data-drawn]")
        page.get_by_test_id("colour-agreement").click()
        page.wait_for_load_state("networkidle")
        page.wait_for_function(NAMES_DRAWN)
        assert not wrong, "\n".join(wrong)


def test_activations_that_did_not_come_are_asked_for_again(site: Path, url: str, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{url}/features.html")
        page.locator("[data-testid=feature-row] a.label").first.click()
        page.route("**/samples/*.json", lambda route: route.fulfill(status=503, body="<p>busy</p>"))
        with page.expect_response("**/samples/*.json"):  # then the page listens to the pointer
            page.locator("[data-testid=example] a[href*='#f']").first.click()
        row = page.locator("#sample [data-feature]").first
        row.hover()
        expect(page.locator("[data-readout]").first).to_have_text("The server answered 503.")
        page.unroute("**/samples/*.json")
        page.mouse.move(0, 0)
        row.hover()
        page.locator(".previewing").wait_for()
