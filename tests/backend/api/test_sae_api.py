"""`GET /sae` and its page: the store's own figures, and what lies beside the SAE."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.options.evaluate import EvaluateOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.options.train import TrainOptions
from precompute.pipeline import precompute
from precompute.sae.reconstruction import sae_warning
from precompute.training.evaluate import evaluate
from precompute.training.train import train
from tests.helpers import tiny


def test_the_stores_own_figures(client: TestClient, store_path: Path) -> None:
    result = client.get("/api/v1/sae").json()
    manifest = json.loads((store_path / "manifest.json").read_text())
    features = client.get("/api/v1/features", params={"limit": 500}).json()["items"]
    dead = {side: sum(f[f"density_{side}"] == 0 for f in features) for side in ("text", "image")}
    both = sum(f["density_text"] == f["density_image"] == 0 for f in features)
    assert result["dead"] == {**dead, "both": both} and both > 0
    assert both == client.get("/api/v1/store").json()["verdicts"]["dead"]
    assert client.get("/api/v1/store").json()["quality"]["dead"] == result["dead"]
    assert result["sha256"] == manifest["sae"]["sha256"] and result["n_features"] == len(features)
    assert result["evaluation"] is None and result["training"] is None and result["notes"] == []


@pytest.mark.parametrize(
    ("fvu", "warns"),
    [
        ({"text": 0.1, "image": 0.19}, False),
        ({"text": 0.1, "image": 0.21}, True),
        ({"text": 0.4, "image": 0.51}, True),
        ({"text": 0.4, "image": 0.5}, False),
        ({"text": None, "image": 0.3}, False),
        ({"text": None, "image": 0.6}, True),
        ({"text": 0.1, "image": None}, False),
        ({}, False),
    ],
)
def test_when_an_sae_is_not_made_for_images(fvu: dict[str, Any], warns: bool) -> None:
    sentence = sae_warning({"fvu": fvu})
    assert (sentence is not None) == warns
    assert sentence is None or "was not made for images" in sentence


@pytest.mark.parametrize(
    ("fvu", "named"),
    [
        ({"text": 1.5, "image": 0.4, "both": 1.2}, ["text tokens (FVU 1.5)"]),
        ({"text": 0.2, "image": 46.1, "both": 28.0}, ["image tokens (FVU 46.1)"]),
        ({"text": 2.0, "image": 3.0, "both": 2.5}, ["text tokens (FVU 2)", "image tokens (FVU 3)"]),
        ({"text": 408.0, "image": None, "both": 408.0}, ["text tokens (FVU 408)"]),
        ({"text": 1.0, "image": None}, ["text tokens (FVU 1)"]),
        ({"text": 0.9, "image": 0.9, "both": 1.1}, ["both kinds of tokens (FVU 1.1)"]),
        ({"text": 0.99, "image": None, "both": 0.99}, None),
        ({"text": float("nan"), "image": None}, None),
    ],
)
def test_when_an_sae_explains_nothing(fvu: dict[str, Any], named: list[str] | None) -> None:
    """On either modality, or on the only one there is."""
    sentence = sae_warning({"fvu": fvu})
    assert (sentence is None) == (named is None)
    if sentence is not None and named is not None:
        assert "explains nothing of " + " and ".join(named) in sentence and "Check that" in sentence
        assert sentence.count("tokens (FVU") == len(named)


def test_it_is_said_at_the_end_of_the_pass_and_on_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"a red dog on the tree {i}"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sae = tiny.make_sae(tmp_path / "sae", bias=0.0)
    store = precompute(
        PrecomputeOptions(
            data=str(tmp_path / "rows.jsonl"),
            model=str(tiny.make_llama(tmp_path / "llama")),
            sae=str(sae),
            out=tmp_path / "store",
            device="cpu",
            layer=1,
        )
    )
    lines = capsys.readouterr().err.strip().splitlines()
    quality = json.loads((store / "manifest.json").read_text())["quality"]
    assert lines[-1] == sae_warning(quality) and "text tokens (FVU" in lines[-1]
    assert any("is layer 2, and it is read after layer 1" in line for line in lines[:3]), "said before the pass"
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        assert client.get("/api/v1/sae").json()["warning"] == lines[-1]
        for path in ("/", "/sae"):
            assert "text tokens (FVU" in client.get(path).text


def test_a_store_of_before_whose_figures_are_not_finite_is_shown(trained: Path, tmp_path: Path) -> None:
    store = shutil.copytree(trained / "store", tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["quality"]["fvu"] = {"text": 0.15, "image": float("inf"), "both": float("inf")}
    (store / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        report = client.get("/api/v1/sae").json()
        assert report["fvu"] == {"text": 0.15, "image": None, "both": None} and "image tokens" in report["warning"]
        assert client.get("/sae").status_code == 200 and "inf%" not in client.get("/").text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an SAE trained on it for a few steps and evaluated in it, and a store made with it."""
    root = tmp_path_factory.mktemp("sae-page")
    data, model = str(tiny.make_data(root / "data", 24)), str(tiny.make_llava(root / "model"))
    options: dict[str, Any] = {"data": data, "model": model, "device": "cpu"}
    made = TrainOptions(
        **options, out=root / "sae", layer=tiny.LAYER, expansion=2, steps=20, batch_size=64, lr=2e-3,
        buffer_tokens=300, log_every=2,
    )  # fmt: skip
    train(made)
    details = evaluate(EvaluateOptions(**options, sae=str(root / "sae"), resamples=20, max_samples=12))
    (root / "sae" / "evaluation.json").write_text(json.dumps(details))
    precompute(PrecomputeOptions(**options, sae=str(root / "sae"), out=root / "store"))
    return root


@pytest.fixture
def browser_like(trained: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[trained / "store"], live=False))
    with TestClient(app, headers={"Accept": "text/html"}) as running:
        yield running


def test_what_lies_beside_the_sae_is_shown(browser_like: TestClient, trained: Path) -> None:
    result = browser_like.get("/api/v1/sae").json()
    details = json.loads((trained / "sae" / "evaluation.json").read_text())
    log = json.loads((trained / "sae" / "training.json").read_text())["log"]
    assert result["notes"] == []
    assert result["evaluation"]["cross_entropy"] == details["cross_entropy"]
    assert [one["step"] for one in result["training"]["log"]] == list(range(2, 21, 2))
    assert result["training"]["log"][-1]["fvu"] == log[-1]["fvu"]
    assert result["fvu"]["text"] > 0 and result["l0"]["image"] > 0

    page = browser_like.get("/sae").text
    for name in ("sae-table", "evaluation-table", "evaluation-facts", "training-options"):
        assert f'data-testid="{name}"' in page
    assert "evaluation-empty" not in page and "training-empty" not in page
    glance = re.sub(r"<[^>]*>", "", page.split('data-testid="sae-glance">')[1].split("</p>")[0])
    assert f"leaves {100 * result['fvu']['text']:.0f} % of the variance of text" in glance
    assert details["loss_recovered"]["all"] is None and "keeps" not in glance, "zeros do this model no harm"
    assert f"{result['dead']['both']:,} of its" in glance
    charts = re.findall(r'<svg class="curve".*?</svg>', page, re.S)
    assert len(charts) == 4
    assert all(re.search(r'<path class="[tpb]" d="M[\d. L]+"', one) for one in charts)
    assert [re.findall(r'<path class="(.)"', one) for one in charts] == [["b"], *[["t", "p", "b"]] * 3]
    assert f"{details['cross_entropy']['original']['value']:.3f}" in page
    assert not re.search(r"<[^>]+\sstyle=|<style|<script(?![^>]*\ssrc=)", page)


def test_a_line_that_was_not_measured_says_with_which_option_it_is(trained: Path, tmp_path: Path) -> None:
    """By a field of its own: a note is never read."""
    folder = shutil.copytree(trained / "sae", tmp_path / "sae")
    details = json.loads((folder / "evaluation.json").read_text())
    details["card"][0] |= {"value": None, "interval": None, "note": "Needs a careful reader."}
    (folder / "evaluation.json").write_text(json.dumps(details))
    with TestClient(create_app(Settings(stores=[trained / "store"], live=False, sae=str(folder)))) as client:
        card = client.get("/api/v1/sae").json()["evaluation"]["card"]
        assert {line["line"]: line["needs"] for line in card}["names"] == "--store STORE"
        page = client.get("/sae").text
        assert "takes it with <code>--store STORE</code>" in page and "Needs a careful reader." in page


def test_both_pages_say_when_it_was_not_made_for_images(trained: Path, tmp_path: Path) -> None:
    store = shutil.copytree(trained / "store", tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    for image, warns in ((0.9, True), (0.2, False)):
        manifest["quality"]["fvu"] = {"text": 0.15, "image": image, "both": 0.3}
        (store / "manifest.json").write_text(json.dumps(manifest))
        with TestClient(create_app(Settings(stores=[store], live=False))) as client:
            for path in ("/", "/sae"):
                assert ('data-testid="not-for-images"' in client.get(path).text) == warns
            warning = client.get("/api/v1/sae").json()["warning"]
            assert (warning is not None) == warns and (not warns or "90%" in warning)


def test_files_of_another_sae_or_none_at_all(trained: Path, tmp_path: Path) -> None:
    """They are told of, not shown, and never an error."""
    folder = shutil.copytree(trained / "sae", tmp_path / "sae")
    details = json.loads((folder / "evaluation.json").read_text())
    other = json.dumps({**details, "sae": {**details["sae"], "sha256": "f" * 64}})
    for text, note in (
        (other, "another SAE"),
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        (json.dumps({"sae": details["sae"]}), "cannot be read"),
        (json.dumps({**details, "dead": {"text": None}}), "cannot be read"),
    ):
        (folder / "evaluation.json").write_text(text)
        with TestClient(create_app(Settings(stores=[trained / "store"], live=False, sae=str(folder)))) as client:
            result = client.get("/api/v1/sae").json()
            assert result["evaluation"] is None and result["training"] is not None
            assert len(result["notes"]) == 1 and note in result["notes"][0]
            page = client.get("/sae").text
            assert 'data-testid="sae-note"' in page and 'data-testid="evaluation-empty"' in page
