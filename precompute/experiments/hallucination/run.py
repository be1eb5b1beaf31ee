"""`saevx experiment hallucination`: features that are on when an answer about an object is right and off when the model
sees what is not there (SAVE's separation), steered both ways, beside random features with a change as long."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.errors import SaevxError
from precompute.experiments.hallucination.questions import (
    ABSENT,
    Question,
    Seen,
    demo_scenes,
    nouns_of,
    own_scenes,
    questions_about,
)
from precompute.experiments.options import HallucinationOptions
from precompute.live.engine import load_engine
from precompute.live.intervention import Intervention, Steer
from precompute.model.batch import IMAGE, TEXT, Batch, Pair
from precompute.model.hooks import capture, replace
from precompute.model.mllm import Mllm
from precompute.options.shared import StoreModel
from precompute.sae.encode import Scale, encode_batch
from precompute.sae.sae import SaeV
from precompute.store.companion_files import HALLUCINATION, companion_path
from precompute.store.reader import Store
from precompute.utils.files import check_file, write_json
from precompute.utils.progress import say
from precompute.utils.provenance import machine
from precompute.utils.stats import auroc, bootstrap_weights, interval, spearman
from precompute.utils.types import Array

BATCH, CAPTION_TOKENS, RESAMPLES = 16, 24, 2000
YES, NO = ("yes", " yes", "Yes", " Yes"), ("no", " no", "No", " No")
Unit = dict[int, float]
"""Features and their p99.9."""


class Model(NamedTuple):
    """What answers."""

    mllm: Mllm
    sae: SaeV
    scale: Scale

    def steering(self, batch: Batch, unit: Unit, strength: float) -> AbstractContextManager[None]:
        """While open, the features act on every text, image and written token."""
        if not strength:
            return nullcontext()
        steer = Steer(self.sae, [Intervention(k, "add", strength, size) for k, size in unit.items()])
        own_bs = torch.from_numpy((batch.modality_bs == TEXT) | (batch.modality_bs == IMAGE))

        def change(hidden_bsd: Tensor) -> Tensor:
            if hidden_bsd.shape[1] != own_bs.shape[1]:  # tokens that are being written
                return steer(hidden_bsd.flatten(0, 1)).view_as(hidden_bsd)
            hidden_bsd[own_bs] = steer(hidden_bsd[own_bs])
            return hidden_bsd

        return replace(self.mllm.decoder_layer(), self.mllm.layer, change)

    @torch.inference_mode()
    def answer(
        self, scenes: Sequence[Seen], questions: Sequence[Question], unit: Unit | None = None, strength: float = 0.0
    ) -> tuple[Array, Array]:
        """log p(yes) − log p(no) of each question, float64 [n]; and, without steering, the features that are active on
        its last token, bool [n, F]."""
        margins, active_nf = [], np.zeros((len(questions), self.sae.n_features), dtype=bool)
        tokenizer = self.mllm.tokenizer
        ids = [[tokenizer(word, add_special_tokens=False).input_ids[0] for word in side] for side in (YES, NO)]
        for begin in range(0, len(questions), BATCH):
            part = questions[begin : begin + BATCH]
            batch = self.mllm.prepare([Pair(q.text, [scenes[q.scene].image]) for q in part], generate=True)
            with capture(self.mllm.decoder_layer()) as outputs, self.steering(batch, unit or {}, strength):
                logits_bsv = self.mllm.model(**self.mllm.causal_inputs(batch), use_cache=False).logits
            last = torch.from_numpy(batch.length_b) - 1
            log_bv = logits_bsv[torch.arange(len(last)), last].float().log_softmax(-1)
            yes, no = (log_bv[:, sorted(set(side))].logsumexp(-1) for side in ids)
            margins += (yes - no).tolist()
            if not strength:
                active_nf[begin : begin + len(part)] = self.active_features(outputs[0], batch)
        return np.array(margins), active_nf

    def active_features(self, hidden_bsd: Tensor, batch: Batch) -> Array:
        """bool [b, F]: the features that are active on the last of each pair's own text tokens."""
        encoded_batch = encode_batch(hidden_bsd, batch, self.sae, self.scale)
        active_bf = np.zeros((len(batch.length_b), self.sae.n_features), dtype=bool)
        for b, (first, end) in enumerate(zip(encoded_batch.start_b[:-1], encoded_batch.start_b[1:], strict=True)):
            last = int(first) + int(np.flatnonzero(encoded_batch.modality_t[first:end] == TEXT)[-1])
            low, high = encoded_batch.offset_t[last : last + 2].tolist()
            active_bf[b, encoded_batch.feature_e[low:high]] = True
        return active_bf

    @torch.inference_mode()
    def captions(self, scenes: Sequence[Seen], unit: Unit, strength: float) -> list[str]:
        """Greedy captions."""
        result: list[str] = []
        for begin in range(0, len(scenes), BATCH):
            batch = self.mllm.prepare([Pair("", [s.image]) for s in scenes[begin : begin + BATCH]], generate=True)
            with self.steering(batch, unit, strength):
                ids = self.mllm.model.generate(**batch.inputs, max_new_tokens=CAPTION_TOKENS, do_sample=False)
            new_ids = ids[:, batch.inputs["input_ids"].shape[1] :]
            result += self.mllm.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
        return result


def as_long(sae: SaeV, unit: Unit, rng: np.random.Generator) -> Unit:
    """As many random features, with sizes such that the sum of their directions is as long as that of `unit`."""
    random_ids = [int(k) for k in rng.choice(sae.n_features, len(unit), replace=False)]
    directions_fd = sae.directions_fd.float()
    length_of_unit = torch.stack([size * directions_fd[k] for k, size in unit.items()]).sum(0).norm()
    length = {k: float(directions_fd[k].norm().clamp_min(1e-12)) for k in random_ids}
    scale = float(length_of_unit / torch.stack([directions_fd[k] / length[k] for k in random_ids]).sum(0).norm())
    return {k: scale / length[k] for k in random_ids}


def separation(right_n: Array, hallucinated_n: Array, active_nf: Array) -> Array:
    """float64 [F]: P(z > 0 | right) − P(z > 0 | hallucinated); 0 where there is neither.

    Args:
        right_n, hallucinated_n: bool [n]. active_nf: bool [n, F].
    """
    if not right_n.any() or not hallucinated_n.any():
        return np.zeros(active_nf.shape[1])
    return active_nf[right_n].mean(0) - active_nf[hallucinated_n].mean(0)


def rate(hit_n: Array, of_n: Array, scene_n: Array, seed: int) -> dict[str, float] | None:
    """Σ hit / Σ of, with the 95 % interval of a bootstrap over scenes; None of nothing.

    Args:
        hit_n, of_n: numbers. scene_n: int, which scene each belongs to.
    """
    _, scene_n = np.unique(scene_n, return_inverse=True)
    hit_s, of_s = (np.bincount(scene_n, number_n.astype(np.float64)) for number_n in (hit_n, of_n))
    if not of_s.sum():
        return None
    weight = np.concatenate(list(bootstrap_weights(len(of_s), RESAMPLES, seed)))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weight @ hit_s) / (weight @ of_s)
    return interval(float(hit_s.sum() / of_s.sum()), draws[np.isfinite(draws)])


def figures(
    questions: Sequence[Question],
    margin_n: Array,
    threshold: float,
    scenes: Sequence[Seen],
    captions: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """What the result file says of one way to steer.

    Args:
        margin_n: of `Model.answer`; yes is above the threshold. captions: of `scenes`.
    """
    kind_n, scene_n = np.array([q.kind for q in questions]), np.array([q.scene for q in questions])
    yes_n, present_n = margin_n > threshold, kind_n == "present"
    vocabulary = sorted({noun for scene in scenes for noun in scene.objects})
    mentions = [nouns_of(caption, vocabulary) for caption in captions]
    n_said, n_wrong, n_found, n_objects = (
        np.array([len(x) for x in nouns])
        for nouns in (
            mentions,
            [names - scene.objects for names, scene in zip(mentions, scenes, strict=True)],
            [names & scene.objects for names, scene in zip(mentions, scenes, strict=True)],
            [scene.objects for scene in scenes],
        )
    )
    scene_index = np.arange(len(scenes))
    return {
        "accuracy": rate(yes_n == present_n, np.ones(len(yes_n)), scene_n, seed),
        "yes": rate(yes_n, np.ones(len(yes_n)), scene_n, seed),
        "missed": rate(~yes_n & present_n, present_n, scene_n, seed),
        "hallucinated": rate(yes_n & ~present_n, ~present_n, scene_n, seed),
        **{f"hallucinated_{kind}": rate(yes_n & (kind_n == kind), kind_n == kind, scene_n, seed) for kind in ABSENT},
        "auroc": auroc(margin_n[present_n], margin_n[~present_n], seed),
        "chair": rate(n_wrong, n_said, scene_index, seed),
        "recall": rate(n_found, n_objects, scene_index, seed),
    }


class Run:
    """One half of the images chooses features, threshold and strength, the other is reported."""

    def __init__(self, o: HallucinationOptions, store: Store) -> None:
        self.scenes = own_scenes(o.objects, o.n_scenes) if o.objects else demo_scenes(o.n_scenes)
        self.questions = questions_about(self.scenes, o.seed)
        if len({(q.scene % 2, q.kind == "present") for q in self.questions}) < 4:
            raise SaevxError(
                "In each half of the images one object must be there and another not: give more images, with more "
                "objects."
            )
        mllm, sae = load_engine(StoreModel(store=o.store), store.manifest, full=True)
        self.o, self.store, self.model = o, store, Model(mllm, sae, Scale.from_manifest(store.manifest))
        self.margin_n, self.active_nf = self.model.answer(self.scenes, self.questions)
        self.chooses_n = np.array([q.scene % 2 == 0 for q in self.questions])
        self.present_n = np.array([q.kind == "present" for q in self.questions])
        # A small model says no to nearly all: the threshold is where it says yes as often as an object is there.
        share = 1 - self.present_n[self.chooses_n].mean()
        self.threshold = float(np.quantile(self.margin_n[self.chooses_n], share))

    def separation(self, own_n: Array) -> Array:
        """Of the answers to these questions, bool [n]: float64 [F]."""
        yes_n = self.margin_n > self.threshold
        right_n, hallucinated_n = yes_n == self.present_n, yes_n & ~self.present_n
        return separation(own_n & right_n, own_n & hallucinated_n, self.active_nf)

    def n_hallucinated(self, own_n: Array) -> int:
        """Of the answers to these questions, bool [n]."""
        return int((own_n & (self.margin_n > self.threshold) & ~self.present_n).sum())

    def best_strength(self, unit: Unit) -> float:
        """The one with most right answers on the half that chooses, the smallest of equals."""
        questions = [q for q, chooses in zip(self.questions, self.chooses_n, strict=True) if chooses]
        accuracy = {}
        for strength in self.o.strengths:
            steered_n, _ = self.model.answer(self.scenes, questions, unit, strength)
            accuracy[strength] = float(((steered_n > self.threshold) == self.present_n[self.chooses_n]).mean())
        return max(accuracy, key=lambda s: (accuracy[s], -s))

    def ways(self, unit: Unit, strength: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """(figures by way to steer; how the right answers and the hallucinated ones differ from those of random
        features) on the half that is reported."""
        o, questions = self.o, [q for q in self.questions if q.scene % 2]
        scenes = [scene for i, scene in enumerate(self.scenes) if i % 2]
        rng = np.random.default_rng(o.seed)
        randoms = {f"random features {i + 1}": as_long(self.model.sae, unit, rng) for i in range(o.n_random)}
        steering_of = {
            "not steered": (unit, 0.0),
            "towards right": (unit, strength),
            "away from right": (unit, -strength),
            **{name: (random_unit, strength) for name, random_unit in randoms.items()},
        }
        result, yes = {}, {}
        for name, (steering_unit, steering_strength) in steering_of.items():
            margins, _ = self.model.answer(self.scenes, questions, steering_unit, steering_strength)
            captions = self.model.captions(scenes, steering_unit, steering_strength)
            result[name] = figures(questions, margins, self.threshold, scenes, captions, o.seed)
            yes[name] = margins > self.threshold
        present_n = self.present_n[~self.chooses_n]
        scene_n = np.array([q.scene for q in questions])
        yes_random_n = np.mean([yes[name] for name in randoms], axis=0)
        differences = {
            "accuracy": difference(
                yes["towards right"] == present_n,
                np.where(present_n, yes_random_n, 1 - yes_random_n),
                np.ones(len(present_n)),
                scene_n,
                o.seed,
            ),
            "hallucinated": difference(yes["towards right"], yes_random_n, ~present_n, scene_n, o.seed),
        }
        return result, differences


def difference(one_n: Array, other_n: Array, of_n: Array, scene_n: Array, seed: int) -> dict[str, float] | None:
    """Σ (one − other) / Σ of over the entries that count, `of_n`, with the interval of `rate`."""
    return rate((np.asarray(one_n, np.float64) - other_n) * of_n, of_n, scene_n, seed)


def run(o: HallucinationOptions) -> None:
    """Choose on one half of the images, report the other, and write the result file."""
    companion_file = companion_path(o.store, HALLUCINATION)
    if o.attach:
        check_file(companion_file)  # before the work
    store = Store.open(o.store)
    try:
        experiment = Run(o, store)
        chosen_f, reported_f = experiment.separation(experiment.chooses_n), experiment.separation(~experiment.chooses_n)
        p999_f = np.nan_to_num(store.features.table["p999"])
        best_ids = [int(k) for k in np.argsort(-chosen_f, kind="stable") if p999_f[k] > 0][: o.n_features]
        unit = {k: float(p999_f[k]) for k in best_ids}
        strength = experiment.best_strength(unit)
        n = experiment.n_hallucinated(experiment.chooses_n)
        say(f"{n} hallucinated answers to choose on; strength {strength:g}")
        ways, differences = experiment.ways(unit, strength)
        refs, active_ids = store.features.refs(best_ids), np.flatnonzero(experiment.active_nf.any(0))
    finally:
        store.close()
    questions = [q for q in experiment.questions if q.scene % 2]
    result = {
        "about": {
            "command": "saevx experiment hallucination",
            "options": o.model_dump(mode="json", exclude={"store", "objects", "out", "attach"}),
            "data": "own images" if o.objects else "scenes of the demo",
            "content_id": store.manifest["content_id"],
            "sae": store.manifest["sae"]["sha256"],
            "machine": machine(),
        },
        "questions": {kind: sum(q.kind == kind for q in questions) for kind in ("present", *ABSENT)},
        "threshold": experiment.threshold,
        "hallucinated_to_choose_on": n,
        "hallucinated_reported": experiment.n_hallucinated(~experiment.chooses_n),
        "halves_agree": spearman(chosen_f[active_ids], reported_f[active_ids]),
        "features": [
            {
                "id": k,
                "label": refs[k]["label"],
                "separation": round(float(chosen_f[k]), 4),
                "separation_reported": round(float(reported_f[k]), 4),
            }
            for k in best_ids
        ],
        "strength": strength,
        "ways": ways,
        "against_random": differences,
    }
    write_json(o.out, result)
    if o.attach:
        whole_f = experiment.separation(np.ones(len(experiment.questions), bool))
        separations = {"ids": active_ids.tolist(), "values": np.round(whole_f[active_ids], 4).tolist()}
        companion = {"content_id": store.manifest["content_id"], **result, "separation": separations}
        write_json(companion_file, companion)
