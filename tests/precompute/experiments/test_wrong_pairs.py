"""Wrong captions that are wrong in one word, how well they are told apart, and the command on the tests' demo."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from precompute.demo.dataset import SWAP_GROUPS, SWAP_KINDS, swap_one_word
from precompute.demo.scenes import NUMBERS, centre, corner
from precompute.errors import SaevxError
from precompute.experiments import wrong_pairs as W
from precompute.experiments.script import run_script
from precompute.experiments.support.compare import SUPPORT, WAYS
from precompute.experiments.wrong_pairs import Case
from precompute.store.schema import SCORES
from tests.helpers.demo import Demo


def changed(case: Case) -> list[int]:
    """Places of the words that differ, articles aside."""
    right, wrong = case.right.replace(",", "").split(), case.wrong.replace(",", "").split()
    assert len(right) == len(wrong)
    return [i for i, (a, b) in enumerate(zip(right, wrong, strict=True)) if a != b and a not in ("a", "an")]


def is_true(case: Case, place: int) -> bool:
    """Whether the scene is as the exchanged word says, by the scene's own record."""
    words, things = case.wrong.replace(",", "").split(), case.scene.entities
    word = words[place]
    if case.kind == "noun":
        return word in {e.noun for e in things}
    if case.kind == "colour":
        message = words[place + 1]
        if message == "background":
            return word == case.scene.background
        return any(message.removesuffix("s") == e.noun and word == e.colour for e in things)
    if case.kind == "number":
        return NUMBERS.get(len(things)) == word
    if len(things) == 1:
        return str(corner(things[0])) in case.wrong
    (ax, ay), (bx, by) = (centre(e) for e in things)
    return {"left": ax < bx, "right": ax > bx, "above": ay < by, "below": ay > by}[word]


@pytest.mark.parametrize("kind", W.ONE_WORD)
def test_one_word_of_the_kind_makes_the_caption_false(kind: str) -> None:
    cases = W.cases_of(kind, 60, 800_000, np.random.default_rng(0))
    assert len(cases) == 60 and len({case.scene.index for case in cases}) == 60
    for case in cases:
        (place,) = changed(case)
        old, new = (text.replace(",", "").split()[place] for text in (case.right, case.wrong))
        (group,) = (g for g, group in enumerate(SWAP_GROUPS) if old in group)
        assert SWAP_KINDS[group] == kind and new in SWAP_GROUPS[group]
        before = case.wrong.replace(",", "").split()[place - 1] if place else ""
        assert before not in ("a", "an") or (before == "an") == (new[0] in "aeiou")
        assert case.right == case.scene.caption and not is_true(case, place), case
    assert cases == W.cases_of(kind, 60, 800_000, np.random.default_rng(0))


def test_whole_swaps_share_no_thing_with_the_scene() -> None:
    cases = W.cases_of("whole", 30, 800_000, np.random.default_rng(0))
    for case in cases:
        message = {w.removesuffix("s") for w in case.wrong.replace(",", "").split()}
        assert not message & {e.noun for e in case.scene.entities}
        assert case.wrong in {other.scene.caption for other in cases} and case.wrong != case.right
    with pytest.raises(SaevxError, match="more scenes"):
        W.cases_of("whole", 1, 800_000, np.random.default_rng(0))


def test_the_demo_sets_own_swaps_are_as_they_were() -> None:
    """A kind asked for only narrows the choice: without one, every word of a group may be exchanged."""
    kinds = {swap_one_word("a red circle above two dogs", np.random.default_rng(i))[1] for i in range(40)}
    assert kinds == {"noun", "colour", "number", "place"}


def test_told_apart_against_loops() -> None:
    rng = np.random.default_rng(0)
    cases = [case for kind in W.KINDS for case in W.cases_of(kind, 4, 800_000, np.random.default_rng(0))]
    right, wrong = ({name: rng.integers(0, 5, len(cases)).astype(float) for name in ("l0", "random")} for _ in range(2))
    wrong["l0"][0] = np.nan
    result = W.separability(cases, [right, wrong], 0)
    assert set(result) == {*W.KINDS, "one-word"} and result["one-word"]["n_scenes"] == 16
    for kind in result:
        rows = [i for i, c in enumerate(cases) if c.kind == kind or (kind == "one-word" and c.kind != "whole")]
        for name in right:
            below = [(a > b) + 0.5 * (a == b) for a in right[name][rows] for b in wrong[name][rows] if not np.isnan(b)]
            measured = result[kind]["auroc"][name]
            assert measured["value"] == pytest.approx(np.mean(below))
            assert measured["low"] <= measured["value"] <= measured["high"]


def test_the_headline_is_the_best_score_from_the_sae() -> None:
    value = dict.fromkeys((*SCORES, *W.UNSUPPORTED, *SUPPORT), 0.6) | {"l0": 0.7, "cosine": 0.8}
    value |= {"caption-nll": 1.0, "image-gain": 1.0}
    measured = {kind: {"auroc": {name: {"value": v} for name, v in value.items()}} for kind in W.KINDS}
    measured["whole"]["auroc"]["cosine"] = None  # type: ignore[assignment]
    name, mean = W.headline(measured)
    assert name == "l0" and mean["l0"] == pytest.approx(0.7) and mean["cosine"] == pytest.approx(0.8 * 4 / 5)
    assert "caption-nll" not in mean and "random" not in mean


def test_the_command_on_a_demo(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results" / "wrong-pairs.json"
    options = ["--demo", demo.root, "--out", out, "--n-scenes", 3, "--n-choice", 2, "--n-train", 16]
    monkeypatch.setattr(sys, "argv", ["wrong_pairs", *map(str, options)])
    # The two kinds by which the parts of `position-support` are chosen; cases of each kind are tested above.
    monkeypatch.setattr(W, "ONE_WORD", ("number", "place"))
    monkeypatch.setattr(W, "KINDS", ("whole", *W.ONE_WORD))
    run_script(W.Options, W.__doc__)
    text = out.read_text()
    result = json.loads(text)
    assert str(demo.root) not in text and result["about"]["options"]["n_scenes"] == 3
    assert set(result["kinds"]) == {*W.KINDS, "one-word"} and result["headline"]["name"] in W.FROM_SAE
    whole = result["kinds"]["whole"]["auroc"]
    assert set(whole) == set(result["scores"]) == {*SCORES, *SUPPORT, "caption-nll-alone", "unsupported"}
    assert set(result["support"]["chosen"]) == set(result["support"]["ways"]) == set(WAYS)
    assert whole["pooled-cosine"]["value"] > 0.9 and whole["caption-nll"]["value"] > 0.9
    for kind in W.ONE_WORD:
        example = result["kinds"][kind]["example"]
        assert example["right"] != example["wrong"]
