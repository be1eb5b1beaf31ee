"""The filtering experiment, at its smallest: real scores, real tuning, a killed grid that goes on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.experiments.filtering import dpo, student
from precompute.experiments.filtering.dpo import preferences
from precompute.experiments.filtering.pairs import held_out, image_name, make_pairs
from precompute.experiments.filtering.run import Arm, Pool, arms, chosen_rows, run
from precompute.experiments.filtering.student import Bench
from precompute.experiments.options import FilteringOptions
from precompute.experiments.result_lines import read_lines
from tests.helpers.demo import Demo
from tests.helpers.in_process import saevx


@pytest.fixture(scope="module")
def pool() -> Pool:
    rng = np.random.default_rng(0)
    swapped = np.arange(50) % 3 == 0
    return Pool([f"pair-{i}" for i in range(50)], swapped, {"cosine": rng.random(50), "caption-nll": swapped * -1.0})


def test_each_arm_keeps_what_its_score_says(pool: Pool) -> None:
    assert chosen_rows(pool, Arm("full", 100.0), 0).tolist() == list(range(50))
    best = chosen_rows(pool, Arm("cosine", 20.0), 0)
    rest = np.setdiff1d(np.arange(50), best)
    assert len(best) == 10 and pool.value_n["cosine"][best].min() > pool.value_n["cosine"][rest].max()
    assert (chosen_rows(pool, Arm("cosine", 20.0), 1) == best).all(), "a score does not depend on the seed"


def test_the_oracle_keeps_true_pairs_and_chance_draws_anew(pool: Pool) -> None:
    assert not pool.swapped_n[chosen_rows(pool, Arm("oracle", 50.0), 0)].any()
    assert (chosen_rows(pool, Arm("random", 50.0), 0) != chosen_rows(pool, Arm("random", 50.0), 1)).any()
    # More than there are true pairs: all of them, and some others.
    most = chosen_rows(pool, Arm("oracle", 80.0), 0)
    assert set(np.flatnonzero(~pool.swapped_n)) < set(most.tolist())


def test_the_grid_begins_with_all_data() -> None:
    report = list(arms(FilteringOptions(scores=["cosine", "cosine"], keep=[20, 50])))
    assert report[0] == Arm("full", 100.0)
    assert report[1:3] == [Arm("cosine", 20.0), Arm("cosine", 50.0)]
    assert [arm.score for arm in report[3:]] == ["caption-nll", "caption-nll", "oracle", "oracle"]


@pytest.fixture(scope="module", autouse=True)
def small_training() -> Iterator[None]:
    """The starting projector learns for fewer steps, and a step is of fewer pairs: nothing here depends on how well
    anything is learnt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "START_STEPS", 10)
        patch.setattr(student, "AdapterTraining", partial(student.AdapterTraining, batch_size=2))
        patch.setattr(dpo, "BATCH", 2)
        yield


@pytest.fixture(scope="module")
def small(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> FilteringOptions:
    root = tmp_path_factory.mktemp("filtering")
    return FilteringOptions(
        demo=demo.root, work=root / "work", out=root / "found.jsonl", keep=[50], seeds=[0],
        scores=["pooled-cosine", "facility-location"],
        baselines=False, n_pairs=10, steps=2, n_test=3, n_start=64,
    )  # fmt: skip


def test_a_grid_that_was_killed_goes_on(small: FilteringOptions) -> None:
    run(small)
    report = read_lines(small.out)
    expected = [("full", 100.0), ("pooled-cosine", 50.0), ("facility-location", 50.0)]
    assert [(line["score"], line["keep"]) for line in report[1:]] == expected
    assert [line["n_kept"] for line in report[1:]] == [10, 5, 5]
    assert report[1]["n_swapped"] == 3
    for line in report[1:]:
        assert sum(line["right"]) / sum(line["asked"]) == line["accuracy"] <= 1
        assert len(line["right"]) == 3 and all(r <= a for r, a in zip(line["right"], line["asked"], strict=True))

    whole = small.out.read_text()
    small.out.write_text("".join(line + "\n" for line in whole.splitlines()[:3]))
    run(small)
    again = read_lines(small.out)
    for one, other in zip(report[1:], again[1:], strict=True):  # the same figures, whatever the time they took
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_results_of_other_options_are_not_mixed(small: FilteringOptions) -> None:
    run(small.model_copy(update={"out": small.out.with_name("other.jsonl"), "seeds": []}))
    with pytest.raises(SaevxError, match="other options"):
        run(small.model_copy(update={"out": small.out.with_name("other.jsonl"), "seeds": [], "n_pairs": 18}))


def test_wrong_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="Unknown score 'beauty'"):
        run(FilteringOptions(scores=["beauty"]))
    done = saevx("experiment", "filtering", "--demo", tmp_path)
    assert done.status == 1
    assert "holds no demo" in done.err and "Traceback" not in done.err


def test_preferences_are_tuned_by_trl(small: FilteringOptions) -> None:
    o = small.model_copy(
        update={"method": "dpo", "out": small.out.with_name("dpo.jsonl"), "steps": 1, "scores": ["oracle"]}
    )
    with pytest.raises(SaevxError, match="Unknown score"):
        run(o)  # the oracle is a baseline, not a score
    run(o.model_copy(update={"scores": ["cooccurring-l0"]}))
    report = read_lines(o.out)
    assert report[0]["about"]["options"]["method"] == "dpo"
    assert [line["n_kept"] for line in report[1:]] == [10, 5]
    assert all(0 <= line["accuracy"] <= 1 for line in report[1:])


def test_a_rejected_caption_is_the_chosen_with_one_word_changed(small: FilteringOptions) -> None:
    pairs = make_pairs(small.n_pairs, small.swapped)
    captions = [pair.caption for pair in pairs]
    bench = Bench(small.work / "10-30", [pair.scene for pair in pairs], captions, held_out(3), 64)
    images = [small.work / "10-30" / "data" / image_name(pair.sample_id) for pair in pairs]
    report = preferences(bench, images, np.arange(10), 0)
    assert report.column_names == ["images", "prompt", "chosen", "rejected"]
    for row in report:
        end = bench.tokenizer.eos_token
        chosen, rejected = (row[side].removesuffix(end).split() for side in ("chosen", "rejected"))
        changed = [(a, b) for a, b in zip(chosen, rejected, strict=True) if a != b and {a, b} != {"a", "an"}]
        assert len(changed) == 1
