"""The endpoints over a store, one test a noun."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.settings import Settings
from precompute.store import schema as s
from precompute.store.reader import Store
from tests.helpers import synthetic
from tests.helpers.json_api import API, get, walk

SCORES = {
    "cosine", "cosine-weighted", "cosine-cooccurring", "cosine-mean", "pooled-cosine", "supported-share",
    "caption-nll", "image-gain", "l0", "cooccurring-l0", "random",
}  # fmt: skip


@pytest.fixture(scope="session")
def sample_id(client: TestClient) -> str:
    """A sample with both sides."""
    for one in get(client, "/samples", limit=50)["items"]:
        if one["n_text"] > 4 and one["n_image"]:
            return str(one["sample_id"])
    raise AssertionError("no sample with both sides")


def test_stores(client: TestClient, store_path: Path) -> None:
    listed = get(client, "/stores")
    assert listed["total"] == 1 and listed["next"] is None
    manifest = json.loads((store_path / "manifest.json").read_text())
    one = get(client, "/store")
    assert {k: one[k] for k in listed["items"][0]} == listed["items"][0]
    assert (one["name"], one["content_id"]) == (manifest["name"], manifest["content_id"])
    assert one["n_samples"] == 80 and one["n_features"] == synthetic.N_FEATURES
    assert sum(one["verdicts"].values()) == one["n_features"]
    assert one["live"]["state"] == "off" and "--no-live" in one["live"]["reason"]
    images = {name for name in manifest["files"] if name.startswith("images/")}
    n_bytes = sum((store_path / name).stat().st_size for name in images)
    assert one["manifest"]["images"] == {"n": len(images), "bytes": n_bytes}
    same = manifest.keys() - {"files", "sizes"}
    assert {name: one["manifest"][name] for name in same} == {name: manifest[name] for name in same}
    assert one["manifest"]["files"].keys() == manifest["files"].keys() - images


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["id", "lift", "omega", "n_samples", "label"])
def test_the_feature_list_hides_nothing_and_keeps_its_order(client: TestClient, sort: str, order: str) -> None:
    items = walk(client, "/features", sort=sort, order=order, limit=37)
    assert sorted(f["id"] for f in items) == list(range(synthetic.N_FEATURES))
    known = [f[sort] for f in items if f[sort] is not None]
    assert known == sorted(known, reverse=order == "desc")
    empty = [i for i, f in enumerate(items) if f[sort] is None]
    assert empty == list(range(len(items) - len(empty), len(items))), "features without a value come last"


def test_feature_filters(client: TestClient) -> None:
    everything = walk(client, "/features", limit=500)
    dead = walk(client, "/features", verdict="dead")
    assert {f["id"] for f in dead} == {f["id"] for f in everything if f["verdict"] == "dead"} != set()
    two = walk(client, "/features", verdict=["dead", "cross-modal"])
    assert {f["verdict"] for f in two} == {"dead", "cross-modal"}
    limit = float(np.median([f["omega"] for f in everything if f["omega"] is not None]))
    over = {f["id"] for f in walk(client, "/features", min_omega=limit)}
    assert over == {f["id"] for f in everything if f["omega"] is not None and f["omega"] >= limit}
    thin = walk(client, "/features", max_density=0.05)
    assert {f["id"] for f in thin} == {
        f["id"] for f in everything if max(f["density_text"], f["density_image"]) <= 0.05
    }
    assert [f["id"] for f in walk(client, "/features", ids="5,3,99")] == [3, 5, 99]
    dogs = walk(client, "/features", q="dog")
    assert synthetic.word_feature("dog") in {f["id"] for f in dogs}
    assert walk(client, "/features", q="zzzz") == []
    labelled = walk(client, "/features", has_label=True)
    assert {f["id"] for f in labelled} == {f["id"] for f in everything if f["label"] is not None}


def test_one_feature(client: TestClient) -> None:
    feature = synthetic.word_feature("dog")
    one = get(client, f"/features/{feature}")
    row = next(f for f in walk(client, "/features", limit=500) if f["id"] == feature)
    assert {k: one[k] for k in row} == row
    for side in ("text", "image"):
        histogram = one["histogram"][side]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert sum(histogram["counts"]) == one[f"n_{side}"] == sum(b["count"] for b in one["bands"][side])
    assert len(one["neighbours"]["decoder"]) > 3 and len(one["logits"]["promoted"]) > 3
    assert set(one["logits"]["promoted"][0]) == {"token", "logit"}
    lens = one["logits"]
    assert lens["promoted"] == lens["centred"]["promoted"] != lens["raw"]["promoted"] and lens["informative"]
    assert set(one["cooccurring"]) == {"text_to_image", "image_to_text", "same"}


def test_examples_show_both_sides_of_the_same_sample(client: TestClient, store_path: Path) -> None:
    feature = synthetic.word_feature("dog")
    events = Store.open(store_path).events
    for modality in ("text", "image"):
        items = get(client, f"/features/{feature}/examples", modality=modality, limit=8)["items"]
        values = [e["activation"] for e in items]
        assert len(items) > 3 and values == sorted(values, reverse=True)
        assert len({e["sample_id"] for e in items}) == len(items)
        for example in items:
            row = get(client, f"/samples/{example['sample_id']}")["row"]
            sample = events.of(row)
            low, high = sample.offset_t[example["position"] : example["position"] + 2]
            at = low + list(sample.feature_e[low:high]).index(feature)
            assert example["activation"] == pytest.approx(float(sample.z_e[at]))
            kind_e = np.repeat(sample.modality_t, np.diff(sample.offset_t))
            mine = (sample.feature_e == feature) & (kind_e == s.MODALITIES.index(modality))
            assert example["activation"] == sample.z_e[mine].max() and example["n_active"] == mine.sum()
            assert any(t["activation"] > 0 for t in example["tokens"]) or modality == "image"
            grid = example["grid"]
            assert len(grid["values"]) == grid["rows"] and len(grid["values"][0]) == grid["cols"]
            if modality == "image":
                patch = example["patch"]
                assert grid["values"][patch["row"]][patch["col"]] == pytest.approx(example["activation"])
            else:
                assert example["token"].strip() == "dog"
    assert get(client, f"/features/{feature}/examples", band=3, modality="text")["total"] >= 0


def test_captions_that_say_the_same_are_one_example_that_counts_them(client: TestClient) -> None:
    feature = synthetic.word_feature("dog")
    items = get(client, f"/features/{feature}/examples", modality="text", limit=200)["items"]
    windows = [("".join(token["text"] for token in one["tokens"]), one["position"]) for one in items]
    assert len(set(windows)) == len(windows) and max(one["n_same"] for one in items) > 0
    assert sum(1 + one["n_same"] for one in items) == get(client, f"/features/{feature}")["samples_text"] < 40


def test_samples_by_flag_and_score(client: TestClient) -> None:
    everything = walk(client, "/samples", limit=33)
    assert [s["row"] for s in everything] == list(range(80))
    assert all(set(s["scores"]) == SCORES for s in everything)
    for flag in get(client, "/flags")["items"]:
        flagged = walk(client, "/samples", flag=flag["name"], sort=flag["name"], order="desc")
        assert len(flagged) == flag["count"]
        assert all(flag["name"] in s["flags"] for s in flagged)
        assert walk(client, "/samples", flag=flag["name"], threshold=1e9) == []
    best = walk(client, "/samples", sort="pooled-cosine", order="desc")
    values = [s["scores"]["pooled-cosine"] for s in best]
    assert values == sorted(values, reverse=True)
    dogs = walk(client, "/samples", q="dog")
    assert dogs and all("dog" in s["text"] for s in dogs)


def test_one_sample_and_what_fires_where(client: TestClient, sample_id: str) -> None:
    one = get(client, f"/samples/{sample_id}")
    assert set(one["scores"]) == set(one["score_ranks"]) == SCORES
    top = one["top_features"]["image"][:3] + one["top_features"]["text"][:1]
    ids = [f["id"] for f in top]
    shown = get(client, f"/samples/{sample_id}/activations", feature=ids)
    assert [f["id"] for f in shown["features"]] == ids
    kinds = {t["modality"] for t in shown["tokens"]}
    assert {"text", "image", "special"} <= kinds
    for token in shown["tokens"]:
        blank = token["modality"] in ("special", "sink")
        assert len(token["values"]) == len(ids)
        assert all((v is None) == blank for v in token["values"])
    grid = shown["grids"][0]
    peak = max(v for row in grid["values"][0] for v in row if v is not None)
    assert peak == pytest.approx(top[0]["activation"])
    row, col = next((r, c) for r, vs in enumerate(grid["values"][0]) for c, v in enumerate(vs) if v == peak)
    here = get(client, f"/samples/{sample_id}/features", patch=f"0,{row},{col}")
    assert here["patch"]["row"] == row and here["modality"] == "image"
    assert {f["id"]: f["activation"] for f in here["items"]}[ids[0]] == pytest.approx(peak)
    same = get(client, f"/samples/{sample_id}/features", position=here["position"])
    assert same["items"] == here["items"]
    pages = walk(client, f"/samples/{sample_id}/features", position=here["position"], limit=1)
    assert pages == here["items"]


def test_flags_have_their_reason(client: TestClient) -> None:
    flags = {f["name"]: f for f in get(client, "/flags")["items"]}
    worst = get(client, "/samples", flag="mismatch", sort="mismatch", order="desc")["items"][0]
    hit = next(f for f in get(client, f"/samples/{worst['sample_id']}")["flags"] if f["name"] == "mismatch")
    assert hit["score"] > hit["threshold"] == flags["mismatch"]["threshold"]
    assert hit["reason"]["text"].endswith(".") and hit["reason"]["features"]


def test_scores_and_flags_are_described(client: TestClient) -> None:
    scores = get(client, "/scores")["items"]
    assert {s["name"] for s in scores} == SCORES
    calibrated = {s["name"]: s["auroc"] for s in scores}
    assert calibrated["pooled-cosine"]["low"] <= calibrated["pooled-cosine"]["value"] <= 1
    for item in [*scores, *get(client, "/flags")["items"]]:
        assert item["description"]
        assert len(item["histogram"]["edges"]) in (0, len(item["histogram"]["counts"]) + 1)


def test_cooccurrence(client: TestClient) -> None:
    pairs = walk(client, "/cooccurrence", min_support=1, limit=100)
    assert [p["lift_low"] for p in pairs] == sorted((p["lift_low"] for p in pairs), reverse=True)
    hidden = get(client, "/cooccurrence", min_support=1)["hidden"]
    everything = walk(client, "/cooccurrence", min_support=1, min_lift=0, alike=True, limit=100)
    assert len(everything) == len(pairs) + sum(hidden.values()) and hidden["weak"] and hidden["same_concept"]
    assert all(p["family_a"] != p["family_b"] and p["lift"] >= 1.5 for p in pairs)
    best = pairs[0]
    assert best["kind"] == "text-image" and best["support"] <= min(best["n_a"], best["n_b"])
    only = walk(client, "/cooccurrence", min_support=1, feature=best["a"]["id"])
    assert only and all(best["a"]["id"] in (p["a"]["id"], p["b"]["id"]) for p in only)
    strong = walk(client, "/cooccurrence", min_support=10, sort="support")
    assert all(p["support"] >= 10 for p in strong)


def test_search_by_words(client: TestClient) -> None:
    result = get(client, "/search", q="dog")
    assert result["features"][0]["label"] == "dog"
    assert result["samples"] and all("dog" in s["text"] for s in result["samples"])
    assert get(client, "/search", q='"*()&')["features"] == []


def picture(reply: Any) -> Image.Image:
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/webp"
    return Image.open(io.BytesIO(reply.content))


def test_images(client: TestClient, sample_id: str) -> None:
    ref = get(client, f"/samples/{sample_id}")["images"][0]
    reply = client.get(ref["url"])
    whole = picture(reply)
    assert whole.size == (ref["width"], ref["height"])
    assert "immutable" in reply.headers["cache-control"]
    tag = reply.headers["etag"]
    for held_tags in (tag, f'"other", W/{tag}'):  # a proxy that compresses replies marks their tags as weak
        again = client.get(ref["url"], headers={"If-None-Match": held_tags})
        assert again.status_code == 304 and not again.content
    assert max(picture(client.get(ref["url"] + "&size=32")).size) == 32
    crop = picture(client.get(ref["url"] + "&crop=0,0,16,32&size=64"))
    assert crop.size == (32, 64)
    one = np.asarray(whole.convert("RGB"), dtype=int)[:32, :16].mean((0, 1))
    assert np.abs(np.asarray(crop.convert("RGB"), dtype=int).mean((0, 1)) - one).max() < 6
    # A box that hangs over the edge is cut to the picture, one beside it shows the nearest pixels.
    assert picture(client.get(ref["url"] + "&crop=-50,-50,5000,5000")).size == whole.size
    assert client.get(ref["url"] + "&crop=900,900,950,950").status_code == 200
    assert client.get(f"{API}/samples/{sample_id}/image?image=7").status_code == 404


def test_filter_streams_the_best(client: TestClient) -> None:
    reply = client.get(f"{API}/filter", params={"by": "pooled-cosine", "keep": 25, "flags": "mismatch,blank"})
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in reply.text.splitlines()]
    bad = {s["sample_id"] for flag in ("mismatch", "blank") for s in walk(client, "/samples", flag=flag)}
    clean = [s for s in walk(client, "/samples") if s["sample_id"] not in bad]
    assert len(rows) == round(len(clean) / 4) == int(reply.headers["x-kept-count"])
    cut = min(row["pooled-cosine"] for row in rows)
    remaining = {row["id"] for row in rows}
    assert not remaining & bad
    assert all(s["scores"]["pooled-cosine"] <= cut for s in clean if s["sample_id"] not in remaining)
    ids = client.get(f"{API}/filter", params={"by": "pooled-cosine", "keep": 100, "format": "ids"}).text.split()
    assert ids == [s["sample_id"] for s in walk(client, "/samples")]


def test_a_second_store_of_the_same_name_gets_a_number(store_path: Path, sample_id: str) -> None:
    two = create_app(Settings(stores=[store_path, store_path], live=False))
    with TestClient(two) as client:
        names = [s["name"] for s in get(client, "/stores")["items"]]
        assert names == ["synthetic", "synthetic-2"]
        assert get(client, "/store", store="synthetic-2")["name"] == "synthetic-2"
        url = get(client, f"/samples/{sample_id}", store="synthetic-2")["images"][0]["url"]
        assert "store=synthetic-2" in url and client.get(url).status_code == 200
        missing = client.get(f"{API}/store", params={"store": "nope"})
        assert missing.status_code == 404 and "synthetic-2" in missing.json()["detail"]


def test_store_data_is_revalidated_for_nothing(client: TestClient) -> None:
    reply = client.get(f"{API}/features")
    tag = reply.headers["etag"]
    assert client.get(f"{API}/features", headers={"If-None-Match": tag}).status_code == 304
    assert client.get(f"{API}/features", headers={"If-None-Match": '"other"'}).status_code == 200
    assert "etag" not in client.get(f"{API}/store").headers, "the live state changes"


def test_live_endpoints_say_why_they_rest(client: TestClient, sample_id: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    files = {"image": ("a.png", buffer.getvalue(), "image/png")}
    for reply in (
        client.post(f"{API}/search", files=files),
        client.post(f"{API}/score", files=files, data={"text": "a dog"}),
        client.post(f"{API}/steer", json={"sample_id": sample_id, "prompt": "what?"}),
    ):
        assert reply.status_code == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert "--no-live" in reply.json()["detail"]


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz")
    assert ready.status_code == 200 and ready.json()["live"]["state"] == "off"


@pytest.mark.parametrize("prefix", ["", "/lab/saevx"])
def test_links_work_behind_a_proxy(store_path: Path, sample_id: str, prefix: str) -> None:
    app: FastAPI = create_app(Settings(stores=[store_path], live=False, root_path="/lab/saevx"))
    with TestClient(app) as client:  # a proxy that strips the prefix, and one that does not
        one = client.get(f"{prefix}{API}/samples/{sample_id}").json()
        assert one["images"][0]["url"].startswith(f"/lab/saevx{API}/samples/")
        assert client.get(one["images"][0]["url"]).status_code == 200
        assert client.get(f"{prefix}/static/css/base.css").status_code == 200
        assert 'href="/lab/saevx/static/' in client.get(f"{prefix}/").text
