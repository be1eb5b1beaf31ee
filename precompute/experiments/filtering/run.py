"""`saevx experiment filtering`: does a model learn more from the pairs that a score keeps?

The demo's model and SAE-V score pairs that are new to them, some with another's caption; a fresh model is tuned on
what each score keeps, with the same number of steps, and asked about held-out scenes. One line a run, appended as it
ends."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from precompute.errors import SaevxError
from precompute.experiments.filtering.dpo import prefer
from precompute.experiments.filtering.pairs import held_out, image_name, make_pairs, write_pairs
from precompute.experiments.filtering.student import ORDER, Bench
from precompute.experiments.filtering.vectors import pair_vectors
from precompute.experiments.options import FilteringOptions
from precompute.experiments.result_lines import append_line, read_lines
from precompute.options.score import ScoreOptions
from precompute.scoring.facility_location import representative_items
from precompute.scoring.new_data import score_data
from precompute.scoring.score_file import rows_of
from precompute.scoring.scores import chance
from precompute.store.quality import best_rows_of, n_kept
from precompute.store.reader import Store
from precompute.store.schema import SCORES, SELECTIONS, score_column
from precompute.utils.progress import say
from precompute.utils.provenance import machine

BASELINES = ("caption-nll", "oracle")
SAME = ("method", "swapped", "n_pairs", "steps", "n_test", "n_start")
"""Options that all lines of a result file share."""


class Arm(NamedTuple):
    """Which pairs a run is tuned on."""

    score: str
    """`full` keeps all."""
    keep: float


class Pool(NamedTuple):
    """The pairs to choose from, by row."""

    ids: list[str]
    swapped_n: np.ndarray
    """bool: whether the caption is another image's."""
    value_n: dict[str, np.ndarray]
    """float64: each score, by name."""
    vectors_nd: np.ndarray | None = None
    """float32: sample vectors, where a set is chosen by them."""


def run(options: FilteringOptions) -> None:
    """Every run of the grid that the result file does not hold yet.

    Raises:
        SaevxError: no demo, an unknown score, a result file of other options.
    """
    o = options
    if unknown_scores := sorted(set(o.scores) - {*SCORES, *SELECTIONS}):
        raise SaevxError(f"Unknown score {unknown_scores[0]!r}: choose among {', '.join([*SCORES, *SELECTIONS])}.")
    if not (o.demo / "store").exists():
        raise SaevxError(f"{o.demo} holds no demo: make it with `saevx demo --dir {o.demo} --no-serve`.")
    store = Store.open(o.demo / "store")
    begin(o, store.manifest["content_id"])
    store.close()
    pairs = make_pairs(o.n_pairs, o.swapped)
    work = o.work / f"{o.n_pairs}-{round(100 * o.swapped)}"
    if not (work / "data" / "metadata.jsonl").exists():
        write_pairs(work / "data", pairs)
    if not (work / "scores.jsonl").exists():
        score_data(ScoreOptions(data=str(work / "data"), store=o.demo / "store", out=work / "scores.jsonl", nll=True))
    pool = read_pool(work / "scores.jsonl", [pair.swapped for pair in pairs])
    if set(o.scores) & set(SELECTIONS):
        pool = pool._replace(vectors_nd=pair_vectors(work / "vectors.npy", pairs, o.demo))
    captions = [pair.caption for pair in pairs]
    bench = Bench(work, [pair.scene for pair in pairs], captions, held_out(o.n_test), o.n_start)
    for seed in o.seeds:
        for arm in arms(o):
            # Read again each time: a second process may work on the same grid from its other end.
            if any(line["seed"] == seed and Arm(line["score"], line["keep"]) == arm for line in read_lines(o.out)[1:]):
                continue
            append_line(o.out, measure(bench, pool, arm, seed, o, work / "data"))


def begin(o: FilteringOptions, content_id: str) -> None:
    """The first line of the result file, or a check that it is this experiment's."""
    about: dict[str, Any] = {
        "command": "saevx experiment filtering",
        "options": {name: getattr(o, name) for name in SAME},
        "kinds": list(ORDER),
        "content_id": content_id,
        "torch": torch.__version__,
        "machine": machine(),
    }
    if not (old_lines := read_lines(o.out)):
        append_line(o.out, {"about": about})
        return
    old_about = old_lines[0].get("about") or {}
    if any(old_about.get(name) != about[name] for name in ("command", "options", "content_id")):
        raise SaevxError(f"{o.out} holds runs with other options or another demo: choose another --out or delete it.")


def read_pool(path: Path, swapped: list[bool]) -> Pool:
    """Scores of the pairs as `saevx score` wrote them, in the data's order."""
    rows = list(rows_of(path, ("id", *map(score_column, SCORES))))
    value_n = {
        name: np.array([np.nan if (v := row[score_column(name)]) is None else v for row in rows], dtype=np.float64)
        for name in SCORES
    }
    return Pool([str(row["id"]) for row in rows], np.array(swapped), value_n)


def arms(o: FilteringOptions) -> Iterator[Arm]:
    """All runs of one seed: full first, since every other is held against it."""
    yield Arm("full", 100.0)
    for score in dict.fromkeys([*o.scores, *(BASELINES if o.baselines else ())]):
        yield from (Arm(score, keep) for keep in o.keep)


def chosen_rows(pool: Pool, arm: Arm, seed: int) -> np.ndarray:
    """Rows that an arm keeps. `random` draws other rows for each seed; the oracle draws among the true pairs first."""
    all_rows = np.ones(len(pool.ids), dtype=bool)
    if arm.score == "full":
        return np.flatnonzero(all_rows)
    if arm.score in SELECTIONS:
        assert pool.vectors_nd is not None
        return representative_items(pool.vectors_nd, n_kept(len(pool.ids), arm.keep))
    value_n = pool.value_n.get(arm.score)
    if arm.score in ("random", "oracle"):
        value_n = chance(pool.ids, seed) + (~pool.swapped_n if arm.score == "oracle" else 0.0)
    assert value_n is not None
    return best_rows_of(value_n, all_rows, arm.keep)


def measure(bench: Bench, pool: Pool, arm: Arm, seed: int, o: FilteringOptions, data: Path) -> dict[str, Any]:
    began = time.monotonic()
    rows = chosen_rows(pool, arm, seed)
    if o.method == "dpo":
        images = [data / image_name(sample_id) for sample_id in pool.ids]
        student = prefer(bench, images, rows, o.steps, seed)
    else:
        student = bench.tune(rows, o.steps, seed)
    answers = bench.answer(student)
    expected_k, right_k = answers.expected_nk.sum(0), answers.right_nk.sum(0)
    line = {
        **arm._asdict(),
        "seed": seed,
        "n_kept": len(rows),
        "n_swapped": int(pool.swapped_n[rows].sum()),
        "accuracy": float(right_k.sum() / expected_k.sum()),
        "by_kind": {name: float(right_k[k] / max(expected_k[k], 1)) for k, name in enumerate(ORDER)},
        # Of each held-out scene, so that intervals can pair runs by scene.
        "right": answers.right_nk.sum(1).tolist(),
        "asked": answers.expected_nk.sum(1).tolist(),
        "seconds": round(time.monotonic() - began),
    }
    say(f"{arm.score} {arm.keep:g} %, seed {seed}: accuracy {line['accuracy']:.3f}, {line['seconds']} s")
    return line
