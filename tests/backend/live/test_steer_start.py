"""With what steering a feature begins, and what a run says while it waits for the model."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.live.steer_start import FIRST_SHARE
from backend.settings import Settings
from precompute.store.reader import Store
from tests.helpers.running import Running
from tests.helpers.tinies import make_tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_store(tmp_path_factory.mktemp("steer-start"), 24)


def test_a_first_strength_lies_below_the_cap_and_the_sample_lacks_the_feature(store: Path) -> None:
    opened = Store.open(store)
    median = min(opened.manifest["sinks"]["median_norm"].values())
    p999 = opened.features.table["p999"]
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        for feature in range(opened.n_features):
            start = client.get(f"/api/v1/steer/start?feature={feature}").json()
            if not p999[feature] > 0:
                assert start["cap"] is None and start["strength"] == 1
                continue
            delta = p999[feature] * np.linalg.norm(opened.directions.get(feature).raw_d)
            assert start["cap"] == pytest.approx(median / delta, rel=0.02)
            assert start["strength"] == pytest.approx(min(FIRST_SHARE * start["cap"], 100), abs=0.26)
            assert start["scope"] == ["image", "prompt"]  # an answer that is steered token by token repeats itself
            off = [
                row
                for row in range(opened.n_samples)
                if all(feature not in opened.events.maxima(row, m)[0] for m in (0, 1))
            ]
            assert opened.samples.row(start["sample_id"]) == (off or [0])[0]
        assert client.get("/api/v1/steer/start?feature=99999").status_code == 404


@pytest.fixture(scope="module")
def running(store: Path) -> Iterator[Running]:
    with Running(Settings(stores=[store], device="cpu")) as server:
        yield server


def test_a_run_that_waits_says_how_many_come_before(running: Running) -> None:
    body = {"prompt": "what is it", "max_tokens": 2, "features": [{"id": 3, "mode": "add", "strength": 1}]}
    seen: list[tuple[str, dict[str, object]]] = []

    def second() -> None:
        with httpx.stream("POST", f"{running.url}/api/v1/steer", json=body, timeout=60) as reply:
            name = ""
            for line in reply.iter_lines():
                if line.startswith("event:"):
                    name = line.split(":", 1)[1].strip()
                elif line.startswith("data:"):
                    seen.append((name, json.loads(line[5:])))

    with running.held_up():
        first = threading.Thread(target=lambda: running.post("/api/v1/steer", json=body))
        first.start()
        running.until(lambda: running.state.live.waiting == 1)
        thread = threading.Thread(target=second)
        thread.start()
        running.until(lambda: bool(seen))
        assert seen == [("waiting", {"before": 1})]
    thread.join(60)
    first.join(60)
    assert seen[-1][0] == "done" and {"token", "done"} <= {name for name, _ in seen}
    assert [body["before"] for name, body in seen if name == "waiting"] in ([1], [1, 0])
    running.free()
