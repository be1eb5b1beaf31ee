"""Ways to say that no patch supports a caption's word, compared on development scenes.

    python -m precompute.experiments.token_support --demo demo

The flag `unsupported` takes its arithmetic from here; the scenes have no part in what `wrong_pairs` reports. The
figures go to the same file, under `development`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.experiments.script import run_script, update_result
from precompute.experiments.wrong_pairs import ONE_WORD, Case, cases_of, halves, pairs_of, separability
from precompute.live.engine import load_sae
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.encode import EncodedBatch, Scale, encode_batch
from precompute.scoring.scores import Weights
from precompute.scoring.token_support import LITTLE_WEIGHT
from precompute.store.events import Events
from precompute.store.reader import Store
from precompute.store.schema import KEPT_MAXIMA
from precompute.utils.command_line import CommandOptions
from precompute.utils.stats import unit
from precompute.utils.types import Array

BATCH = 16
RIDGE = 1.0
WAYS = {
    "sum": "largest Σ w·lack of a token, w of supported-share: the flag until now",
    "mean-sum": "its mean over the tokens",
    "share": "largest Σ w·lack / (0.5 + Σ w·r) of a token: the flag",
    "share-0.1": "with 0.1 instead of 0.5",
    "share-1": "with 1 instead of 0.5",
    "share-2": "with 2 instead of 0.5",
    "strongest-share": "largest Σ w·lack / max(Σ w·r, a tenth of the caption's heaviest token's)",
    "caption-share": "Σ w·lack / Σ w·r over the whole caption",
    "rarity-share": "as share, w without omega_centred",
    "predicted": "as share, the image's features replaced by the text features that ridge regression on the store's "
    "pairs predicts from them, w = rarity · R² on pairs left out",
    "predicted-5": "with 5 instead of 0.5",
    "predicted-or-same-5": "the larger of the two: predicted, or the same feature on a patch; with 5",
    "caption-nll": "minus the caption's mean cross-entropy given the image; no SAE",
}


class Options(CommandOptions):
    """What the comparison depends on; every field is an option of the command."""

    demo: Path = Path("demo")
    out: Path = Path("docs/results/wrong-pairs.json")
    n_scenes: int = 200
    first_index: int = 700_000
    first_whole: int = 750_000
    """Of the scenes whose whole captions are exchanged."""
    seed: int = 700_000

    def cli_cmd(self) -> None:
        update_result(self.out, development=run(self))


class Read(NamedTuple):
    """One caption beside one image: z / p99.9, capped at 1."""

    token_tf: Array
    """float32, of the text tokens."""
    image_f: Array
    """float32, the largest of the patches."""
    nll: float


class Predicted(NamedTuple):
    """Text features that an image leads one to expect."""

    ratio_nf: Array
    """float64, z / p99.9 capped at 1."""
    weight_f: Array
    """float64: how rare a feature is times how well it is predicted."""


def development_cases(o: Options) -> list[Case]:
    rng = np.random.default_rng(o.seed)
    cases = cases_of("whole", o.n_scenes, o.first_whole, rng)
    return cases + [case for kind in ONE_WORD for case in cases_of(kind, o.n_scenes, o.first_index, rng)]


def read_pairs(demo: Path, store: Store, pairs: Sequence[Pair]) -> list[Read]:
    """Pairs through the model, several at a time, in their order."""
    sae = load_sae(demo / "store", store.manifest, str(demo / "sae"), "auto")
    mllm = Mllm.load(demo / "model", layer=sae.layer, full=True)
    scale, p999 = Scale.from_manifest(store.manifest), np.maximum(store.features.table["p999"], 1e-30)
    result = []
    for low in range(0, len(pairs), BATCH):
        batch = mllm.prepare(pairs[low : low + BATCH])
        hidden_bsd, nll = mllm.hidden_and_nll(batch)
        encoded_batch = encode_batch(hidden_bsd, batch, sae, scale)
        result += [Read(*ratios(encoded_batch, b, scale, p999), float(nll[b])) for b in range(len(nll))]
    return result


def ratios(encoded_batch: EncodedBatch, b: int, scale: Scale, p999_f: Array) -> tuple[Array, Array]:
    """(text tokens [t, F], largest of the patches [F]) of pair b."""
    t, e = encoded_batch.slices(b)
    all_tf = np.zeros((t.stop - t.start, len(p999_f)), np.float32)
    row_e = np.repeat(np.arange(len(all_tf)), np.diff(encoded_batch.offset_t[t.start : t.stop + 1]))
    all_tf[row_e, encoded_batch.feature_e[e]] = encoded_batch.value_e[e]
    all_tf = np.minimum(all_tf * 2.0**-scale.log2 / p999_f, 1)
    modality_t = encoded_batch.modality_t[t]
    return all_tf[modality_t == TEXT], all_tf[modality_t == IMAGE].max(axis=0, initial=0)


def predict(text_sf: Array, image_sf: Array, image_nf: Array) -> Predicted:
    """Kernel ridge regression of the store's text features on its image features, both capped ratios [s, F], and
    what it expects beside other images [n, F]; R² is of predictions for pairs left out."""
    rarity_f = rarity(image_sf)
    train_sf, new_nf = (unit(x * rarity_f) for x in (image_sf, keep_strongest(image_nf)))
    inverse_ss = np.linalg.inv(train_sf @ train_sf.T + RIDGE * np.eye(len(train_sf)))
    mean_f = text_sf.mean(0)
    centred_sf = text_sf - mean_f
    missed_sf = (inverse_ss @ centred_sf) / np.diag(inverse_ss)[:, None]
    total_f = (centred_sf**2).sum(0)
    explained_f = np.where(total_f > 1e-9, 1 - (missed_sf**2).sum(0) / np.maximum(total_f, 1e-9), 0)
    expected_nf = np.clip(mean_f + (new_nf @ train_sf.T) @ (inverse_ss @ centred_sf), 0, 1)
    return Predicted(expected_nf, rarity(text_sf) * np.maximum(explained_f, 0))


def rarity(ratio_nf: Array) -> Array:
    """float64 [F]: ln(n / (1 + rows with the feature)), at least 0."""
    return np.maximum(np.log(len(ratio_nf) / (1 + (ratio_nf > 0).sum(0))), 0)


def keep_strongest(ratio_nf: Array) -> Array:
    """The rows' KEPT_MAXIMA largest, all that a store keeps of an image; ties stay."""
    least_n = np.sort(ratio_nf, axis=1)[:, -min(KEPT_MAXIMA, ratio_nf.shape[1])]
    return np.where(ratio_nf >= least_n[:, None], ratio_nf, 0)


def stored_ratios(events: Events, n: int, modality: int, p999_f: Array) -> Array:
    """The store's kept maxima as capped ratios [n, F]."""
    ratio_nf = np.zeros((n, len(p999_f)), np.float32)
    for row in range(n):
        feature, z = events.maxima(row, modality)
        ratio_nf[row, feature] = np.minimum(z / np.maximum(p999_f[feature], 1e-30), 1)
    return ratio_nf


def compare(reads: Sequence[Read], weights: Weights, rarity_f: Array, prediction: Predicted) -> dict[str, Array]:
    """Each of WAYS as a score, higher for better support, [n]."""
    w, learned_f = weights.support_f, prediction.weight_f

    def caption_scores(reduce: Callable[[Array, Array], float], w_f: Array, image_nf: Sequence[Array] | Array) -> Array:
        """Minus `reduce` of each caption's (Σ w·lack, Σ w·r) by token."""
        result = []
        for reading, image_f in zip(reads, image_nf, strict=True):
            lack_t = np.maximum(reading.token_tf - image_f, 0) @ w_f
            result.append(-reduce(lack_t, reading.token_tf @ w_f) if len(lack_t) else np.nan)
        return np.array(result)

    def share(offset: float) -> Callable[[Array, Array], float]:
        return lambda lack_t, whole_t: float((lack_t / (offset + whole_t)).max())

    own_nf = [reading.image_f for reading in reads]
    larger = [np.maximum(a, b) for a, b in zip(own_nf, prediction.ratio_nf, strict=True)]
    return {
        "sum": caption_scores(lambda lack_t, _: float(lack_t.max()), w, own_nf),
        "mean-sum": caption_scores(lambda lack_t, _: float(lack_t.mean()), w, own_nf),
        "share": caption_scores(share(LITTLE_WEIGHT), w, own_nf),
        "share-0.1": caption_scores(share(0.1), w, own_nf),
        "share-1": caption_scores(share(1), w, own_nf),
        "share-2": caption_scores(share(2), w, own_nf),
        "strongest-share": caption_scores(
            lambda lack_t, whole_t: float((lack_t / np.maximum(whole_t, 0.1 * whole_t.max() + 1e-9)).max()), w, own_nf
        ),
        "caption-share": caption_scores(
            lambda lack_t, whole_t: float(lack_t.sum() / max(whole_t.sum(), 1e-9)), w, own_nf
        ),
        "rarity-share": caption_scores(share(LITTLE_WEIGHT), rarity_f, own_nf),
        "predicted": caption_scores(share(LITTLE_WEIGHT), learned_f, prediction.ratio_nf),
        "predicted-5": caption_scores(share(5), learned_f, prediction.ratio_nf),
        "predicted-or-same-5": caption_scores(share(5), learned_f, larger),
        "caption-nll": np.array([-reading.nll for reading in reads]),
    }


def run(o: Options) -> dict[str, Any]:
    """What goes under `development`."""
    cases = development_cases(o)
    store = Store.open(o.demo / "store")
    result = measure(o, store, cases, read_pairs(o.demo, store, pairs_of(cases)))
    store.close()
    return result


def measure(o: Options, store: Store, cases: Sequence[Case], reads: Sequence[Read]) -> dict[str, Any]:
    """The ways compared; `reads` are all right captions, then all wrong ones."""
    p999 = store.features.table["p999"]
    text_sf, image_sf = (stored_ratios(store.events, store.n_samples, m, p999) for m in (TEXT, IMAGE))
    prediction = predict(text_sf, image_sf, np.stack([reading.image_f for reading in reads]))
    scores = compare(reads, Weights.from_store(store), rarity(text_sf), prediction)
    return {
        "about": {
            "command": "python -m precompute.experiments.token_support",
            "options": o.model_dump(exclude={"demo", "out"}),
            "content_id": store.manifest["content_id"],
            "what": "scenes for choosing the arithmetic of `unsupported` only; lack = max(0, r_token − r_image), "
            "r = z / p99.9 capped at 1",
        },
        "ways": WAYS,
        "kinds": separability(cases, halves(scores), o.seed),
    }


if __name__ == "__main__":
    run_script(Options, __doc__)
