"""Words and tokens of every script: searched for, found, shown."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests.helpers.odd import CAPTIONS

API = "/api/v1"
ADDRESSES = [
    "/api/v1/search", "/api/v1/features", "/api/v1/samples", "/search", "/features", "/samples", "/map",
    "/map?of=samples",
]  # fmt: skip
"""All that take words as `q`; the steering page finds its features through the API."""


@pytest.fixture(scope="module")
def client(odd_store: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[odd_store], live=False))
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


def samples_with(client: TestClient, q: str) -> set[str]:
    """Ids of the samples whose caption has the words, told alike by both endpoints."""
    listed = client.get(f"{API}/samples", params={"q": q, "limit": 200}).json()
    searched = client.get(f"{API}/search", params={"q": q, "limit": 200}).json()
    ids = {one["sample_id"] for one in listed["items"]}
    assert ids == {one["sample_id"] for one in searched["samples"]} and len(ids) == listed["total"]
    return ids & set(CAPTIONS)


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("猫", {"zh", "zh3"}), ("垫子", {"zh"}), ("狗", {"zh2", "zh3"}), ("红色的猫", {"zh3"}), ("一只", {"zh"}),
        ("赤い", {"ja"}), ("ボール", {"ja", "wide"}), ("แมว", {"th"}), ("พรม", {"th"}), ("ແມວ", {"lo"}),
        ("ឆ្មា", {"km"}), ("ဖျာ", {"my"}), ("고양이", {"ko"}), ("बिल्ली", {"hi"}),
        ("السجادة", {"ar"}), ("猫 狗", {"zh3"}),
        ("C++", {"cpp", "wide"}), ("c#", {"c#"}), (".net", {"c#"}), ("net", {"c#", "plain"}), ("🙂", {"emoji"}),
        ("🤖", {"robot"}), ("👩\u200d💻", {"emoji"}), ("#4167", {"number"}), ("50%", {"number"}),
        ("café", {"accent", "accent2"}), ("CAFE", {"accent", "accent2"}), ('"no"', {"quoted"}),
        ("t-shirt", {"shirt"}), ("t shirt", {"shirt"}),
        ("<script>", {"html"}), ("ボ", {"ja", "wide"}), ("a\0dog", {"emoji", "space", "nul"}), ("cups", {"space"}),
        ("cup.", {"space"}), ("红 色", {"zh", "zh3"}), ("鸟", set()), ("\0", set()), ("\u200b", set()), ("C--", set()),
    ],
)  # fmt: skip
def test_words_find_the_captions_that_have_them(client: TestClient, word: str, ids: set[str]) -> None:
    assert samples_with(client, word) == ids


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "q", ["dog\0cat", "\0", '"', "'", '""""', "AND OR NOT NEAR(", "*", "^a", "a:b", "-", "(", "\ud7ff\ufffe", "x" * 500]
)
def test_no_words_are_an_error_of_the_server(client: TestClient, address: str, q: str) -> None:
    accept = {} if address.startswith("/api") else {"accept": "text/html"}
    assert client.get(f"{address}?q={quote(q)}", headers=accept).status_code in (200, 422)
    assert client.get(f"{address}?q=%ED%A0%80%FF", headers=accept).status_code in (200, 422)


@pytest.mark.parametrize("sample_id", sorted(CAPTIONS))
def test_tokens_of_a_caption_can_be_told_apart(client: TestClient, sample_id: str) -> None:
    lit = client.get(f"{API}/sample/activations", params={"id": sample_id, "feature": 1}).json()
    own = [one["text"] for one in lit["tokens"] if one["modality"] == "text"]
    assert all(own) and "\ufffd" not in "".join(own)
    assert re.sub("⟨[0-9A-F]{2}⟩", "", "".join(own)) == CAPTIONS[sample_id], "the API has the text as it is"
    page = client.get("/sample", params={"id": sample_id}, headers={"accept": "text/html"}).text
    drawn = re.findall(r'data-testid="token"[^>]*>([^<]*)</a>', page)
    assert len(drawn) == len(own) and all(one.strip() for one in drawn)


def test_a_token_of_a_character_is_named_by_it(client: TestClient) -> None:
    lit = client.get(f"{API}/samples/zh/activations?feature=1").json()["tokens"]
    at = next(i for i, one in enumerate(lit) if one["text"] == "猫")
    assert [one["text"] for one in lit[at : at + 3]] == ["猫", "⟨8C⟩", "⟨AB⟩"]
    for position in range(at, at + 3):
        here = client.get(f"{API}/samples/zh/features", params={"position": lit[position]["position"]}).json()
        assert here["token"] == "猫"


def test_examples_and_labels_have_whole_characters(client: TestClient) -> None:
    features: list[Any] = client.get(f"{API}/features?limit=200").json()["items"]
    for one in features:
        assert "\ufffd" not in (one["label"] or "") and "⟨" not in (one["label"] or "")
        for example in client.get(f"{API}/features/{one['id']}/examples?modality=text&limit=5").json()["items"]:
            assert "⟨" not in example["token"]
            window = [t["text"] for t in example["tokens"]]
            assert "\ufffd" not in "".join(window)
            known = re.sub("⟨[0-9A-F]{2}⟩", "", "".join(window))
            assert known.strip() in example["text"]
        promoted = client.get(f"{API}/features/{one['id']}").json()["logits"]["promoted"]
        texts = [token["token"] for token in promoted]
        assert len(set(texts)) == len(texts) and "\ufffd" not in "".join(texts)


def test_what_repeats_without_spaces_is_flagged_by_its_words(client: TestClient) -> None:
    one = client.get(f"{API}/samples/repeats").json()
    assert one["flag_scores"]["repeated-text"] > 0.8
    [hit] = [flag for flag in one["flags"] if flag["name"] == "repeated-text"]
    assert hit["reason"]["tokens"] == ["白花开了"]
    assert client.get(f"{API}/samples/zh").json()["flag_scores"]["repeated-text"] == 0


def test_captions_are_text_in_their_own_direction(client: TestClient) -> None:
    page = client.get("/samples?q=script", headers={"accept": "text/html"}).text
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert 'class="caption" dir="auto"' in page
    page = client.get("/samples/ar", headers={"accept": "text/html"}).text
    assert re.search(r'class="caption-line" dir="auto"', page)
