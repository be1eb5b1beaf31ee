"""The scorecard of `saevx evaluate`, each line against a plain reference, and what it says where something is
missing."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix

from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, TEXT
from precompute.options.evaluate import EvaluateOptions
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.training.evaluate import evaluate, rebuild
from precompute.training.hard_negatives import (
    OTHERS,
    Held,
    against_nearest,
    against_one_word,
    nearest_others,
    one_word_apart,
)
from precompute.training.scorecard import Activity, modality_figures, unit_centred
from precompute.training.scorecard_files import of_files
from precompute.training.scorecard_store import localisation, monosemanticity, of_store, similar_samples
from precompute.utils.text import words_of
from tests.helpers.synthetic import write_store
from tests.helpers.tinies import Tiny, make_tiny_store

Maker = Callable[..., EvaluateOptions]
LINES = [
    "reconstruction", "loss recovered", "modalities", "pair evidence", "text alone", "localisation", "patches",
    "monosemanticity", "hallucination", "steering", "names", "stability",
]  # fmt: skip


@pytest.fixture
def make(tiny_files: Tiny) -> Maker:
    def of(**changed: Any) -> EvaluateOptions:
        given: dict[str, Any] = {
            "sae": str(tiny_files.sae), "data": str(tiny_files.data), "model": str(tiny_files.model),
            "batch_tokens": 150, "resamples": 20, "max_samples": 12, "device": "cpu",
        }  # fmt: skip
        return EvaluateOptions(**{**given, **changed})

    return of


def by_name(card: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["line"], one["name"]): one for one in card}


def test_twelve_lines_in_their_order_and_what_the_missing_ones_take(make: Maker) -> None:
    card = evaluate(make())["card"]
    assert list(dict.fromkeys(one["line"] for one in card)) == LINES
    for one in card:
        assert (one["value"] is None) == (one["needs"] is not None or one["note"].startswith("No such tokens")), one
    needs = {one["line"]: one["needs"] for one in card if one["value"] is None}
    assert needs["names"] == "--store STORE" and needs["steering"] == "--line steering=FILE#PATH"
    assert needs["stability"] == "--other-sae SAE"


def test_each_figure_says_which_values_are_better(make: Maker) -> None:
    card = by_name(evaluate(make())["card"])
    assert [card["reconstruction", name]["better"] for name in ("FVU, text", "L0, text", "dead features")] == [
        "lower",
        None,
        "lower",
    ]
    assert card["loss recovered", "all"]["better"] == "higher" and card["modalities", "iso-energy"]["better"] is None


def test_few_features_a_token_recover_less_and_all_of_them_the_same(make: Maker, tiny_files: Tiny) -> None:
    n = SaeV.load(tiny_files.sae).n_features
    result = evaluate(make(top=[1, n]))
    for part, suffix in (("all", ""), ("text", "_text"), ("image", "_image")):
        assert result["cross_entropy"][f"top{n}{suffix}"] == result["cross_entropy"][f"patched{suffix}"]
        assert result["loss_recovered"][f"{part}_top{n}"] == result["loss_recovered"][part]
        assert result["cross_entropy"][f"top1{suffix}"] != result["cross_entropy"][f"patched{suffix}"]
    assert ("loss recovered", "image, 1 features a token") in by_name(result["card"])


def test_the_strongest_features_alone_and_their_energy(saev: SaeV) -> None:
    h_td = torch.randn(40, saev.d_model, generator=torch.Generator().manual_seed(0))
    kind_t = np.arange(40) % 2
    rebuilt = rebuild(saev, h_td, kind_t, [3])
    z_tf = saev.encode(h_td).double().numpy()
    for m in (TEXT, IMAGE):
        np.testing.assert_array_equal(rebuilt.count_mf[m], (z_tf[kind_t == m] > 0).sum(0))
        np.testing.assert_allclose(rebuilt.energy_mf[m], (z_tf[kind_t == m] ** 2).sum(0), rtol=1e-5)
    cut_tf = np.where(z_tf >= np.sort(z_tf, 1)[:, [-3]], z_tf, 0)
    naive_td = saev.decode(torch.from_numpy(cut_tf).float(), h_td)
    torch.testing.assert_close(rebuilt.top_td[0], naive_td)


def test_how_features_divide_among_text_and_image(saev: SaeV) -> None:
    count_mf = np.zeros((2, saev.n_features), np.int64)
    count_mf[:, :4] = [[10, 0, 50, 5], [10, 10, 500, 500]]
    energy_mf = count_mf * 2.0
    both, energy = modality_figures(Activity(count_mf, energy_mf), saev, {"text": 100, "image": 1000})
    assert both.estimate == {"value": 0.25}, "rates on text and image: .1, .01; 0, .01; .5, .5; .05, .5"
    length_f = (saev.directions_fd.double() ** 2).sum(1).numpy()
    e_mf = energy_mf / np.array([[100], [1000]]) * length_f
    naive = 2 * sum(min(t, i) for t, i in e_mf.T) / e_mf.sum()
    assert energy.estimate is not None and energy.estimate["value"] == pytest.approx(naive)
    (none,) = modality_figures(Activity(count_mf, energy_mf), saev, {"text": 5, "image": 0})
    assert none.estimate is None


def test_likeness_in_an_embedding_is_the_weighted_mean_over_pairs_of_images() -> None:
    rng = np.random.default_rng(3)
    weight_fn, e_nd = rng.random((2, 7)) * (rng.random((2, 7)) > 0.3), rng.standard_normal((7, 4))
    e_nd /= np.linalg.norm(e_nd, axis=1, keepdims=True)
    for k, likeness in enumerate(similar_samples(csr_matrix(weight_fn), e_nd)):
        pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
        w = [weight_fn[k, i] * weight_fn[k, j] for i, j in pairs]
        total = sum(x * (e_nd[i] @ e_nd[j]) for x, (i, j) in zip(w, pairs, strict=True))
        assert likeness == pytest.approx(total / sum(w))


def test_the_lines_of_a_store(make: Maker, made_up: Store, tmp_path: Path) -> None:
    lines = dict(of_store(made_up, make()))
    verdicts = made_up.detail["verdicts"]
    tested = sum(verdicts[name] for name in ("cross-modal", "in-context", "weakly-paired", "unpaired"))
    (pairs,), (alone,), (names, one_word, neighbour) = lines["pair evidence"], lines["text alone"], lines["names"]
    assert pairs.estimate is not None and pairs.estimate["value"] == verdicts["cross-modal"] / tested
    assert alone.estimate is not None and alone.estimate["value"] < 1, "one feature is carried over by attention"
    assert names.estimate is not None and 0 < names.estimate["value"] < 1
    assert neighbour.estimate is not None and 0.5 < neighbour.estimate["value"] <= 1, "planted words are told apart"
    assert one_word.estimate is None or one_word.estimate["value"] > 0.5

    label = next(one["label"] for one in made_up.features.list(verdict="cross-modal", limit=50).items if one["label"])
    samples = made_up.samples.list(limit=200).items
    whole = [{"word": label.upper(), "box": [0, 0, 10_000, 10_000]}]
    nowhere = [{"word": label, "box": [-5, -5, -1, -1]}]
    for boxes, right in ((whole, 1.0), (nowhere, 0.0)):
        rows = [json.dumps({"id": one["sample_id"], "boxes": boxes}) for one in samples]
        (tmp_path / "boxes.jsonl").write_text("\n".join(rows))
        figure = localisation(made_up, make(boxes=tmp_path / "boxes.jsonl"), [label, None])
        assert figure.estimate is not None and figure.estimate["value"] == right, figure

    np.save(tmp_path / "flat.npy", np.ones((made_up.n_samples, 3)))
    figure = monosemanticity(made_up, make(embedding=tmp_path / "flat.npy"))
    assert figure.estimate is not None and figure.estimate["value"] == pytest.approx(1.0)
    for array in (np.ones((3, 3)), np.full((made_up.n_samples, 3), "1"), np.full((made_up.n_samples, 3), np.nan)):
        np.save(tmp_path / "wrong.npy", array)
        with pytest.raises(SaevxError, match="no array of 200 finite rows"):
            monosemanticity(made_up, make(embedding=tmp_path / "wrong.npy"))
    os.mkfifo(tmp_path / "pipe")
    options = make(boxes=tmp_path / "pipe", embedding=tmp_path / "pipe")
    for read in (partial(localisation, made_up, options, [label]), partial(monosemanticity, made_up, options)):
        with pytest.raises(SaevxError, match="is a pipe or a device"):
            read()


def test_files_and_controls_fill_the_rest(make: Maker, tiny_files: Tiny, tmp_path: Path) -> None:
    store = make_tiny_store(tiny_files.root, out=tmp_path / "store")
    (tmp_path / "steering.json").write_text(json.dumps({"all": {"mean": {"value": 0.5, "low": 0.4, "high": 0.6}}}))
    (tmp_path / "control.json").write_text(json.dumps(evaluate(make(max_samples=6))))
    steering = f"steering={tmp_path / 'steering.json'}#all.mean"
    result = evaluate(
        make(store=store, line=[steering], untrained=tmp_path / "control.json", other_sae=[str(tiny_files.sae)])
    )
    card, control = by_name(result["card"]), json.loads((tmp_path / "control.json").read_text())
    assert card["steering", "mean"]["interval"] == [0.4, 0.6] and card["steering", "mean"]["better"] is None
    assert card["stability", "nearest direction"]["value"] == pytest.approx(1.0), "the same SAE"
    fvu = card["reconstruction", "FVU, text"]
    assert fvu["control_untrained"] == control["fvu"]["text"]["value"] != fvu["value"]
    assert fvu["control_random_decoder"] is None
    assert ("names", "name scores 0.7 or more") in card


def test_captions_that_differ_in_one_word() -> None:
    captions = ["a red dog", "a blue dog", "a red cat", "two dogs", "a red dog"]
    pairs = one_word_apart([caption.split() for caption in captions])
    naive = {
        (word, i, j)
        for i, one in enumerate(captions)
        for j, other in enumerate(captions)
        for at, word in enumerate(one.split())
        if len(one.split()) == len(other.split())
        and [k for k, (a, b) in enumerate(zip(one.split(), other.split(), strict=True)) if a != b] == [at]
    }
    assert {(word, i, j) for word, of in pairs.items() for i, j in of} == naive and len(naive) == 8
    many = one_word_apart([["a", str(i)] for i in range(9)])
    assert all(len(of) == OTHERS for of in many.values())


def test_the_nearest_feature_is_of_another_family_and_name() -> None:
    other = np.array([[1, 2, 3], [0, 2, -1], [3, -1, -1], [2, 1, 0]])
    names = [["dog"], ["dog"], ["dog", "red"], ["cat"]]
    assert nearest_others(other, np.array([0, 0, 2, 3]), names).tolist() == [3, -1, 3, 2]


def test_names_beside_hard_negatives() -> None:
    captions = [caption.split() for caption in ("a dog", "a cat", "a fox", "two dog")]
    z_nf = np.array([[3.0, 0, 1], [1, 2, 0], [3, 0, 0], [4, 0, 5]])
    image_nf = np.array([[0.0, 0, 0], [1, 2, 0], [0, 0, 0], [0, 0, 5]])
    held = Held(captions, csc_matrix(z_nf), csc_matrix(image_nf), [["dog"], ["cat"], ["none"]], np.array([1, 0, -1]))
    one_word = against_one_word(held)
    # dog: 3 beside 1 and beside 3; cat: 2 beside 0 and 0
    assert one_word.either.tolist() == [(1 + 0.5) / 2, 1.0] and one_word.image.tolist() == [(0 + 0.5) / 2, 1.0]
    nearest = against_nearest(held)
    # dog's 3 and 4 beside the cat feature's only sample, 1; cat's 2 beside those of the dog feature, all 0
    assert nearest.either.tolist() == [1.0, 1.0] and nearest.image.tolist() == [0.0, 1.0]


def test_a_stores_names_beside_hard_negatives(made_up: Store) -> None:
    held = Held.of_store(made_up)
    one = next(one for one in made_up.features.list(verdict="cross-modal", limit=50).items if one["label"])
    assert held.names[one["id"]] == words_of(one["label"].partition(" (")[0])
    assert 0 < len(held.captions) < made_up.n_samples
    assert held.either.shape == held.image.shape == (len(held.captions), made_up.n_features)
    either, image = held.either.toarray(), held.image.toarray()
    assert (either >= image).all() and (either != image).any()


PATCH = {"accuracy": 0.5, "removed": "drop", "of_full": {"value": 0.6, "low": 0.5, "high": 0.7}}


def test_patches_and_hallucination_fill_their_lines(make: Maker, tmp_path: Path) -> None:
    best = [{"score": name, "keep": k, **PATCH} for name in ("cosine-cross-modal", "random") for k in (50.0, 25.0)]
    best[1]["of_full"] = {"value": 0.4, "low": 0.3, "high": 0.5}
    out = [{"score": name, "knock_out": 25.0, **PATCH} for name in ("random", "cosine-cross-modal")]
    rate = {"value": 0.25, "low": 0.1, "high": 0.4}
    hallucination = {
        "ways": {name: {"hallucinated": rate, "accuracy": rate} for name in ("not steered", "towards right")},
        "against_random": {"hallucinated": {**rate, "value": -0.125}, "accuracy": None},
    }
    for name, content in (("patches", {"kept": best, "knocked_out": out}), ("hallucination", hallucination)):
        (tmp_path / name).write_text(json.dumps(content))
    lines = of_files(make(patches=tmp_path / "patches", hallucination=tmp_path / "hallucination"))
    enough, needed = lines["patches"]
    assert enough.estimate == best[1]["of_full"] and enough.name == "with the best 25 % alone"
    assert needed.name == "without the best 25 %" and "Random patches: 0.600" in needed.note
    fewer, right = lines["hallucination"]
    assert fewer.estimate is not None and fewer.estimate["value"] == -0.125 and right.estimate is None
    assert fewer.note.endswith("Share when steered 0.250, unsteered 0.250.")
    assert [figure.better for figure in (enough, needed, fewer, right)] == ["higher", "lower", "lower", "higher"]

    (tmp_path / "patches").write_text(json.dumps({"kept": best}))
    lacking = of_files(make(patches=tmp_path / "patches"))["patches"][1]
    assert "--knock-out" in lacking.note and lacking.needs is None, "the option was given: the file lacks the figure"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"line": ["steering=nothing.json"]}, "NAME=FILE#PATH"),
        ({"line": ["speed=a.json#b"]}, "NAME of patches, hallucination, steering"),
        ({"line": ["steering=FILE#nowhere"]}, "has no figure at nowhere"),
        ({"line": ["steering=no/such#x"]}, "There is no file or folder no/such"),
        ({"untrained": Path("FILE")}, "has no scorecard"),
        ({"patches": Path("LIST")}, "no result of `saevx patches`"),
        ({"hallucination": Path("FILE")}, "or of an older one"),
        ({"store": Path("OTHER")}, "was made with another SAE"),
        *(({name: Path("DEEP")}, "cannot be read") for name in ("patches", "hallucination")),
        ({"other_sae": ["nowhere/at/all"]}, "There is no folder nowhere|The hub has no SAE at nowhere"),
        *(({name: Path("PIPE")}, "is a pipe or a device") for name in ("patches", "hallucination", "untrained")),
        ({"line": ["steering=PIPE#nowhere"]}, "is a pipe or a device"),
    ],
)
def test_wrong_files_are_told_in_a_sentence(make: Maker, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    (tmp_path / "file.json").write_text("{}")
    if "store" in changed:
        write_store(tmp_path / "other", n=40)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.json")
    places = {name.upper(): str(tmp_path / f"{name}.json") for name in ("file", "list", "deep", "pipe")}
    places["OTHER"] = str(tmp_path / "other")

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(one) for one in value]
        text = str(value)
        for name, place in places.items():
            text = text.replace(name, place) if text in (name, f"steering={name}#nowhere") else text
        return type(value)(text)

    with pytest.raises(SaevxError, match=message):
        # before the model is loaded, and long before the evaluation has taken its hours
        evaluate(make(**{name: placed(value) for name, value in changed.items()}, model=str(tmp_path / "no model")))


def test_directions_are_compared_without_their_mean() -> None:
    rng = np.random.default_rng(0)
    shifted = rng.standard_normal((50, 8)) + 10
    assert abs(unit_centred(shifted).mean(0)).max() < 0.2
