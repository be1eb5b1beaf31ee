"""Lines of the scorecard that a store can fill: pairs, texts alone, names, localisation, monosemanticity."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.options.evaluate import EvaluateOptions
from precompute.store.companion_files import CONTROLS, read_companion
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TESTED_VERDICTS
from precompute.store.sql import fetch_plain
from precompute.training.hard_negatives import Held, against_nearest, against_one_word, maxima
from precompute.utils.reading import read_regular, refuse_endless
from precompute.utils.stats import bootstrap_weights, interval, share_interval, unit
from precompute.utils.types import Array

GOOD_SCORE = 0.7
Better = Literal["higher", "lower"] | None
"""Which values of a figure are the better ones; None where neither are, or it is not known."""
FIRST = 16
"""Images at least for a feature's monosemanticity, and at most for its localisation."""


class Figure(NamedTuple):
    """A figure of the scorecard."""

    line: str
    name: str
    estimate: dict[str, float] | None
    """`value`, and `low` and `high` where it has an interval; None where it could not be computed."""
    note: str
    better: Better = "higher"
    needs: str | None = None
    """Options of `saevx evaluate` without which it could not be computed, as one writes them; None if it lacks none."""

    @classmethod
    def unmeasured(cls, line: str, options: str) -> Self:
        """The figure of a line for which `options` were not given."""
        return cls(line, "", None, "Not measured.", needs=options)


def of_store(store: Store, o: EvaluateOptions) -> Iterator[tuple[str, list[Figure]]]:
    """Each line with its figures."""
    rows = fetch_plain(store.engine, "SELECT verdict, label, label_score FROM features ORDER BY id")
    n = Counter(verdict for verdict, _, _ in rows)
    n_tested = sum(n[verdict] for verdict in TESTED_VERDICTS)
    content, _ = read_companion(store.path, CONTROLS, store.manifest["content_id"])
    controls = [c for c in (content or {}).get("controls", []) if c["share"] is not None and c["name"] != "text-alone"]
    null = ", ".join(f"{100 * c['share']:.1f} % ({c['title']})" for c in controls)
    chance = f"By chance: {null}." if null else "Run `saevx controls` for its null."
    note = f"Of {n_tested:,} features tested. {chance}"
    yield "pair evidence", [Figure("pair evidence", "cross-modal", share_interval(n["cross-modal"], n_tested), note)]
    with_image = n["cross-modal"] + n["in-context"]
    has_alone = bool(store.manifest.get("pair_evidence", {}).get("text_alone"))
    note = f"Of {with_image:,} that pass with the image." if has_alone else "The store was made with --no-text-alone."
    estimate = share_interval(n["cross-modal"], with_image) if has_alone else None
    yield "text alone", [Figure("text alone", "still cross-modal", estimate, note)]
    n_alive = len(rows) - n["dead"]
    n_good = sum((score or 0) >= GOOD_SCORE for _, _, score in rows)
    note = f"Of {n_alive:,} alive features; scored on samples on which the name was not chosen."
    scores = Figure("names", f"name scores {GOOD_SCORE} or more", share_interval(n_good, n_alive), note)
    yield "names", [scores, *hard_negatives(store, o)]
    yield "localisation", [localisation(store, o, [label for _, label, _ in rows])]
    yield "monosemanticity", [monosemanticity(store, o)]


def hard_negatives(store: Store, o: EvaluateOptions) -> Iterator[Figure]:
    """Whether features are stronger where the caption has their name's word than on hard negatives, on samples on which
    the names were not chosen."""
    table = Held.of_store(store)
    for name, title, shares in (
        ("captions with its word exchanged", "captions that differ in the name's word alone", against_one_word(table)),
        (
            "samples of its nearest feature",
            "strong samples of its nearest feature of another family",
            against_nearest(table),
        ),
    ):
        n = len(shares.either)
        if not n:
            yield Figure("names", name, None, f"There are no {title}.")
            continue
        draws = np.concatenate([w @ shares.either / n for w in bootstrap_weights(n, o.resamples, o.seed, chunk=64)])
        note = (
            f"How often a feature is stronger where the caption has its name's word than on {title}. Mean over {n:,} "
            f"features; 0.5 is chance. By the image alone {shares.image.mean():.3f}."
        )
        yield Figure("names", name, interval(float(shares.either.mean()), draws), note)


def localisation(store: Store, o: EvaluateOptions, labels: list[str | None]) -> Figure:
    """Whether the strongest patch of each image that has a box of a feature's word lies in such a box."""
    if o.boxes is None:
        return Figure.unmeasured("localisation", "--boxes FILE")
    boxes = read_boxes(o.boxes)
    words = {box["word"] for of_sample in boxes.values() for box in of_sample}
    features = [k for k, label in enumerate(labels) if label and label.casefold() in words]
    hits = n = 0
    area = 0.0
    for k, examples in store.examples.strongest(features, "image", FIRST).items():
        word = (labels[k] or "").casefold()
        for example in examples:
            own_boxes = [box["box"] for box in boxes.get(example["sample_id"], []) if box["word"] == word]
            if not own_boxes:
                continue
            left, top, right, bottom = example["patch"]["box"]
            x, y, image = (left + right) / 2, (top + bottom) / 2, example["images"][example["patch"]["image"]]
            n += 1
            hits += any(a <= x <= c and b <= y <= d for a, b, c, d in own_boxes)
            area += min(1.0, sum((c - a) * (d - b) for a, b, c, d in own_boxes) / (image["width"] * image["height"]))
    chance = f" By area alone: {area / n:.2f}." if n else ""
    note = f"Of {n:,} strongest patches on images with a box of the word; {len(features):,} features.{chance}"
    return Figure("localisation", "strongest patch in the box", share_interval(hits, n), note)


def read_boxes(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Boxes by sample id, their words in lower case.

    Raises:
        SaevxError: not of the form that --boxes takes.
    """
    try:
        lines = [json.loads(line) for line in read_regular(path).splitlines() if line.strip()]
        return {
            str(line["id"]): [
                {"word": str(box["word"]).casefold(), "box": [float(box["box"][i]) for i in range(4)]}
                for box in line["boxes"]
            ]
            for line in lines
        }
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        form = '{"id": …, "boxes": [{"word": …, "box": [x0, y0, x1, y1]}]}'
        raise SaevxError(f"{path} cannot be read: --boxes takes JSON lines such as {form}.") from error


def monosemanticity(store: Store, o: EvaluateOptions) -> Figure:
    """How alike another model finds the images on which a feature fires: the mean cosine of their embeddings over pairs
    of images, weighted by the product of the activations."""
    if o.embedding is None:
        return Figure.unmeasured("monosemanticity", "--embedding FILE.npy")
    embedding_nd = read_embedding(o.embedding, store.n_samples)
    weight_fn = maxima(store, IMAGE).T.tocsr()
    weight_fn = weight_fn[np.diff(weight_fn.indptr) >= FIRST]
    name, too_few_note = "alike in the embedding", f"No feature fires on {FIRST} images."
    if not weight_fn.shape[0]:
        return Figure("monosemanticity", name, None, too_few_note)
    score_f = similar_samples(weight_fn, embedding_nd)
    order = np.random.default_rng(o.seed).permutation(len(embedding_nd))
    chance = similar_samples(weight_fn, embedding_nd[order]).mean()
    weights = bootstrap_weights(len(score_f), o.resamples, o.seed, chunk=16)
    draws = np.concatenate([weight_wf @ score_f / len(score_f) for weight_wf in weights])
    note = f"Mean of {len(score_f):,} features on {FIRST} images or more. With the embeddings exchanged: {chance:.3f}."
    return Figure("monosemanticity", name, interval(float(score_f.mean()), draws), note)


def read_embedding(path: Path, n: int) -> Array:
    """float64 [n, d], rows of length 1.

    Raises:
        SaevxError: no array of so many rows.
    """
    refuse_endless(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SaevxError(f"{path} is no NumPy array: --embedding takes a file that numpy.save wrote.") from error
    if array.ndim != 2 or len(array) != n or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise SaevxError(f"{path} is no array of {n} finite rows: write one row for each sample, in the store's order.")
    return unit(array.astype(np.float64))


def similar_samples(weight_fn: csr_matrix, unit_nd: Array) -> Array:
    """float64 [F]: Σ_{i≠j} w_i w_j cos(e_i, e_j) / Σ_{i≠j} w_i w_j."""
    square_f = np.asarray(weight_fn.multiply(weight_fn).sum(1)).ravel()
    total_f = np.asarray(weight_fn.sum(1)).ravel()
    own_f = np.asarray(weight_fn.multiply(weight_fn) @ np.square(unit_nd).sum(1)).ravel()
    result: Array = (np.square(weight_fn @ unit_nd).sum(1) - own_f) / (np.square(total_f) - square_f)
    return result
