"""`--labeller URL` against a real small HTTP server: what it is shown, and what becomes of its replies."""

import base64
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.settings import Settings
from precompute.data.halves import halves
from precompute.errors import SaevxError
from precompute.pipeline import precompute
from precompute.steps import label, labeller
from precompute.steps.label_words import read_words
from precompute.steps.labeller import MAX_FAILURES_IN_A_ROW, MAX_LABEL, WORKERS, clean
from precompute.steps.names.name_test import make_name_test
from precompute.store.making.unfinished import Collected, load_json, load_step
from precompute.store.schema import IMAGE, VERDICTS
from tests.helpers.synthetic import CONCEPTS, finish, word_feature
from tests.helpers.synthetic_scenes import GRID
from tests.helpers.tinies import Maker
from tests.helpers.unfinished import Part

Reply = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server that notes what it is sent."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/v1/models" else 404, b'{"data": [{"id": "tiny-namer"}, {"id": "other"}]}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.add(self.headers["Authorization"])
        self.answer(*(self.server.reply(body) if self.path == "/v1/chat/completions" else (404, b"")))

    def answer(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    server = Server(reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def shown_text(body: dict[str, Any]) -> str:
    return str(body["messages"][1]["content"][0]["text"])


def shown_urls(body: dict[str, Any]) -> list[str]:
    return [part["image_url"]["url"] for part in body["messages"][1]["content"][1:]]


@pytest.fixture
def copy(part: Part, tmp_path: Path) -> Path:
    """The part's folder, to label anew."""
    shutil.copytree(part.path, tmp_path / "store.part")
    return tmp_path / "store.part"


def run(copy: Path, part: Part, url: str, **more: Any) -> tuple[list[str | None], dict[str, Any]]:
    report = label.run(copy, part.manifest, {"labeller": url, **more})["labels"]
    return load_json(copy, "label"), report


def test_it_is_shown_tokens_captions_and_pictures(part: Part, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(labeller.KEY, "secret")
    with serving(lambda body: says("a name")) as server:
        labels, report = run(copy, part, server.url)
    live = load_step(part.path, "weigh")["verdict"] != VERDICTS.index("dead")
    assert labels == ["a name" if alive else None for alive in live]
    assert report == {"method": "labeller", "labeller": "tiny-namer", "n_failed": 0, "n": int(live.sum())}
    assert len(server.requests) == live.sum() and server.keys == {"Bearer secret"}
    assert "secret" not in json.dumps([report, server.requests])
    data = part.data
    places = labeller.tops(data, word_feature("dog"), IMAGE, labeller.N_IMAGES)
    captions = [f"- {data.samples[row]['text']}" for row, _ in places]
    (dog,) = (
        body
        for body in server.requests
        if shown_text(body).partition("captions:\n")[2].split("\n")[: len(captions)] == captions
        and "[[dog]]" in shown_text(body)
    )
    assert "It makes the model say: dog" in shown_text(dog)
    assert dog["model"] == "tiny-namer" and dog["max_tokens"] <= 100
    assert len(dict(places)) == len(places) == len(shown_urls(dog)) > 1
    n_marked = 0
    for (row, position), url in zip(places, shown_urls(dog), strict=True):
        head, _, raw = url.partition(",")
        assert head == "data:image/jpeg;base64"
        thumb = data.samples[row]["images"][0]
        with Image.open(io.BytesIO(base64.b64decode(raw))) as sent, Image.open(part.path / thumb["thumb"]) as own:
            assert sent.size == own.size == (thumb["width"], thumb["height"])
            new, old = (np.asarray(one.convert("RGB")).astype(int) for one in (sent, own))
        y, x = np.nonzero(np.abs(new - old).max(-1) > 80)
        r, c = divmod(position - 1, GRID)  # patches follow the begin-of-sequence token
        side = new.shape[0] / GRID
        assert ((y >= r * side - 1) & (y <= (r + 1) * side + 1)).all(), "only the patch is marked"
        assert ((x >= c * side - 1) & (x <= (c + 1) * side + 1)).all()
        n_marked += len(y)
    assert n_marked > 20


def test_its_replies_are_untrusted(part: Part, copy: Path, tmp_path: Path) -> None:
    """Cleaned on the way in, and escaped on the page."""
    message = '<think>hm</think><b onclick="x()">dog</b> & &lt;script&gt; "co"\x07\u202e' + "y" * 400 + "\nsecond line"
    with serving(lambda body: says(message)) as server:
        labels, _ = run(copy, part, server.url)
    (name,) = set(labels) - {None}
    assert name == 'dog & &lt;script&gt; "co"'
    manifest = finish(copy, {**part.manifest, "labels": {"method": "labeller", "labeller": "m", "n": 1, "n_failed": 0}})
    assert manifest["labels"]["labeller"] == "m"
    store = copy.rename(tmp_path / "store")
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        page = client.get(f"/features/{word_feature('dog')}").text
        assert "dog &amp; &amp;lt;script" in page and "dog & " not in page and "<b onclick" not in page
        assert "written by m" in client.get("/").text


def test_a_failure_leaves_the_keyword_and_is_counted(part: Part, copy: Path) -> None:
    keywords = load_json(part.path, "label")
    bad = [
        (500, b"busy"), (200, b"<html>"), (200, b'{"choices": []}'), (200, b'{"choices": [{"message": null}]}'),
        says("  \u200b "), (200, b'"' + b"x" * (labeller.MAX_REPLY + 9) + b'"'),
        (200, json.dumps({"choices": [{"message": {"content": 7}}]}).encode()),
    ]  # fmt: skip
    turn = iter(range(10_000))

    def reply(body: dict[str, Any]) -> tuple[int, bytes]:
        n = next(turn)
        return says("fine") if n % 2 else bad[n // 2 % len(bad)]

    with serving(reply) as server:
        labels, report = run(copy, part, server.url, labeller_model="mine")
        n_live = len(server.requests)
    assert report == {"method": "labeller", "labeller": "mine", "n_failed": (n_live + 1) // 2, "n": n_live}
    assert sum(now == "fine" for now in labels) == n_live // 2
    assert all(now == before for now, before in zip(labels, keywords, strict=True) if now != "fine")


def test_a_server_that_is_gone_is_not_asked_for_ever(part: Part, copy: Path) -> None:
    with serving(lambda body: (503, b"")) as server:
        labels, report = run(copy, part, server.url)
        assert MAX_FAILURES_IN_A_ROW <= len(server.requests) < MAX_FAILURES_IN_A_ROW + WORKERS < report["n"]
        gone = server.url
    assert labels == load_json(part.path, "label") and report["n_failed"] == report["n"]
    assert run(copy, part, gone)[1] == {**report, "labeller": ""}


def test_a_written_name_is_tested_like_a_keyword(part: Part, copy: Path) -> None:
    """By its words that not most captions have: "dog – ground" and dog are the same test, other words fail it."""
    data = Collected(part.path, part.manifest)
    words = read_words([str(record["text"]) for record in data.samples])
    keyword = load_step(part.path, "label")["score"]
    scoring = halves([str(record["sample_id"]) for record in data.samples]).scoring
    names: list[label.Name | None] = [None] * data.n_features
    for word in CONCEPTS:
        names[word_feature(word)] = label.written_name(words, f"{word.upper()} – ground, perhaps zebra.")
        names[word_feature(word) + 1] = label.written_name(words, "ground, zebras")
        names[word_feature(word) + 2] = label.written_name(words, CONCEPTS[CONCEPTS.index(word) - 1])
    trial = make_name_test(data, words.in_caption, load_step(part.path, "weigh")["p999"], scoring)
    got = trial.accuracy(np.arange(len(names)), [name.words if name else [] for name in names])
    share = np.asarray(words.in_caption.sum(0)).ravel() / data.n_samples
    assert share[words.id_of["ground"]] > label.MAX_CAPTION_SHARE
    labels, same = load_json(part.path, "label"), []
    for word in CONCEPTS:
        k = word_feature(word)
        assert np.isnan(got[k + 1]), "most captions have a ground, and none has zebras"
        if labels[k] == word and not np.isnan(keyword[k]):
            same.append(got[k])
            assert got[k] == keyword[k]
        assert np.isnan(got[k + 2]) or got[k + 2] < 0.7
    assert len(same) > 5 and np.mean(same) > 0.7


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('  "A red dog."  ', "A red dog"),
        ("**Dogs**\nbecause they bark", "Dogs"),
        ("<img src=x onerror=alert(1)>cats", "cats"),
        ("a\x00b\x1b[31m\u2028c", "a b [31m"),
        ("x \ud800 y", "x y"),
        ("5 < 6", "5 < 6"),
        ("<script>", ""),
        ("", ""),
        ("word " * 100, " ".join(["word"] * (MAX_LABEL // 5))),
        ("z" * 500, "z" * MAX_LABEL),
    ],
)
def test_clean(text: str, name: str) -> None:
    assert clean(text) == name


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://", "ftp://host/"])
def test_only_http_and_said_before_the_pass(options: Maker, url: str) -> None:
    made = options(labeller=url)
    with pytest.raises(SaevxError, match="--labeller takes an address"):
        precompute(made)
    assert not made.part.exists()
