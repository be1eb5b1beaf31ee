"""The pages of a store that has no image at all: they name nothing that only images can have."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store.schema import FLAGS, OF_IMAGES, SCORES
from tests.helpers.shared import made_once
from tests.helpers.synthetic import word_feature, write_store

RED = word_feature("red")
PATHS = [
    "/", "/features", "/features?sort=id&cols=density,agreement,omega", f"/features/{RED}", f"/features/{RED}/card",
    f"/features/{RED}?modality=text&band=counter", "/map", f"/map?feature={RED}&q=red", "/map?of=samples&row=3",
    "/samples", f"/samples?feature={RED}", "/samples/s00003", f"/samples/s00003?f={RED}", "/search", "/search?q=red",
    "/try", "/quality", "/quality?flag=repeated-text&by=l0", "/sae", "/cooccurrence", f"/cooccurrence?feature={RED}",
    "/compare", f"/compare?a={RED}&b=3", f"/steer?feature={RED}:add:1", "/explain", "/lists", f"/basket?features={RED}",
]  # fmt: skip
NAMES = [name for name in OF_IMAGES if "-" in name] + [title for name, (title, _) in FLAGS.items() if name in OF_IMAGES]
"""Of scores and flags; the others, such as `dark`, are words of the language."""
OF_BOTH = ["(?<!<)images?(?!>)", "patch(es)?", "pixels?", "captions?", "cross-modal", "agreements?", "pair lift"]
WORDS = re.compile(rf"\b({'|'.join([*OF_BOTH, *map(re.escape, NAMES)])})\b|ω|image–text pairs?", re.I)
"""`<image>` is a token of the made-up vocabulary."""
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
    """What a reader sees, or hears of titles and labels, in the page's main part."""
    main = page.partition('<main id="main"')[2].partition("</main>")[0]
    main = re.sub(r"<(template|script|svg)\b.*?</\1>", lambda part: " ".join(titles(part[0])), main, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: " ".join(["", *titles(tag[0]), ""]), main)
    return re.sub(r"\s+", " ", html.unescape(text))


def titles(part: str) -> list[str]:
    return re.findall(r'\b(?:title|aria-label|placeholder|alt)="([^"]*)"', part) if "<template" not in part else []


@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_images_is_named(texts: TestClient, path: str) -> None:
    reply = texts.get(path)
    assert reply.status_code == 200
    text = words_of(reply.text)
    for sentence in SAYS_THAT_THERE_ARE_NONE:
        text = text.replace(sentence, "")
    assert [text[max(0, word.start() - 50) : word.end() + 30] for word in WORDS.finditer(text)] == []


def test_what_needs_no_image_is_there(texts: TestClient) -> None:
    quality = texts.get("/quality").text
    for name in FLAGS:
        assert (f'data-testid="flag-{name}"' in quality) == (name not in OF_IMAGES), name
    for name in SCORES:
        assert (f'<option value="{name}"' in quality) == (name not in OF_IMAGES), name
    assert texts.get("/quality?flag=blank").status_code == 404
    features = texts.get("/features").text
    for name in ("label_score", "density_text", "n_samples"):
        assert f'data-testid="range-{name}"' in features
    assert "Named best" in texts.get("/").text
    assert 'data-testid="pair-row"' in texts.get("/cooccurrence?min_support=1&min_lift=0").text
    reported = texts.get("/api/v1/flags").json()["items"]
    assert [flag["name"] for flag in reported] == list(FLAGS), "the API has them all, without a value"
    assert {flag["name"]: flag["count"] for flag in reported if flag["name"] in OF_IMAGES and flag["count"]} == {}
