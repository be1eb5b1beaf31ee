"""Live requests over HTTP against a store that the offline pass made with the very same tiny model."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.live.model_worker import Live
from backend.settings import Settings
from backend.stores import State
from precompute.live.engine import encode_pair, load_engine
from precompute.model.batch import TEXT, Pair
from precompute.options.shared import FromStore
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.live_api import API, events, upload, wait_ready
from tests.helpers.odd import ODD_ID


@pytest.fixture(scope="module")
def client(made: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[made / "store"], device="cpu"))
    with TestClient(app) as running:
        wait_ready(running)
        yield running


@pytest.fixture(scope="module")
def store(made: Path) -> Store:
    return Store.open(made / "store")


def original(made: Path, row: int) -> bytes:
    return (made / "data" / f"{row:03d}.png").read_bytes()


def test_a_stored_picture_finds_itself(client: TestClient, made: Path, store: Store) -> None:
    """The live path is the offline path: the same picture has the same activations and is its own nearest."""
    reply = client.post(f"{API}/search", files=upload(original(made, 5)), params={"limit": 100})
    assert reply.status_code == 200, reply.text
    results = reply.json()
    assert results["samples"][0]["sample_id"] == "pair-5"
    assert results["samples"][0]["cosine"] == pytest.approx(1, abs=1e-2)
    assert results["samples"][0]["modality"] == "image"
    stored = dict(zip(*[x.tolist() for x in store.events.maxima(store.samples.row("pair-5"), 1)], strict=True))
    p999 = store.features.table["p999"]
    hits = [*results["features"], *results["dense"]]
    assert len(hits) > 5 and results["n_dense"] >= len(results["dense"])
    for hit in hits:
        assert hit["strength_image"] * p999[hit["id"]] == pytest.approx(stored[hit["id"]], rel=2e-3)
        assert hit["strength_text"] is None and hit["score"] == hit["score_image"]
    order = [hit["score"] for hit in results["features"]]
    assert order == sorted(order, reverse=True)


def test_grids_of_a_live_picture_are_those_of_the_store(client: TestClient, made: Path) -> None:
    results = client.post(f"{API}/search", files=upload(original(made, 3)), data={"text": ""}).json()
    hit = (results["features"] or results["dense"])[0]
    stored = client.get(f"{API}/samples/pair-3/activations", params={"feature": hit["id"]}).json()["grids"][0]
    if hit["grids"]:
        np.testing.assert_allclose(hit["grids"][0]["values"], stored["values"][0], rtol=2e-3)
    assert (results["views"][0]["rows"], results["views"][0]["cols"]) == (4, 4)


def test_words_and_picture_take_the_smaller_product(client: TestClient, made: Path) -> None:
    both = client.post(f"{API}/search", files=upload(original(made, 3)), data={"text": "a red dog"}).json()
    assert "".join(both["tokens"]).strip() == "a red dog"
    for hit in [*both["features"], *both["dense"]]:
        assert hit["score"] == pytest.approx(min(hit["score_text"], hit["score_image"]))
    # Every text of this tiny store switches on the same features, so no text is near any other.
    assert {s["modality"] for s in both["samples"]} <= {"text", "image"}
    words = client.post(f"{API}/search", data={"text": "a red dog"}).json()
    assert "".join(words["tokens"]).strip() == "red dog" and words["groups"] == []
    assert words["views"] == [] and {s["modality"] for s in words["samples"]} <= {"text"}


def test_words_alone_are_read_behind_a_neutral_image(client: TestClient, made: Path, store: Store) -> None:
    """As a pair with an image of the processor's mean colour, of which the first token of several words is left out."""
    engine = load_engine(FromStore(store=made / "store", device="cpu"), store.manifest, full=False)
    mean = [round(255 * value) for value in engine[0].processor.image_processor.image_mean]
    n_hits = 0
    for query, text, n_left_out in (("dog", " dog", 0), ("a red dog", "a red dog", 1)):
        pair = encode_pair(*engine, store.manifest, Pair(text, [Image.new("RGB", (224, 224), tuple(mean))]))
        largest = np.zeros(store.n_features)
        for t in np.flatnonzero(pair.modality_t == TEXT)[n_left_out:]:
            at = slice(pair.offset_t[t], pair.offset_t[t + 1])
            np.maximum.at(largest, pair.feature_e[at], pair.value_e[at].astype(float) * 2.0**-store.scale_log2)
        reply = client.post(f"{API}/search", data={"text": query}, params={"limit": 200}).json()
        hits = [*reply["features"], *reply["dense"]]
        n_hits += len(hits)
        for hit in hits:
            strength = largest[hit["id"]] / store.features.table["p999"][hit["id"]]
            assert hit["strength_text"] == pytest.approx(strength, rel=2e-3)
            assert hit["outside"] == (hit["strength_text"] > 1.5)
    assert n_hits


def test_an_image_is_answered_by_region(client: TestClient, made: Path) -> None:
    reply = client.post(f"{API}/search", files=upload(original(made, 5))).json()
    kinds = [group["kind"] for group in reply["groups"]]
    assert kinds.count("background") == 1 and kinds == sorted(kinds, key=["region", "background", "place"].index)
    patches = [tuple(patch) for group in reply["groups"] for patch in group["patches"]]
    assert len(patches) == len(set(patches)) <= 16  # no patch is in two regions
    for group in reply["groups"]:
        assert 0 < len(group["families"]) <= 3
        for family in group["families"]:
            scores = [one["score"] for one in family["features"]]
            assert scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_scoring_a_stored_pair_gives_its_stored_scores(client: TestClient, made: Path) -> None:
    wanted = client.get(f"{API}/samples/pair-8").json()
    reply = client.post(f"{API}/score", files=upload(original(made, 8)), data={"text": wanted["text"]})
    assert reply.status_code == 200, reply.text
    scores = reply.json()["scores"]
    for name, value in wanted["scores"].items():
        if name == "random":
            assert scores[name] is None
        elif value is None:
            assert scores[name] is None, name
        else:
            assert scores[name] == pytest.approx(value, rel=5e-3, abs=5e-3), name
    assert scores["caption-nll"] < 0 and np.isfinite(scores["image-gain"])
    flags = reply.json()["flag_scores"]
    assert flags["mismatch"] == pytest.approx(wanted["flag_scores"]["mismatch"], abs=5e-3)


def active(client: TestClient) -> int:
    page = client.get(f"{API}/features", params={"sort": "n_samples", "order": "desc", "limit": 1}).json()
    return int(page["items"][0]["id"])


def test_steering_streams_both_texts(client: TestClient) -> None:
    feature = active(client)
    body = {
        "sample_id": "pair-2",
        "prompt": "what is it",
        "features": [{"id": feature, "mode": "add", "strength": 3}],
        "max_tokens": 6,
    }
    reply = client.post(f"{API}/steer", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in reply.headers
    report = events(reply)
    kinds = [name for name, _ in report]
    assert kinds[-1] == "done" and set(kinds) == {"token", "kl", "done"}
    assert {d["channel"] for name, d in report if name == "token"} == {"default", "steered"}
    done = report[-1][1]
    assert done["n_steered"] > 0 and done["delta_ratio"] > 0
    for channel in ("default", "steered"):
        text = "".join(d["text"] for name, d in report if name == "token" and d["channel"] == channel)
        assert done["text"][channel].startswith(text)
    assert client.post(f"{API}/steer", json=body).text.split("event: done")[0] == reply.text.split("event: done")[0]


def test_steering_takes_a_picture_or_none(client: TestClient, made: Path) -> None:
    picture = base64.b64encode(original(made, 2)).decode()
    for extra in ({"image": picture}, {"image": f"data:image/png;base64,{picture}"}, {}):
        report = events(client.post(f"{API}/steer", json={"prompt": "a dog", "max_tokens": 2, **extra}))
        done = report[-1][1]
        assert report[-1][0] == "done" and done["text"]["default"] == done["text"]["steered"]
        # Rows of one batch may differ in their last bits.
        assert done["mean_kl"] == pytest.approx(0, abs=1e-5) and done["delta_ratio"] == 0


@pytest.mark.parametrize(
    "body,status",
    [
        ({"sample_id": "nobody"}, 404),
        ({"features": [{"id": 96}]}, 404),
        ({"sample_id": "pair-1", "image": "AAAA"}, 422),
        ({"image": "AAAA"}, 422),
    ],
)
def test_wrong_steering_is_refused_before_the_stream(client: TestClient, body: Any, status: int) -> None:
    reply = client.post(f"{API}/steer", json={"prompt": "x", **body})
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"sample_id": "pair-1", "mask": [[0, 9, 9]], "scope": ["image"]}, "4 × 4"),
        ({"sample_id": "pair-1", "mask": []}, "mask is empty"),
        ({"mask": [[0, 0, 0]]}, "no image for the mask"),
        ({"scope": ["image"]}, "nothing to steer"),
        ({"sample_id": "pair-1", "prompt": "", "scope": ["prompt"]}, "nothing to steer"),
        ({"prompt": "<image>"}, "<image>"),
        ({"prompt": "a dog " * 200}, "context of 256"),
        ({"prompt": "a dog", "max_tokens": 250}, "would grow by 250"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_the_stream(
    client: TestClient, body: dict[str, Any], words: str
) -> None:
    reply = client.post(f"{API}/steer", json={"prompt": "x", "max_tokens": 2, **body})
    assert reply.status_code == 422 and words in reply.json()["detail"]
    assert reply.headers["content-type"] == "application/problem+json"


def test_bad_uploads_are_told(client: TestClient) -> None:
    reply = client.post(f"{API}/search", files=upload(b"no picture"))
    assert reply.status_code == 422 and "not an image of a known format" in reply.json()["detail"]
    assert client.post(f"{API}/search").status_code == 422
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    bomb = client.post(f"{API}/search", files=upload(buffer.getvalue()))
    assert bomb.status_code == 413 and "million" in bomb.json()["detail"]


def test_any_text_can_be_a_sample_id(client: TestClient) -> None:
    path = f"{API}/samples/{quote(ODD_ID, safe='')}"
    one = client.get(path).json()
    assert one["sample_id"] == ODD_ID
    assert client.get(one["images"][0]["url"]).headers["content-type"] == "image/webp"
    assert client.get(path + "/features", params={"position": 1}).json()["sample_id"] == ODD_ID
    assert client.get(path + "/activations", params={"feature": 1}).json()["sample_id"] == ODD_ID
    assert client.get(f"/samples/{quote(ODD_ID, safe='')}").status_code == 200
    report = events(client.post(f"{API}/steer", json={"sample_id": ODD_ID, "prompt": "a", "max_tokens": 1}))
    assert report[-1][0] == "done"


def live_of(client: TestClient) -> Live:
    state: State = client.app.state.saevx  # type: ignore[attr-defined]
    return state.live


def test_a_full_queue_is_told_and_browsing_goes_on(client: TestClient) -> None:
    live = live_of(client)
    gate = threading.Event()
    live.worker.submit(gate.wait)
    before, live.settings.queue = live.settings.queue, 1
    replies: list[int] = []

    def ask() -> None:
        replies.append(client.post(f"{API}/search", data={"text": "a dog"}).status_code)

    waiting = [threading.Thread(target=ask) for _ in range(2)]
    try:
        for thread in waiting:
            thread.start()
        end = time.monotonic() + 60
        while live.waiting < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        refused = client.post(f"{API}/search", data={"text": "a cat"})
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
        assert client.get("/healthz").json()["live"]["waiting"] == 2
        assert client.get(f"{API}/features").status_code == 200
    finally:
        gate.set()
        live.settings.queue = before
        for thread in waiting:
            thread.join(20)
    assert replies == [200, 200] and live.waiting == 0


def test_a_model_that_cannot_be_loaded_says_so_and_browsing_goes_on(made: Path, tmp_path: Path) -> None:
    other = tiny.make_sae(tmp_path / "sae", architecture="topk")
    for settings in (
        Settings(stores=[made / "store"], model=str(tmp_path / "missing")),
        Settings(stores=[made / "store"], sae=str(other), device="cpu"),
    ):
        with TestClient(create_app(settings)) as client:
            end = time.monotonic() + 60
            while client.get("/healthz").json()["live"]["state"] == "loading":
                assert time.monotonic() < end
                time.sleep(0.05)
            ready = client.get("/readyz")
            assert ready.status_code == 503 and ready.json()["live"]["state"] == "failed"
            assert ready.json()["live"]["reason"].endswith(".")
            refused = client.post(f"{API}/search", data={"text": "a dog"})
            assert refused.status_code == 503 and "retry-after" not in refused.headers
            assert client.get(f"{API}/features").status_code == 200


def test_the_generation_stops_when_the_client_leaves(client: TestClient) -> None:
    """Closing the stream sets the flag that the worker reads between tokens."""
    import asyncio

    live = live_of(client)
    seen: list[bool] = []

    def work(engine: object, say: Any, stop: Any) -> None:
        for _ in range(2000):
            if stop():
                seen.append(True)
                return
            say(1)
            time.sleep(0.005)

    async def leave() -> None:
        place = live.reserve("store")
        stream = place.stream(work)
        async for _ in stream:
            break
        await stream.aclose()
        place.release()

    with ThreadPoolExecutor(1) as reference:  # a browser's test may have left a loop in this thread
        reference.submit(asyncio.run, leave()).result(60)
    live.worker.submit(lambda: None).result(10)
    assert seen == [True]
    assert live.waiting == 0
