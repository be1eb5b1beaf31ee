"""The store's writer and reader: same bytes, whole lists, values equal to the events, clear errors."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.histogram import EDGES, N_BINS, pack, unpack
from precompute.store.making.verify import verify
from precompute.store.reader import Store
from precompute.store.relations.feature_pairs import SORTS
from tests.helpers.stores import walk
from tests.helpers.synthetic import N_FEATURES, finish, run_steps, word_feature, write_part, write_store
from tests.helpers.unfinished import Part


def test_same_inputs_same_bytes(tmp_path: Path, made_up: Store) -> None:
    again = tmp_path / "elsewhere" / "other-name"
    again.parent.mkdir()
    write_store(again, n=200, seed=5)

    def digests(folder: Path) -> dict[str, str]:
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != "run.json"]
        return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert digests(again) == digests(made_up.path)


def test_every_table_column_and_array_is_documented(made_up: Store) -> None:
    page = (Path(__file__).parents[3] / "docs" / "store.md").read_text()
    families = ("score_", "flag_", "n_", "omega_", "lift")
    for table in s.metadata.sorted_tables:
        assert f"`{table.name}`" in page
        for column in table.columns:
            known = f"`{column.name}`" in page or f", {column.name}" in page
            assert known or column.name.startswith(families), (table.name, column.name)
    for path in (made_up.path / "events").iterdir():
        assert f"`{path.stem}`" in page
    for path in (made_up.path / "index").iterdir():
        assert f"`{path.name}`" in page


def test_manifest_and_scratch(made_up: Store) -> None:
    assert not (made_up.path / "collect").exists() and not (made_up.path / "steps").exists()
    assert made_up.summary["n_features"] == N_FEATURES and made_up.summary["n_samples"] == 200
    assert {"name", "model", "layer", "d_model", "n_features", "n_samples", "n_text_tokens", "n_image_tokens",
            "sae", "dataset", "created", "version"} <= set(made_up.summary)  # fmt: skip
    assert sum(made_up.detail["verdicts"].values()) == N_FEATURES
    (rejected,) = made_up.rejected.list().items
    assert rejected | {"kind": ""} == {"row": 200, "id": "broken", "reason": "the image file is cut short", "kind": ""}


@pytest.mark.parametrize("sort", s.FEATURE_SORTS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_feature_pages_lose_nothing(made_up: Store, sort: str, order: str) -> None:
    """Every feature once, in order, those without a value last."""
    items = walk(made_up.features.list, sort=sort, order=order, limit=17)
    assert sorted(f["id"] for f in items) == list(range(N_FEATURES))
    values = [f[sort] for f in items]
    known = [v for v in values if v is not None]
    assert values == known + [None] * (len(values) - len(known))
    assert known == sorted(known, reverse=order == "desc")


@pytest.mark.parametrize("sort", ["row", "pooled-cosine", "cosine-mean", "mismatch", "tiny"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_sample_pages_lose_nothing(made_up: Store, sort: str, order: str) -> None:
    items = walk(made_up.samples.list, sort=sort, order=order, limit=23)
    assert sorted(i["row"] for i in items) == list(range(200))
    if sort in s.SCORES:
        known = [i["scores"][sort] for i in items if i["scores"][sort] is not None]
        assert known == sorted(known, reverse=order == "desc")


def test_feature_filters(made_up: Store) -> None:
    every = walk(made_up.features.list, limit=100)
    cases: dict[str, tuple[dict[str, Any], Any]] = {
        "verdict": ({"verdict": "text-only"}, lambda f: f["verdict"] == "text-only"),
        "two": ({"verdict": ["dead", "image-only"]}, lambda f: f["verdict"] in ("dead", "image-only")),
        "omega": ({"min_omega": 0.5}, lambda f: f["omega"] is not None and f["omega"] >= 0.5),
        "lift": ({"min_lift": 0.1}, lambda f: f["lift"] is not None and f["lift"] >= 0.1),
        "density": ({"max_density": 0.1}, lambda f: max(f["density_text"], f["density_image"]) <= 0.1),
        "ids": ({"ids": [3, 5]}, lambda f: f["id"] in (3, 5)),
        "label": ({"has_label": False}, lambda f: f["label"] is None),
    }
    for name, (options, keeps) in cases.items():
        got = walk(made_up.features.list, limit=9, sort="lift", order="desc", **options)
        expected = {f["id"] for f in every if keeps(f)}
        assert {f["id"] for f in got} == expected and 0 < len(expected) < N_FEATURES, name
    assert word_feature("dog") in {f["id"] for f in walk(made_up.features.list, limit=50, q="dog")}
    assert made_up.features.list(q='"((').items == []


def test_strongest_examples_are_the_first_of_each_feature(made_up: Store) -> None:
    """The two queries for a whole list against one feature's examples at a time, but for the tokens around them."""
    for modality in ("image", "text"):
        examples = made_up.examples.strongest([*range(made_up.n_features), 0], modality, 3)
        for feature in range(made_up.n_features):
            first = made_up.examples.of(feature, modality=modality, limit=3)
            assert examples[feature] == [one | {"tokens": []} for one in first]


def test_examples_are_events_with_their_other_side(made_up: Store, part: Part) -> None:
    top = part.data.examples
    k = word_feature("red")
    for m, name in enumerate(s.MODALITIES):
        examples = made_up.examples.of(k, modality=name)
        rows = [int(e["sample_id"][1:]) for e in examples]
        listed = top["top_row"][k, m] >= 0
        assert rows == top["top_row"][k, m][listed].tolist()
        assert [e["activation"] for e in examples] == (top["top_value"][k, m][listed] * made_up.events.unit).tolist()
        assert [(e["n_active"], e["n_same"]) for e in examples] == list(
            zip(*(top[f"top_{counted}"][k, m][listed].tolist() for counted in ("n_active", "n_same")), strict=True)
        )
        for e in examples:
            assert e["modality"] == name and e["band"] == -1
            if name == "text":
                assert e["token"] == " red" and e["patch"] is None
                at = [t for t in e["tokens"] if t["position"] == e["position"]]
                assert at[0]["activation"] == e["activation"]
            else:
                p = e["patch"]
                assert e["grid"]["values"][p["row"]][p["col"]] == e["activation"]
                assert max(map(max, e["grid"]["values"])) >= e["activation"]
                assert p["box"][2] - p["box"][0] == e["images"][0]["width"] / 4
    assert {e["band"] for e in made_up.examples.of(k, band=None, limit=200)} <= {-1, 0, 1, 2, 3}
    assert made_up.examples.of(N_FEATURES - 1) == []  # dead


def test_activations_are_the_events(made_up: Store) -> None:
    features = [word_feature("dog"), word_feature("red") + 2, 36 + 9]
    for row in (0, 5, 17):
        got, sample = made_up.samples.activations(f"s{row:05d}", features), made_up.events.of(row)
        assert [f["id"] for f in got["features"]] == features
        plain = np.zeros((len(sample.token_id_t), N_FEATURES))
        for t in range(len(plain)):
            at = slice(*sample.offset_t[t : t + 2])
            plain[t, sample.feature_e[at]] = sample.z_e[at]
        patches = []
        for t, token in enumerate(got["tokens"]):
            assert token["position"] == t
            if token["modality"] in ("special", "sink"):
                assert token["values"] == [None] * 3
            else:
                assert token["values"] == plain[t, features].tolist()
            if token["modality"] == "image" or (token["modality"] == "sink" and token["text"] == "<image>"):
                patches.append(token["values"])
        grid = got["grids"][0]
        cells = [[grid["values"][j][r][c] for j in range(3)] for r in range(4) for c in range(4)]
        assert cells == patches  # row-major, with a sink as null in its place


def test_features_at_token_and_patch(made_up: Store) -> None:
    row = next(r for r in range(200) if made_up.samples.get(f"s{r:05d}")["extra"]["planted"] is None)
    sample_id, sample = f"s{row:05d}", made_up.events.of(row)
    text_at = int(np.flatnonzero((sample.modality_t == s.TEXT) & (np.diff(sample.offset_t) > 1))[0])
    got = made_up.samples.features_at(sample_id, position=text_at)
    assert got["modality"] == "text" and got["patch"] is None
    low, high = sample.offset_t[text_at : text_at + 2]
    assert {f["id"] for f in got["items"]} == set(sample.feature_e[low:high].tolist()) and got["total"] == high - low
    scores = [min(f["share"], 1) * made_up.features.specificity[f["id"], s.TEXT] for f in got["items"]]
    assert scores == sorted(scores, reverse=True)
    one = made_up.samples.features_at(sample_id, position=text_at, limit=1)
    two = made_up.samples.features_at(sample_id, position=text_at, limit=1, cursor=one["next"])
    assert [one["items"][0], two["items"][0]] == got["items"][:2]
    here = made_up.samples.features_at(sample_id, patch=(0, 2, 1))
    assert here["patch"]["row"] == 2 and here["patch"]["col"] == 1 and here["position"] == 1 + 2 * 4 + 1
    special = made_up.samples.features_at(sample_id, position=0)
    assert special["modality"] == "special" and special["items"] == []


def test_sample_page(made_up: Store) -> None:
    got = made_up.samples.get("s00003")
    assert set(got["scores"]) == set(s.SCORES) and set(got["flag_scores"]) == set(s.FLAGS)
    assert got["previous"] == "s00002" and got["next"] == "s00004"
    assert made_up.samples.get("s00000")["previous"] is None and made_up.samples.get("s00199")["next"] is None
    values = made_up.quality.score_values("pooled-cosine")
    assert got["score_ranks"]["pooled-cosine"] == (values < values[3]).mean()
    for name, m in (("text", 0), ("image", 1)):
        k, z = made_up.events.maxima(3, m)
        tops = {f["id"]: f["activation"] for f in got["top_features"][name]}
        assert tops.items() <= dict(zip(k.tolist(), z.tolist(), strict=True)).items()
    assert made_up.samples.image_path("s00003").is_file()


def test_feature_page(made_up: Store, part: Part) -> None:
    k = word_feature("cat")
    got = made_up.features.get(k)
    for m, name in enumerate(s.MODALITIES):
        histogram = got["histogram"][name]
        assert sum(histogram["counts"]) == part.data.accum["count"][k, m]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert sum(b["count"] for b in got["bands"][name]) == part.data.accum["count"][k, m]
        assert got["bands"][name][0]["low"] <= got[f"max_{name}"] < got["bands"][name][0]["high"]
    assert len(got["logits"]["promoted"]) == 10
    assert [n["cosine"] for n in got["neighbours"]["decoder"]] == sorted(
        (n["cosine"] for n in got["neighbours"]["decoder"]), reverse=True
    )
    others = {p["id"] for group in got["cooccurring"].values() for p in group}
    concept = made_up.features.concept
    assert others and concept[k] not in concept[[*others]]
    # Its image-only copy has the same name, so only the list of all pairs holds it.
    assert concept[k + 2] == concept[k]
    pairs = made_up.cooccurrence.list(feature=k, alike=True, limit=1000).items
    assert (k, k + 2) in {(p["a"]["id"], p["b"]["id"]) for p in pairs}
    dead = made_up.features.get(N_FEATURES - 1)
    assert dead["verdict"] == "dead" and dead["bands"] == {"text": [], "image": []}
    assert json.loads(json.dumps(got)) == got and not any(isinstance(v, float) and math.isnan(v) for v in dead.values())


def test_cooccurrence_pages(made_up: Store) -> None:
    for sort in SORTS:
        items = walk(made_up.cooccurrence.list, sort=sort, limit=20, min_support=8)
        concept = made_up.features.concept
        assert all(i["lift"] >= 1.5 and concept[i["a"]["id"]] != concept[i["b"]["id"]] for i in items)
        assert all(i["lift_low"] < i["lift"] < i["lift_high"] for i in items)
        everything = {"limit": 200, "min_support": 8, "min_lift": 0.0, "alike": True}
        assert len(walk(made_up.cooccurrence.list, sort=sort, **everything)) > len(items)
        assert len({(i["a"]["id"], i["b"]["id"]) for i in items}) == len(items) > 10
        assert [i[sort] for i in items] == sorted((i[sort] for i in items), reverse=True)
        assert all(i["support"] >= 8 for i in items)
    mine = walk(made_up.cooccurrence.list, feature=word_feature("dog"), limit=50)
    assert mine and all(word_feature("dog") in (i["a"]["id"], i["b"]["id"]) for i in mine)


def test_search_by_words(made_up: Store) -> None:
    got = made_up.search.words("dog")
    assert {word_feature("dog") + i for i in range(3)} <= {f["id"] for f in got["features"][:5]}
    assert got["samples"] and all("dog" in item["text"] for item in got["samples"])
    assert made_up.search.words("  ") == {"q": "  ", "features": [], "n_features": 0, "samples": [], "n_samples": 0}
    assert made_up.search.words("um")["features"]  # the last word is a prefix
    for odd in ('"', "a AND OR NOT", "x* ^y", "';--", "NEAR(a b)"):
        made_up.search.words(odd)


def test_unknown_things_are_clear_errors(made_up: Store, tmp_path: Path) -> None:
    cases = [
        (lambda: made_up.features.get(N_FEATURES), "No feature 128"),
        (lambda: made_up.features.get(-1), "No feature -1"),
        (lambda: made_up.samples.get("nobody"), "No sample 'nobody'"),
        (lambda: made_up.samples.activations("s00000", [999]), "No feature 999"),
        (lambda: made_up.samples.features_at("s00000", position=10_000), "has positions 0 to"),
        (lambda: made_up.samples.features_at("s00000", patch=(0, 9, 9)), "no patch 0,9,9"),
        (lambda: made_up.features.list(sort="colour"), "Cannot sort"),
        (lambda: made_up.features.list(verdict="odd"), "Unknown verdict"),
        (lambda: made_up.features.list(cursor="@@"), "cursor"),
        (lambda: made_up.features.list(order="up"), "Unknown order"),
        (lambda: made_up.samples.list(flag="nope"), "Unknown flag"),
        (lambda: made_up.samples.list(sort="nope"), "Cannot sort"),
        (lambda: made_up.cooccurrence.list(kind="x"), "Unknown kind"),
        (lambda: made_up.examples.of(0, modality="sound"), "Unknown modality"),
        (lambda: made_up.samples.image_path("s00000", 3), "images: choose"),
        (lambda: Store.open(tmp_path), "is not a store"),
    ]
    for call, words in cases:
        with pytest.raises(SaevxError, match=words):
            call()
    with pytest.raises(TypeError, match="no option 'max_colour'"):
        made_up.features.list(max_colour=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no option 'words'"):
        made_up.samples.list(words="dog")  # type: ignore[call-arg]


def test_other_schema_is_refused(tmp_path: Path, made_up: Store) -> None:
    (tmp_path / "store.sqlite").touch()
    (tmp_path / "manifest.json").write_text(json.dumps({**made_up.manifest, "schema": 99}))
    with pytest.raises(SaevxError, match="schema 99"):
        Store.open(tmp_path)


def test_histogram_blob_and_edges() -> None:
    hist = np.random.default_rng(0).integers(0, 1 << 40, (2, N_BINS))
    assert np.array_equal(unpack(pack(hist)), hist)
    values = np.array([1e-7, 0.37, 1.0, 15.99, 60000], dtype=np.float16)
    bins = values.view(np.uint16) >> 7
    assert ((EDGES[bins] <= values) & (values < EDGES[bins + 1])).all()
    assert (EDGES[bins + 1] / np.maximum(EDGES[bins], 1e-9) < 1.13)[1:].all()  # eight bins an octave


@pytest.mark.parametrize(("n", "pictures"), [(60, False), (3, True), (1, True)])
def test_odd_data_still_makes_a_store(tmp_path: Path, n: int, pictures: bool) -> None:
    """Text alone, and fewer samples than any statistic wants."""
    manifest, options = write_part(tmp_path, n=n, seed=3, pictures=pictures)
    manifest = finish(tmp_path, run_steps(tmp_path, manifest, options))
    checks = verify(tmp_path)
    assert all(check.ok for check in checks), checks
    store = Store.open(tmp_path)
    assert store.detail["verdicts"]["cross-modal"] == 0
    for item in walk(store.samples.list, limit=50):
        sample = store.samples.get(item["sample_id"])
        store.samples.activations(item["sample_id"], [0, 1])
        assert pictures or (sample["images"] == [] and sample["flag_scores"]["mismatch"] is None)
    for k in range(N_FEATURES):
        store.features.get(k)
        store.examples.of(k, band=None)
    assert json.loads(json.dumps([store.quality.scores, store.quality.flags], allow_nan=False))
