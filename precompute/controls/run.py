"""`saevx controls`: pass rates of the test behind `cross-modal` where it ought to fail (METHOD, *Pair evidence*)."""

from pathlib import Path
from typing import Any

import numpy as np

from precompute.controls.random_directions import TooFewPairsError, random_directions
from precompute.controls.sides import Sides
from precompute.errors import SaevxError
from precompute.options.controls import ControlsOptions
from precompute.steps.cooccur import MAX_SAMPLES
from precompute.steps.evidence.pair_evidence import MIN_LIFT, Evidence, can_be_tested, evidence_of
from precompute.store.companion_files import CONTROLS, companion_path
from precompute.store.core import feature_columns
from precompute.store.reader import Store
from precompute.store.schema import FALSE_DISCOVERY, KEPT_MAXIMA
from precompute.utils.files import write_json
from precompute.utils.ownership import exclusive_file
from precompute.utils.progress import say
from precompute.utils.provenance import code_version
from precompute.utils.stats import discoveries, share_interval
from precompute.utils.types import Array

TIME_LIMIT_S = 600.0
"""For a query of the whole table of features."""
DERANGEMENTS = {"name": "derangements", "title": "captions exchanged"}
DIRECTIONS = {"name": "random-directions", "title": "random directions"}
TEXT_ALONE = {"name": "text-alone", "title": "text without its image"}


def controls(options: ControlsOptions) -> Path:
    """Compute the controls of a finished store and write them. Returns the file.

    Raises:
        SaevxError: no store, or one without pairs of text and image.
    """
    out = options.out or companion_path(options.store, CONTROLS)
    with exclusive_file(out):
        result = measure(options)
        write_json(out, result)
    say(f"cross-modal: {in_words(result['cross_modal'])}")
    for row in result["controls"]:
        say(f"{row['name']}: {in_words(row) if row['tested'] else 'left out'}. {row['note']}")
    return out


def measure(o: ControlsOptions) -> dict[str, Any]:
    """The controls of a finished store, as their file has them."""
    store = Store.open(o.store, TIME_LIMIT_S)
    try:
        columns = evidence_columns(store)
        by_chance = directions(store, o, columns["verdict"])
        rows = [derangements(store, o, columns["lift_low"]), by_chance, text_alone(columns)]
        n_tested = int(np.isfinite(columns["pair_p"]).sum())
        cross_modal = int((columns["verdict"] == "cross-modal").sum())
        return {
            "store": store.manifest["name"],
            "content_id": store.manifest["content_id"],
            "seed": o.seed,
            "code_version": code_version(),
            "cross_modal": share_of(cross_modal, n_tested),
            "controls": rows,
        }
    finally:
        store.close()


def in_words(row: dict[str, Any]) -> str:
    return f"{100 * row['share']:.1f} % of {row['tested']} tested" if row["tested"] else "none could be tested"


def share_of(n_passed: int, n_tested: int) -> dict[str, Any]:
    """How many pass, with Wilson's interval of the share; nulls where none could be tested."""
    share = share_interval(n_passed, n_tested) or dict.fromkeys(("value", "low", "high"))
    return {"tested": n_tested, "passed": n_passed, "share": share["value"], "low": share["low"], "high": share["high"]}


def evidence_columns(store: Store) -> dict[str, Array]:
    """Of every feature what the store says: float64 [F] with NaN for null, `verdict` str [F]."""
    names = ("lift_low", "pair_p", "pair_lift_alone", "pair_p_alone")
    verdict_f = feature_columns(store.engine, "verdict", dtype=str)[:, 0]
    return {"verdict": verdict_f, **dict(zip(names, feature_columns(store.engine, *names).T, strict=True))}


def passes(evidence: Evidence, lift_low: Array) -> Array:
    """bool [F]: all that `cross-modal` asks for but the text alone.

    Args:
        lift_low: float64 [F], lower end of ω's lift.
    """
    return evidence.is_strong & ~(lift_low <= 0)


def derangements(store: Store, o: ControlsOptions, lift_low: Array) -> dict[str, Any]:
    """The captions exchanged among the pairs of one stratum, again and again."""
    sides = Sides.read(store, MAX_SAMPLES)
    counts = sides.counts()
    is_tested = can_be_tested(counts)
    own_passes = passes(evidence_of(counts, is_tested), lift_low)
    rng = np.random.default_rng(o.seed)
    shuffled_counts = (sides.counts(sides.draw_exchange(rng)) for _ in range(o.derangements))
    draws = [int(passes(evidence_of(counts, is_tested), lift_low).sum()) for counts in shuffled_counts]
    n = int(is_tested.sum())
    source = "all activations" if store.events.kept_rows is None else f"the {KEPT_MAXIMA} largest maxima of each side"
    note = (
        f"Captions exchanged among pairs of one caption length, {o.derangements} times, without the condition on the "
        f"text alone; read from {source} of {len(sides.row)} pairs."
    )
    return {
        **DERANGEMENTS, "tested": n, "passed": float(np.mean(draws)),
        **{key: float(value) / n if n else None
           for key, value in (("share", np.mean(draws)), ("low", min(draws)), ("high", max(draws)))},
        "own": float(own_passes.sum()) / n if n else None, "draws": draws, "note": note,
    }  # fmt: skip


def directions(store: Store, o: ControlsOptions, verdict_f: Array) -> dict[str, Any]:
    """Random directions of h, each active as often as a feature of the store.

    Args:
        verdict_f: str [F].
    """
    left_out = {**DIRECTIONS, **share_of(0, 0), "own": None}
    if not o.random_directions:
        return {**left_out, "note": "Left out by --no-random-directions."}
    try:
        outcome = random_directions(store, o)
    except TooFewPairsError as error:
        return {**left_out, "note": str(error)}
    except SaevxError as error:
        return {**left_out, "note": f"Left out, as it needs the store's model and data: {error}"}
    can_f = np.isfinite(outcome.of_directions.p)  # a direction may be on too few texts or images to be tested
    is_strong, tested_features, n = outcome.of_directions.is_strong, outcome.feature[can_f], int(can_f.sum())
    passes_all, conditions = is_strong, "ω's lift and on the text alone"
    if store.manifest["options"].get("text_alone"):
        passes_all, conditions = is_strong & outcome.of_text_alone.is_strong, "ω's lift"
    note = (
        "Random directions of the same residual stream, each active on as large a share of text tokens and of image "
        f"tokens as one of the features; on {outcome.n_pairs} pairs, without the condition on {conditions}. Without "
        f"the text alone {100 * int(is_strong.sum()) / max(n, 1):.1f} % pass."
    )
    return {
        **DIRECTIONS,
        **share_of(int(passes_all.sum()), n),
        "own": float((verdict_f[tested_features] == "cross-modal").mean()) if n else None,
        "note": note,
    }


def text_alone(columns: dict[str, Array]) -> dict[str, Any]:
    """Features that pass with their text run without its image."""
    p = columns["pair_p_alone"]
    is_tested = np.isfinite(p)
    if not is_tested.any():
        reason = "No feature could be tested, or the store was made with --no-text-alone."
        return {**TEXT_ALONE, **share_of(0, 0), "own": None, "note": reason}
    # A dense feature passes by its φ, which the store does not keep; its verdict says whether it did.
    is_strong = np.nan_to_num(columns["pair_lift_alone"]) >= MIN_LIFT
    passes_all = discoveries(p, FALSE_DISCOVERY) & is_strong | (columns["verdict"] == "cross-modal")
    with_image = np.isin(columns["verdict"], ("cross-modal", "in-context"))
    note = "Texts run without their images: what is lost is what attention carried over from the image."
    return {
        **TEXT_ALONE,
        **share_of(int(passes_all.sum()), int(is_tested.sum())),
        "own": float(with_image.sum() / is_tested.sum()),
        "note": note,
    }
