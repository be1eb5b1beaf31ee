"""Measures the demo's finished store: planted pairs found, things found by word and by image.

    python -m precompute.demo.evaluation.evaluate_store --demo demo

Each part writes its figures to docs/results/demo-store.json as it ends; `--only` reruns one.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic_settings import CliApp
from scipy import stats
from sqlalchemy import func, select

from precompute.demo.dataset import PLANTED, share_nothing, swap_one_word
from precompute.demo.drawing import draw
from precompute.demo.evaluation.evaluate_families import Truth, family_figures, read_scenes
from precompute.demo.evaluation.evaluate_names import names
from precompute.demo.evaluation.evaluate_search import measure_search
from precompute.demo.evaluation.results import Results
from precompute.demo.scenes import make_scene
from precompute.live.engine import caption_nll, encode_pair
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.sae.directions import direction_figures
from precompute.sae.sae import SaeV
from precompute.scoring.pairs import NewPairs, Thumbnails, sample_of
from precompute.scoring.scores import FROM_LIKELIHOOD, Weights, pair_scores
from precompute.store.reader import Store
from precompute.store.schema import FALSE_DISCOVERY, SCORES, TESTED_VERDICTS, features, samples
from precompute.store.sql import fetch
from precompute.utils.command_line import CommandOptions, Count, Seed, Texts
from precompute.utils.stats import auroc
from precompute.utils.types import Array

FLAG_OF = {"swapped": "mismatch", "one-word": "mismatch"}
"""The flag a planted kind should raise, where it has another name."""


class StoreEvaluation(CommandOptions):
    """Measure the demo's finished store: planted pairs found, things found by word and by image."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made."""
    out: Path = Path("docs/results/demo-store.json")
    """File for the figures."""
    only: Texts = Field(default_factory=list)
    """Parts to measure again: planted, names, exchanged, search, headline, families; default: all."""
    n_validation: Count = 150
    """Validation scenes for the headline score."""
    n_held_out: Count = 400
    """Held-out scenes for families."""
    seed: Seed = 0
    """Seed of every random choice."""


def planted_of(store: Store) -> Array:
    """What is wrong with each sample, in row order; "" for a whole pair."""
    rows = fetch(store.engine, select(samples.c.extra).order_by(samples.c.row))
    return np.array([row.extra["planted"].split(":")[0] for row in rows], dtype=object)


def planted_figures(store: Store, o: StoreEvaluation) -> dict[str, Any]:
    """AUROC of every score for "this caption belongs to this image", whole captions and one word; and for
    each planted kind the share its flag finds, beside the flag's alarms among the whole pairs."""
    kind_n = planted_of(store)
    whole_n = kind_n == ""
    by_score = {}
    for name in SCORES:
        value_n = store.quality.score_values(name)
        by_score[name] = {
            fault: auroc(value_n[whole_n], value_n[kind_n == fault], o.seed) for fault in ("swapped", "one-word")
        }
    result = {}
    for kind in PLANTED:
        flag = FLAG_OF.get(kind, kind)
        hit_n = store.quality.flagged(flag)
        result[kind] = {
            "flag": flag,
            "planted": int((kind_n == kind).sum()),
            "found": int(hit_n[kind_n == kind].sum()),
            "alarms_among_whole_pairs": int(hit_n[whole_n].sum()),
        }
    return {
        "planted_auroc": by_score,
        "planted_flags": result,
        "n_whole_pairs": int(whole_n.sum()),
        "mismatch_rests_on": store.manifest.get("mismatch_score"),
    }


class Reader:
    """Live pairs against one store."""

    def __init__(self, store: Store, mllm: Mllm, sae: SaeV) -> None:
        self.store, self.mllm, self.sae = store, mllm, sae
        self.weights = Weights.from_store(store)

    def scores(self, text: str, image: Image.Image) -> dict[str, float]:
        encoded_pair = encode_pair(self.mllm, self.sae, self.store.manifest, Pair(text, [image]))
        nll_3 = caption_nll(self.mllm, Pair(text, [image]))
        sample = sample_of(encoded_pair, [image], nll_3)
        pair = NewPairs(self.store, [sample], [text], Thumbnails([], np.zeros(0, np.int64)))
        return {name: float(value[0]) for name, value in pair_scores(pair, self.weights).items()}


def headline(reader: Reader, o: StoreEvaluation) -> dict[str, Any]:
    """The same AUROC on validation scenes, whose wrong captions the model really reads beside the image.
    The headline score is the best on these; the demo's planted pairs have no say in it."""
    scenes = [make_scene("validation", 200_000 + i) for i in range(o.n_validation)]
    rng = np.random.default_rng(o.seed)
    value: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in SCORES} for kind in ("own", "swapped", "one-word")
    }
    for scene in scenes:
        image = draw(scene)
        other_scene = next(s for i in rng.permutation(len(scenes)) if share_nothing(scene, s := scenes[i]))
        texts = {"own": scene.caption, "swapped": other_scene.caption}
        texts["one-word"] = swap_one_word(scene.caption, rng)[0]
        for kind, text in texts.items():
            for name, score in reader.scores(text, image).items():
                value[kind][name].append(score)
    result = {
        name: {
            fault: auroc(np.array(value["own"][name]), np.array(value[fault][name]), o.seed)
            for fault in ("swapped", "one-word")
        }
        for name in SCORES
    }

    def auroc_of_swapped(name: str) -> float:
        estimate = result[name]["swapped"]
        return estimate["value"] if estimate else 0.0

    from_sae = [name for name in SCORES if name not in FROM_LIKELIHOOD and name != "random"]
    return {"validation_auroc": result, "headline": max(from_sae, key=auroc_of_swapped), "n_validation": len(scenes)}


def families(reader: Reader, o: StoreEvaluation) -> dict[str, Any]:
    """Whether families are right, on held-out scenes; and what the directions of the SAE share."""
    store, family_f = reader.store, reader.store.features.family
    verdicts = fetch(store.engine, select(features.c.verdict).order_by(features.c.id))
    alive_f = np.array([row.verdict != "dead" for row in verdicts])
    scenes = [make_scene("validation", 500_000 + i) for i in range(o.n_held_out)]
    truth = Truth(read_scenes(reader.mllm, reader.sae, store.manifest, scenes))
    norm_weight, unembedding = reader.mllm.logit_lens_weights()
    directions = direction_figures(
        reader.sae.directions_fd.numpy(),
        alive_f,
        None if norm_weight is None else norm_weight.numpy(),
        unembedding.numpy(),
    )
    figures = family_figures(family_f, alive_f, truth, np.random.default_rng(o.seed))
    return {"families": {**figures, "scenes": len(scenes), "near_copies": store.manifest["families"]["near_copies"],
                         "directions": directions}}  # fmt: skip


def exchange_figures(store: Store, o: StoreEvaluation) -> dict[str, Any]:
    """The control that ought to fail: the same pass with the images exchanged among the pairs."""
    manifest = store.manifest
    with tempfile.TemporaryDirectory() as scratch:
        store_path = precompute(
            PrecomputeOptions(
                data=str(o.demo / "data"),
                model=str(o.demo / "model"),
                sae=str(o.demo / "sae"),
                out=Path(scratch) / "store",
                shuffle_images=True,
                seed=manifest["options"]["seed"],
            )
        )
        exchanged_store = Store.open(store_path)
        result = {"true": omega_figures(store), "images_exchanged": omega_figures(exchanged_store)}
        exchanged_store.close()
    return {"shuffled_images": result}


OMEGA_EDGES = np.round(np.arange(-0.2, 1.0001, 0.05), 2)


def omega_figures(store: Store) -> dict[str, Any]:
    """ω and its controls over the features that could be tested, and how many have each verdict."""
    c = features.c
    names = ("omega", "omega_baseline", "omega_centred", "omega_without_self", "lift", "lift_without_self")
    columns = [c[name] for name in (*names, "lift_low", "modality_share", "same_sample_rate", "p_value")]
    rows = fetch(store.engine, select(*columns).where(c.p_value.is_not(None)))
    counts = fetch(store.engine, select(c.verdict, func.count().label("n")).group_by(c.verdict))
    verdicts = dict(sorted((str(row.verdict), int(row.n)) for row in counts))
    value = {name: np.array([getattr(row, name) for row in rows], dtype=float) for name in names}
    return {
        "cross_modal": int(verdicts.get("cross-modal", 0)),
        "pair_tested": sum(verdicts.get(name, 0) for name in TESTED_VERDICTS),
        "t_test_passed": int((stats.false_discovery_control([row.p_value for row in rows]) <= FALSE_DISCOVERY).sum()),
        "tested": len(rows),
        "mean_same_sample_rate": round(float(np.mean([row.same_sample_rate for row in rows])), 3),
        "verdicts": verdicts,
        "lift_above_zero": sum(row.lift_low > 0 for row in rows),
        "quantiles": {
            name: dict(zip(("p5", "median", "p95"), np.round(np.percentile(x_f, [5, 50, 95]), 3).tolist(), strict=True))
            for name, x_f in value.items()
        },
        "edges": OMEGA_EDGES.tolist(),
        "counts": {
            name: np.histogram(np.clip(value[name], OMEGA_EDGES[0], OMEGA_EDGES[-1]), OMEGA_EDGES)[0].tolist()
            for name in ("omega", "omega_baseline", "omega_centred", "omega_without_self")
        },
    }


def main() -> None:
    o = CliApp.run(StoreEvaluation)
    store = Store.open(o.demo / "store")
    results = Results(o.out, "precompute.demo.evaluation.evaluate_store", o, {"demo", "out", "only"}, o.only)
    results.figures["about"] |= {"content_id": store.manifest["content_id"], "sae": store.manifest["sae"]["sha256"]}
    results.measure("planted", lambda: planted_figures(store, o))
    results.measure("names", lambda: names(store))
    results.measure("exchanged", lambda: exchange_figures(store, o))
    if not results.wants("search", "headline", "families"):
        return
    sae = SaeV.load(o.demo / "sae")
    reader = Reader(store, Mllm.load(o.demo / "model", layer=sae.layer, full=True), sae)
    results.measure("search", lambda: measure_search(store, reader.mllm, sae))
    results.measure("headline", lambda: headline(reader, o))
    results.measure("families", lambda: families(reader, o))


if __name__ == "__main__":
    main()
