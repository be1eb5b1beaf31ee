"""The pages of a store that has no image at all: they name nothing that only images can have."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser

from backend.app import create_app
from backend.settings import Settings
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store.schema import FLAGS, OF_IMAGES, SCORES
from tests.helpers import tiny
from tests.helpers.running import Running
from tests.helpers.servers import page_of
from tests.helpers.shared import made_once
from tests.helpers.synthetic import word_feature, write_store

RED = word_feature("red")
PATHS = [
    "/", "/features", "/features?sort=id&cols=density,agreement,omega", f"/features/{RED}",
    f"/features/{RED}/factsheet", f"/features/{RED}?modality=text&band=counter", "/map", f"/map?feature={RED}&q=red",
    "/map?of=samples&row=3", "/samples", f"/samples?feature={RED}", "/samples/s00003", f"/samples/s00003?f={RED}",
    "/search", "/search?q=red", "/try", "/quality", "/quality?flag=repeated-text&by=l0", "/sae", "/cooccurrence",
    f"/cooccurrence?feature={RED}", "/compare", f"/compare?a={RED}&b=3", f"/steer?feature={RED}:add:1", "/explain",
    "/lists", "/basket", f"/basket?features={RED}", f"/basket?features={RED},4&sample=s00003", "/nosuch",
    *(f"/?tour={step}" for step in range(1, 6)),
]  # fmt: skip
NAMES = [name for name in OF_IMAGES if "-" in name] + [title for name, (title, _) in FLAGS.items() if name in OF_IMAGES]
"""Of scores and flags; the others, such as `dark`, are words of the language."""
OF_BOTH = ["(?<!<)images?(?!>)", "patch(es)?", "pixels?", "captions?", "cross-modal", "agreements?", "pair lift"]
WORDS = re.compile(rf"\b({'|'.join([*OF_BOTH, *map(re.escape, NAMES)])})\b|ω", re.I)
"""`<image>` is a token of the made-up vocabulary."""
PAIRS = re.compile(r"\bpairs?\b", re.I)
OF_FEATURES = ["Show a sample of each pair", "The store lists no such pair", "word pairs repeat"]
"""Pairs of features, which a store of texts has too: as all those of the page Co-occurrence."""
SAYS_THAT_THERE_ARE_NONE = [
    "A verdict about images needs images, which this store does not have.",
    "What compares a text with an image, or judges an image, is left out: this store has texts alone.",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = made_once(tmp_path_factory, "texts", lambda root: write_store(root / "store", 80, 0, pictures=False))
    app = create_app(Settings(stores=[root / "store"], live=False))
    with TestClient(app, headers={"Accept": "text/html"}) as running:
        yield running


def words_of(page: str) -> str:
    """What a reader sees, or hears of titles and labels, on the page and in its dialogs."""
    body = page.partition("<body")[2].partition('<footer class="foot"')
    body = body[0] + body[2].partition("</footer>")[2]  # the store's name and data are not ours
    body = re.sub(r"<(template|script)\b.*?</\1>", "", body, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: " ".join(["", *titles(tag[0]), ""]), body)
    return re.sub(r"\s+", " ", html.unescape(text))


def titles(part: str) -> list[str]:
    return re.findall(r'\b(?:title|aria-label|placeholder|alt|data-say)="([^"]*)"', part)


def of_images(path: str, page: str) -> list[str]:
    """What a page says of images, or of pairs that are not of features, with the words around it."""
    text = words_of(page)
    for sentence in [*SAYS_THAT_THERE_ARE_NONE, *OF_FEATURES]:
        text = text.replace(sentence, "")
    words = [*WORDS.finditer(text), *([] if path.startswith("/cooccurrence") else PAIRS.finditer(text))]
    return [text[max(0, word.start() - 50) : word.end() + 30] for word in words]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_images_is_named(texts: TestClient, path: str) -> None:
    reply = texts.get(path)
    assert reply.status_code == (404 if path == "/nosuch" else 200)
    assert of_images(path, reply.text) == []


def test_nothing_of_images_is_named_where_the_model_reads_a_text(browser: Browser, tmp_path: Path) -> None:
    rows = [{"text": f"a red dog on the tree {i}"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    precompute(
        PrecomputeOptions(
            data=str(tmp_path / "rows.jsonl"),
            model=str(tiny.make_llama(tmp_path / "llama")),
            layer=1,
            device="cpu",
            sae=str(tiny.make_sae(tmp_path / "sae", bias=0.0)),
            out=tmp_path / "store",
        )
    )
    with Running(Settings(stores=[tmp_path / "store"], device="cpu")) as server:
        first = server.get("/api/v1/features?sort=n_samples&limit=2").json()["items"]
        a, b = (feature["id"] for feature in first)
        for path in (
            "/try", "/try?text=the+red+dog", f"/features/{a}?text=the+red+dog", "/search?q=dog&model=1",
            f"/basket?features={a},{b}&own=%3Athe+red+dog", f"/steer?feature={a}", "/explain", "/explain?text=a+dog",
            "/explain?text=a+dog&prompt=the&ask=1",
        ):  # fmt: skip
            reply = httpx.get(server.url + path, headers={"Accept": "text/html"}, timeout=60)
            assert reply.status_code == 200 and of_images(path, reply.text) == [], (path, of_images(path, reply.text))
        for path in (f"/steer?feature={a}", "/explain", "/explain?text=a+dog&prompt=the&ask=1", "/map", "/quality"):
            with page_of(browser, server.url) as page:  # nor in what scripts write
                page.goto(path, wait_until="networkidle")
                fields = page.locator("main :is(input, textarea):not([type=hidden])")
                values = fields.evaluate_all("all => all.map((one) => one.value)")
                text = " ".join([page.locator("main").inner_text(), *values])
                for sentence in SAYS_THAT_THERE_ARE_NONE:
                    text = text.replace(sentence, "")
                assert not WORDS.search(text), (path, WORDS.search(text))
        nothing = server.get("/api/v1/try").json()["detail"], server.post("/api/v1/explain", json={}).json()["detail"]
        assert not any(WORDS.search(sentence) for sentence in nothing)
        assert [sentence.split()[:3] for sentence in nothing] == [["Give", "a", "text"]] * 2


def test_what_needs_no_image_is_there(texts: TestClient) -> None:
    quality = texts.get("/quality").text
    for name in FLAGS:
        assert (f'data-testid="flag-{name}"' in quality) == (name not in OF_IMAGES), name
    for name in SCORES:
        assert (f'<option value="{name}"' in quality) == (name not in OF_IMAGES), name
    assert texts.get("/quality?flag=blank").status_code == 404
    first = texts.get("/api/v1/samples?limit=1").json()["items"][0]["text"]
    read = re.findall(r'data-testid="explain-text">(.*?)</p>', texts.get("/explain").text)
    assert [html.unescape(text) for text in read] == [first], "what the model reads stands beside the question"
    start = json.loads(html.unescape(re.findall('data-state="([^"]*)"', texts.get("/steer").text)[0]))
    assert start["prompt"] and first.startswith(start["prompt"])
    features = texts.get("/features").text
    for name in ("label_score", "density_text", "n_samples"):
        assert f'data-testid="range-{name}"' in features
    assert "Named best" in texts.get("/").text
    assert 'data-testid="pair-row"' in texts.get("/cooccurrence?min_support=1&min_lift=0").text
    reported = texts.get("/api/v1/flags").json()["items"]
    assert [flag["name"] for flag in reported] == list(FLAGS), "the API has them all, without a value"
    assert {flag["name"]: flag["count"] for flag in reported if flag["name"] in OF_IMAGES and flag["count"]} == {}
