"""Measures on the demo whether ablating a feature that is named by a thing lowers the thing's word as the next token.

    python -m precompute.demo.evaluation.evaluate_effect --demo demo

The figures go to docs/results/demo-effect.json. Beside each stands the step of the same length along a random feature.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_settings import CliApp
from sqlalchemy import select

from precompute.demo.evaluation.results import Results
from precompute.demo.scenes import OBJECTS
from precompute.live.effect import N_PAIRS, Change, choose_control, measure_effect, strongest_samples
from precompute.live.originals import Originals
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.store.schema import GOOD_NAME, features
from precompute.store.sql import fetch
from precompute.utils.command_line import CommandOptions, Count, Seed
from precompute.utils.stats import hit_share
from precompute.utils.text import name_words

N_LOWERED = 10
"""Most lowered tokens among which the word must stand."""
ROWS = ("ablated", "control")
ORDERS = ("probability", "logprob")
"""By what the tokens are ordered: mean change of probability, or of log-probability."""


class EffectEvaluation(CommandOptions):
    """Measure whether ablating a feature named by a thing lowers the thing's word."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made."""
    out: Path = Path("docs/results/demo-effect.json")
    """File for the figures."""
    n_features: Count = 40
    """Features measured, drawn at random from those named by a thing."""
    seed: Seed = 0
    """Seed of the draw."""


def noun_features(store: Store) -> list[tuple[int, str, str]]:
    """Number, first word of the name and verdict of the features whose name passes its test and begins with a thing of
    the scenes."""
    c = features.c
    rows = fetch(
        store.engine,
        select(c.id, c.label, c.verdict).where(c.label_score >= GOOD_NAME, c.verdict != "dead").order_by(c.id),
    )
    words = ((row.id, (name_words(row.label) or [""])[0], row.verdict) for row in rows)
    return [word_row for word_row in words if word_row[1] in OBJECTS]


def first_tokens(mllm: Mllm, word: str) -> list[int]:
    """The tokens with which the word can begin: with and without a space before it, small and capital."""
    spellings = [space + form for space in (" ", "") for form in (word, word.capitalize())]
    return sorted({mllm.tokenizer(spelling, add_special_tokens=False)["input_ids"][0] for spelling in spellings})


def rank_of(change: Change, tokens: Sequence[int], order: str) -> int:
    """How many tokens are lowered more than the one of these that is lowered most."""
    values_v = change.probability_v if order == "probability" else change.logprob_v
    return int((values_v < values_v[tokens].min()).sum())


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares over measured features, for both orders and both rows, by how much the word falls, and the KLs."""
    ranks: dict[str, Any] = {
        order: {side: hit_share([r["rank"][order][side] < N_LOWERED for r in rows]) for side in ROWS}
        for order in ORDERS
    }
    return {
        **ranks,
        "first": {side: hit_share([r["rank"]["probability"][side] == 0 for r in rows]) for side in ROWS},
        "falls_more": hit_share([r["word"]["ablated"] < r["word"]["control"] for r in rows]),
        "median_logprob": {side: float(np.median([r["word"][side] for r in rows])) for side in ROWS},
        "median_kl": {side: float(np.median([r["kl"][side] for r in rows])) for side in ROWS},
    }


def measure(store: Store, mllm: Mllm, sae: SaeV, o: EffectEvaluation) -> dict[str, Any]:
    """The share of features for which the name's word stands among the ten most lowered tokens."""
    nouns = noun_features(store)
    feature_indices = sorted(np.random.default_rng(o.seed).permutation(len(nouns))[: o.n_features].tolist())
    originals, rows = Originals(store), []
    for k, word, verdict in (nouns[i] for i in feature_indices):
        control = choose_control(store, sae, k, o.seed)
        pairs = [originals.pair(row) for row in strongest_samples(store, k).values()]
        effect = measure_effect(mllm, sae, store.manifest, pairs, (k, control)) if control is not None else None
        if effect is None:
            continue
        tokens = first_tokens(mllm, word)
        changes = {"ablated": effect.ablation, "control": effect.control}
        rows.append(
            {
                "feature": k,
                "name": word,
                "verdict": verdict,
                "rank": {by: {side: rank_of(change, tokens, by) for side, change in changes.items()} for by in ORDERS},
                "word": {side: float(change.logprob_v[tokens].min()) for side, change in changes.items()},
                "kl": {side: change.kl for side, change in changes.items()},
            }
        )
        print(k, word, rows[-1]["rank"], flush=True)
    by_verdict: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_verdict[row["verdict"]].append(row)
    return {
        "n_noun_features": len(nouns),
        "n_drawn": len(feature_indices),
        "n_pairs": N_PAIRS,
        "all": summarise(rows),
        "by_verdict": {name: summarise(verdict_rows) for name, verdict_rows in sorted(by_verdict.items())},
        "features": rows,
    }


def main() -> None:
    o = CliApp.run(EffectEvaluation)
    results = Results(o.out, "precompute.demo.evaluation.evaluate_effect", o, {"demo", "out"}, [])
    store = Store.open(o.demo / "store")
    sae = SaeV.load(str(o.demo / "sae"))
    mllm = Mllm.load(o.demo / "model", layer=sae.layer, full=True, dtype="float32")
    results.measure("effect", lambda: measure(store, mllm, sae, o))


if __name__ == "__main__":
    main()
