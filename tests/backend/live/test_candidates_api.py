"""Several candidates in one request, a family as one edit, and alternatives of each token, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.live.steering import family_of, interventions_of
from backend.schemas.steering import SteerFeature
from backend.settings import Settings
from precompute.live.intervention import Steer
from precompute.model.batch import Pair
from tests.helpers.live_api import events
from tests.helpers.running import Running

STEER = "/api/v1/steer"
PROMPT = {"prompt": "a red dog", "sample_id": "pair-1", "max_tokens": 4, "target": "dog"}


@pytest.fixture(scope="module")
def running(made: Path) -> Iterator[Running]:
    with Running(Settings(stores=[made / "store"], device="cpu")) as server:
        yield server


def alone(running: Running, **fields: Any) -> dict[str, Any]:
    """A streamed run, as a candidate's reply has it."""
    run: dict[str, Any] = {"tokens": {"default": [], "steered": []}, "kl": []}
    for name, data in events(running.post(STEER, json={**PROMPT, **fields})):
        if name == "token":
            run["tokens"][data["channel"]].append(data)
        elif name == "kl":
            run["kl"].append(data)
        elif name == "done":
            run |= data
        elif name == "target":
            run["target"] = data
    return run


def close(a: Any, b: Any) -> None:
    """Equal, numbers up to floating-point noise."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key != "seconds":
                close(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            close(one, other)
    else:
        assert a == (pytest.approx(b, rel=1e-3, abs=1e-4) if isinstance(a, float) else b)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_candidate_gets_the_reply_of_its_own_run(running: Running, temperature: float) -> None:
    wanted: list[dict[str, Any]] = [
        {"features": [{"id": 3, "strength": 2}]},
        {"features": [{"id": 3, "strength": 2}], "control": 0},
        {"features": [{"id": 3, "strength": 2}], "seed": 5},
        {"features": []},
    ]
    reply = running.post(STEER, json={**PROMPT, "temperature": temperature, "candidates": wanted})
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    runs = reply.json()["runs"]
    for run, one in zip(runs, wanted, strict=True):
        close(run, alone(running, temperature=temperature, **one))
    assert runs[1]["control"] not in (None, 3)
    again = running.post(STEER, json={**PROMPT, "temperature": temperature, "candidates": wanted})
    assert again.json() == reply.json(), "from the cache, with the seconds of the first"


def test_too_much_at_once_is_refused_with_one_sentence(running: Running) -> None:
    one = {"features": [{"id": 3}]}
    for more, words in (
        ({"candidates": [one] * 9}, "At most 8 candidates"),
        ({"candidates": [one], "max_tokens": 65}, "at most 64 tokens"),
        ({"candidates": [one], **one}, "not both"),
        ({"candidates": [one], "alternatives": 3}, "for a single run"),
        ({"candidates": [{"features": [{"id": 9999}]}]}, "no feature 9999"),
        ({"candidates": [one, {"features": [{"id": 3}, {"id": 3}]}]}, "twice"),
        ({"candidates": []}, "at least 1"),
    ):
        reply = running.post(STEER, json={**PROMPT, **more})
        assert reply.status_code in (404, 422) and words in reply.json()["detail"], reply.text
    running.free()


def test_a_family_is_steered_together_and_changes_h_as_much_as_its_feature(running: Running) -> None:
    (store,) = running.state.stores.values()
    engine = running.state.live.engines[store.name]
    family, p999 = store.reader.features.family, store.reader.features.table["p999"]
    counts = np.bincount(family[p999 > 0], minlength=len(family))
    feature = int(np.flatnonzero((counts[family] > 1) & (p999 > 0))[0]) if counts.max() > 1 else 3
    members, _ = family_of(store, engine.sae, feature)
    assert members[0] == feature and set(members) <= set(np.flatnonzero(family == family[feature]).tolist())
    sizes = []
    for whole in (False, True):
        edits = interventions_of(engine, store, [SteerFeature(id=feature, strength=0.01, family=whole)])
        change = Steer(engine.sae, edits)
        change(engine.mllm.hidden(engine.mllm.prepare([Pair("a red dog", [])]))[0])
        sizes.append(change.ratios[0].numpy())
    assert np.allclose(sizes[0], sizes[1], rtol=1e-3) and sizes[0].max() > 0
    run = alone(running, features=[{"id": feature, "strength": 1, "family": True}])
    assert run["n_steered"] > 0
    both = [{"id": feature, "family": True}, {"id": members[-1], "strength": 2}]
    reply = running.post(STEER, json={**PROMPT, "features": both})
    assert reply.status_code == 422 and "twice" in reply.json()["detail"]


def test_tokens_have_the_alternatives_of_both_models(running: Running) -> None:
    run = alone(running, features=[{"id": 3, "strength": 4}], alternatives=3)
    for channel, tokens in run["tokens"].items():
        for token in tokens:
            assert [len(token["alternatives"][name]) for name in ("default", "steered")] == [3, 3]
            own = token["alternatives"][channel]
            assert own[0]["logprob"] == pytest.approx(token["logprob"], abs=1e-4)  # greedy
            assert own[0]["logprob"] >= own[1]["logprob"]
    for token, kl in zip(run["tokens"]["steered"], run["kl"], strict=True):
        assert token["other_logprob"] == pytest.approx(kl["logprob_default"], abs=1e-5)
    plain = alone(running, features=[{"id": 3, "strength": 4}])
    assert plain["tokens"]["steered"][0]["alternatives"] is None and plain["text"] == run["text"]
