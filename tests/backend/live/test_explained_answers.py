"""Why an answer, over HTTP: what the API says is what the live model does; its page, and its refusals."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import HTTPException
from fastapi.testclient import TestClient

from backend.live.explain import Question, explanation_of, first_telling
from backend.pages.explain.drawing import bar, parse_runs, runs, signed
from backend.schemas.explain import ExplainRequest, Sides
from backend.settings import Settings
from precompute.live.originals import Originals
from precompute.live.trial import Prompt, Removal, random_removals, run_trial
from precompute.model.batch import Pair
from precompute.model.hooks import remove_at_end
from precompute.sae.encode import Scale
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.live_api import upload
from tests.helpers.odd_images import encoded
from tests.helpers.running import Running

EXPLAIN, TEST = "/api/v1/explain", "/api/v1/explain/test"
QUESTION = {"sample_id": "pair-3", "prompt": "the big dog", "max_tokens": 4}


@pytest.fixture(scope="module")
def running(made: Path) -> Iterator[Running]:
    with Running(Settings(stores=[made / "store"], device="cpu")) as server:
        yield server


@pytest.fixture(scope="module")
def prompt(running: Running, made: Path) -> Prompt:
    store, engine = Store.open(made / "store"), running.state.live.engines["store"]
    image = Originals(store).pair(store.samples.row("pair-3")).images
    return Prompt(engine.mllm, engine.sae, Scale.from_manifest(store.manifest), Pair("the big dog", list(image)))


def explained(running: Running, **changes: Any) -> dict[str, Any]:
    reply = running.post(EXPLAIN, json={**QUESTION, **changes})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def page(running: Running, path: str, status: int = 200) -> str:
    reply = httpx.get(running.url + path, headers={"Accept": "text/html"}, timeout=60)
    assert reply.status_code == status, reply.text
    return reply.text


def test_the_explanation_is_what_the_model_does(running: Running, prompt: Prompt) -> None:
    ids = prompt.answer(4)
    reply = explained(running, token=2, limit=200)
    assert reply["token"] == 2 and reply["answer"] == prompt.mllm.text_of(ids)
    assert [one["text"] for one in reply["tokens"]] == [prompt.mllm.token_text(one) for one in ids]
    np.testing.assert_allclose([one["logprob"] for one in reply["tokens"]], prompt.logprobs(ids))
    one = prompt.attribution(ids[:3])
    feature_n, part_n3 = one.by_feature()
    assert reply["log_odds"] == pytest.approx(one.log_odds)
    listed = {x["id"]: x for x in (*reply["raising"], *reply["lowering"])}
    assert reply["n_raising"] + reply["n_lowering"] == len(listed) == len(feature_n)
    for k, part_3 in zip(feature_n.tolist(), part_n3, strict=True):
        assert [listed[k]["sides"][side] for side in ("text", "image", "answer")] == pytest.approx(part_3.tolist())
        assert sum(one[-1] for one in listed[k]["patches"]) == pytest.approx(part_3[1])
        assert sum(one[-1] for one in listed[k]["tokens"]) == pytest.approx(part_3[0] + part_3[2])
    assert [x["part"] for x in reply["raising"]] == sorted((x["part"] for x in reply["raising"]), reverse=True)
    parts = reply["parts"]
    sums = [sum(parts[name].values()) for name in ("features", "error", "bias")]
    assert sum(sums) + parts["special"] == pytest.approx(parts["total"], abs=1e-4)
    assert [t["side"] for t in reply["read"]] == ["text"] * (len(reply["read"]) - 2) + ["answer"] * 2
    assert "".join(t["text"] for t in reply["read"][:-2]).strip() == "the big dog"


def test_a_patch_stands_where_its_token_does(running: Running, prompt: Prompt) -> None:
    """Its part is that of the image token of this place, counted row by row."""
    reply, one = explained(running, token=0, limit=200), prompt.attribution(prompt.answer(4)[:1])
    first = int(np.flatnonzero(one.image_s)[0])
    for x in reply["raising"][:5]:
        for _, row, col, part in x["patches"]:
            at = (one.feature_e == x["id"]) & (one.position_e == first + row * 4 + col)
            assert one.part_e[at].sum() == pytest.approx(part)


def test_it_is_computed_once(running: Running) -> None:
    first = explained(running, token=1)
    with running.held_up():  # the model answers nobody now
        assert explained(running, token=1) == first


def test_the_test_is_what_the_model_does(running: Running, prompt: Prompt, made: Path) -> None:
    feature = explained(running, token=0)["raising"][0]["id"]
    body = {**QUESTION, "ablate": [feature], "patches": [[0, 1, 2], [0, 0, 0]], "fill": "zero", "draws": 2, "seed": 5}
    reply = running.post(TEST, json=body).json()
    ids, store = prompt.answer(4), Store.open(made / "store")
    removal = Removal((feature,), (0, 6), "zero")
    firing = np.unique(prompt.attribution(ids).feature_e).tolist()
    draws = random_removals(removal, firing, store.features.family, 16, n_draws=2, seed=5)
    trial = run_trial(prompt, ids, removal, draws, 4)
    assert reply["answer"] == prompt.mllm.text_of(trial.removed.answer)
    assert [[f["id"] for f in one["features"]] for one in reply["random"]] == [list(one.features) for one in draws]
    assert trial.no_image is not None and reply["no_image_answer"] == prompt.mllm.text_of(trial.no_image.answer)
    words = reply["words"]
    assert sum(one["logprob"] for one in words) == pytest.approx(trial.before_n.sum())
    assert sum(one["change"] for one in words) == pytest.approx((trial.removed.logprob_n - trial.before_n).sum())
    no_image = sum(one["no_image_change"] for one in words)
    assert no_image == pytest.approx((trial.no_image.logprob_n - trial.before_n).sum())
    for one in words:
        change = one["change"]
        moderate = "kept" if abs(change) < reply["changed_from"] else "changed"
        assert one["verdict"] == ("removed" if change <= reply["removed_below"] else moderate)
        assert len(one["random_changes"]) == 2
    assert (reply["removed_below"], reply["changed_from"]) == pytest.approx((-np.log(10), np.log(2)))


def test_a_steered_answer_is_explained(running: Running) -> None:
    plain, steered = explained(running), explained(running, features=[{"id": 3, "mode": "add", "strength": 4}])
    assert steered["log_odds"] != plain["log_odds"]


def test_text_alone_and_an_upload(running: Running) -> None:
    alone = running.post(EXPLAIN, json={"text": "two cats", "prompt": "a tree", "max_tokens": 2}).json()
    assert alone["views"] == [] and all(not one["patches"] for one in alone["raising"])
    assert "".join(t["text"] for t in alone["read"]).endswith("cats\na tree")
    test = running.post(TEST, json={"text": "two cats", "max_tokens": 2, "ablate": [alone["raising"][0]["id"]]}).json()
    assert test["no_image_answer"] is None and all(one["no_image_change"] is None for one in test["words"])
    hash = running.post("/api/v1/images", files=upload(encoded(tiny.picture(3), "PNG"))).json()["hash"]
    own = explained(running, sample_id=None, image_hash=hash)
    assert len(own["views"]) == 1 and own == explained(running)  # it is the very image of pair-3
    assert httpx.delete(f"{running.url}/api/v1/images/{hash}").status_code == 200
    assert running.post(EXPLAIN, json={**QUESTION, "sample_id": None, "image_hash": hash}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        (EXPLAIN, {"sample_id": None, "prompt": ""}, 422, "nothing to read"),
        (EXPLAIN, {"image_hash": "0" * 32}, 422, "Give one of"),
        (EXPLAIN, {"sample_id": "nobody"}, 404, "nobody"),
        (EXPLAIN, {"token": 60}, 422, "choose one from 0 to"),
        (EXPLAIN, {"features": [{"id": 10_000}]}, 404, "There is no feature 10000"),
        (EXPLAIN, {"max_tokens": 65}, 422, "max_tokens"),
        (TEST, {}, 422, "Nothing is taken away"),
        (TEST, {"ablate": [10_000]}, 404, "There is no feature 10000"),
        (TEST, {"patches": [[0, 9, 0]]}, 422, "no patch with view 0, row 9, column 0"),
        (TEST, {"sample_id": None, "patches": [[0, 0, 0]]}, 422, "there is no image"),
    ],
)
def test_what_cannot_be_done_is_said(
    running: Running, path: str, body: dict[str, Any], status: int, sentence: str
) -> None:
    reply = running.post(path, json={**QUESTION, **body})
    assert reply.status_code == status and sentence in reply.text
    running.free()


def test_the_page_has_all_of_it_without_javascript(running: Running) -> None:
    address = "/explain?sample=pair-3&prompt=the+big+dog&max_tokens=4&ask=1&token=1"
    reply = explained(running, token=1)
    text = page(running, address)
    assert text.count('data-testid="answer-token"') == len(reply["tokens"])
    carriers = [int(k) for k in re.findall(r'class="carrier" data-feature="(\d+)"', text)]
    assert carriers == [one["id"] for one in (*reply["raising"], *reply["lowering"])]
    for side in ("raising", "lowering"):  # how many there are, and how many of them are listed
        n, n_listed = reply[f"n_{side}"], len(reply[side])
        assert f"{f'the {n_listed} strongest of ' * (n > n_listed)}{n:,} feature" in text
    assert "data-auto" not in text and text.count('data-testid="sum"') == 4 and 'class="image"' in text
    first = carriers[0]
    tested = page(running, f"{address}&ablate={first}&ablate={carriers[1]}&patches=0:1:0-2&fill=zero&f={first}")
    assert tested.count('data-testid="fate"') == max(one["word"] for one in reply["tokens"]) + 1
    assert "Without 2 features and 3 patches" in tested and 'class="over"' in tested
    assert tested.count(" checked") == 3  # two features and the colour
    for path in ("/explain?sample=pair-3", "/explain?text=two+cats", "/explain?sample=none&prompt=two+cats"):
        assert "data-auto" in page(running, path) and 'data-testid="answer"' not in page(running, path)
    for path in (
        "/explain",
        "/explain?max_tokens=3",
        "/explain?sample=none",
        "/explain?store=store",
    ):  # nobody asked yet
        text = page(running, path)
        assert "data-auto" not in text and 'data-testid="answer"' not in text
        assert "Press Ask. Then choose a word" in text
    assert "choose one from 0 to" in page(running, f"{address}0", 422)
    assert "patches: &#39;x&#39; is not view:row:first-last" in page(running, f"{address}&patches=x", 422)
    assert "choose the image again" in page(running, "/explain?image=" + "0" * 32 + "&ask=1", 404)
    steered = page(running, f"{address}&feature=3:add:4&feature=99999:add:1")
    assert 'data-testid="explain-steered"' in steered and "There is no feature 99999" in steered


def test_without_a_model_the_page_says_so(client: TestClient) -> None:
    assert client.post(EXPLAIN, json={"prompt": "x"}).status_code == 503
    text = client.get("/explain", headers={"Accept": "text/html"}).text
    assert 'data-testid="model-unavailable"' in text and "data-auto" not in text


def test_patches_in_the_address() -> None:
    for text in ("", "0:2:3", "0:2:3-5", "0:0:1,0:2:3-5,1:0:0"):
        assert runs(parse_runs(text)) == text
    assert runs(parse_runs("0:0:2, 0:0:1,0:0:1")) == "0:0:1-2"
    for wrong in ("1", "0:1", "0:1:2-", "a:1:2", "0:0:0-99999"):
        with pytest.raises(HTTPException, match="view:row:first-last"):
            parse_runs(wrong)


def test_signed_bars() -> None:
    drawn = bar(Sides(image=1.0, text=-0.5, answer=0.5), 2.0)
    assert [(p.cls, p.x, p.width) for p in drawn.pieces] == [("image", 0, 50), ("text", -25, 25), ("answer", 50, 25)]
    assert drawn.figure == "+1.00" and drawn.says == "image +1.00, prompt −0.50, answer before +0.50"
    assert [signed(x) for x in (-0.126, 0.001, -0.004)] == ["−0.13", "0", "0"]


def test_the_first_telling_word() -> None:
    assert first_telling([" a", " ", " pea", "ch", " tree"], [0, 1, 2, 2, 3]) == 2
    assert first_telling([" a", " of"], [0, 1]) == 0


class LeavesAt(threading.Event):
    """Set when it is asked for the n-th time: the client leaves in the middle."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.n_asked = n, 0

    def is_set(self) -> bool:
        self.n_asked += 1
        return self.n_asked >= self.n


@pytest.mark.parametrize("n", [1, 3])
def test_a_question_that_nobody_waits_for_ends_at_the_next_token(running: Running, prompt: Prompt, n: int) -> None:
    store, left = running.state.default, LeavesAt(n)
    wanted = ExplainRequest(text="a question of its own", max_tokens=32)
    n_puts = store.recomputed.explanations.n_puts
    with pytest.raises(HTTPException, match="was cancelled before the model had answered it: ask again") as error:
        explanation_of(running.state.live.engines["store"], store, Question(wanted, Pair("a question", []), left))
    assert error.value.status_code == 409 and left.n_asked == n
    assert store.recomputed.explanations.n_puts == n_puts, "half an answer is not held"


def test_a_client_that_leaves_cancels_its_question(running: Running) -> None:
    """The next one is answered, and the question of the one who left is held nowhere."""
    store = running.state.default
    body = {"text": "another question of its own", "max_tokens": 64}
    n_puts = store.recomputed.explanations.n_puts
    with running.held_up():
        with pytest.raises(httpx.TimeoutException):
            httpx.post(running.url + EXPLAIN, json=body, timeout=0.5)
        running.until(lambda: running.state.live.waiting == 0)
    running.free()
    assert store.recomputed.explanations.n_puts == n_puts
    assert running.post(EXPLAIN, json={**QUESTION, "max_tokens": 3}).status_code == 200


def test_a_model_that_fails_is_the_servers_fault(running: Running) -> None:
    """And no wrong request. Where no answer is written, the sentence says what to do."""
    mllm = running.state.live.engines["store"].mllm
    replies = []
    with remove_at_end(mllm.decoder_layer().register_forward_pre_hook(lambda *_: torch.ones(2) + torch.ones(3))):
        question = {**QUESTION, "prompt": "nobody has asked this"}  # so no answer is held
        replies.append(running.post(EXPLAIN, json=question))
        replies.append(running.post("/api/v1/search", data={"text": "two red cats"}))
    assert [reply.status_code for reply in replies] == [500, 500]
    assert replies[1].json()["detail"].startswith("The model cannot be run ("), replies[1].text
    explained(running)
    running.free()
