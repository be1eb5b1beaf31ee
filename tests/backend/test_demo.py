"""The demo's real model: what holds for tiny random weights must hold for it too."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.settings import Settings
from precompute.live.intervention import Intervention
from precompute.live.steer import Done, Steering, steer
from precompute.live.steer_sampling import Event, TokenSampler
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.companion_files import CONTROLS, companion_path
from precompute.store.reader import Store
from tests.helpers.commands import run_saevx
from tests.helpers.demo import DEMO_SAMPLES, Demo
from tests.helpers.in_process import saevx


class RecordingSampler(TokenSampler):
    """The chooser, which also keeps every step's logits."""

    logits: list[torch.Tensor] = []  # noqa: RUF012 - emptied by every run

    def __call__(self, logits_rv: torch.Tensor, row: Mapping[int, int]) -> dict[int, int]:
        RecordingSampler.logits.append(logits_rv.clone())
        return super().__call__(logits_rv, row)


@pytest.fixture(scope="module")
def mllm(demo: Demo) -> Mllm:
    return Mllm.load(demo.model, layer=SaeV.load(demo.sae).layer, full=True, device="cpu")


@pytest.mark.parametrize("prompt", ["", "What colour is it?"])
def test_add_at_strength_0_changes_no_bit_of_the_real_model(
    demo: Demo, mllm: Mllm, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same batch run without the hook: the steered row has the same tokens and logits, bit for bit."""
    sae, store = SaeV.load(demo.sae), Store.open(demo.store)
    monkeypatch.setattr("precompute.live.steer.TokenSampler", RecordingSampler)
    one = store.samples.list(sort="pooled-cosine", order="desc", limit=1).items[0]
    with Image.open(store.samples.image_path(one["sample_id"])) as opened:
        picture = opened.convert("RGB")
    batch = mllm.prepare([Pair(prompt, [picture])], generate=True)
    feature = int(store.features.list(sort="n_samples", order="desc", limit=1).items[0]["id"])
    changes = [Intervention(feature, "add", 0.0, float(store.features.table["p999"][feature]))]

    def run(hooked: bool) -> tuple[Done, list[Event], list[torch.Tensor]]:
        RecordingSampler.logits = []
        events: list[Event] = []
        done = steer(mllm, sae, batch, Steering(changes, max_tokens=12, hooked=hooked), emit=events.append)
        return done, events, RecordingSampler.logits

    hooked, bare = run(True), run(False)
    assert hooked[0].text == bare[0].text and hooked[1] == bare[1]
    assert len(hooked[2]) == len(bare[2]) > 0
    assert all(torch.equal(a, b) for a, b in zip(hooked[2], bare[2], strict=True))


def test_a_second_demo_makes_nothing_twice(demo: Demo) -> None:
    files = [demo.model / "model.safetensors", demo.sae / "cfg.json", demo.store / "manifest.json"]
    files.append(companion_path(demo.store, CONTROLS))
    before = [path.stat().st_mtime_ns for path in files]
    report = run_saevx("demo", "--dir", demo.root, "--samples", DEMO_SAMPLES, "--no-serve")
    assert "already" in report.stderr
    assert [path.stat().st_mtime_ns for path in files] == before


@pytest.fixture(scope="module")
def client(demo: Demo) -> Iterator[TestClient]:
    """What is stored, without the live model."""
    with TestClient(create_app(Settings(stores=[demo.store], live=False))) as running:
        yield running


def test_the_demo_has_its_controls_that_need_no_model(client: TestClient) -> None:
    controls = client.get("/api/v1/controls").raise_for_status().json()["controls"]
    tested = {one["name"]: one["tested"] > 0 for one in controls["controls"]}
    assert tested == {"derangements": True, "random-directions": False, "text-alone": True}
    assert "not measured yet" not in client.get("/", headers={"Accept": "text/html"}).text


def test_a_demo_of_another_size_is_refused(demo: Demo) -> None:
    done = saevx("demo", "--dir", demo.root, "--samples", DEMO_SAMPLES + 1, "--no-serve")
    assert done.status == 1 and f"{DEMO_SAMPLES} samples" in done.err


def test_the_demo_shows_what_its_sae_costs_the_model(client: TestClient) -> None:
    result = client.get("/api/v1/sae").raise_for_status().json()
    assert result["notes"] == []
    assert result["evaluation"]["loss_recovered"]["all"]["value"] > 0.9
