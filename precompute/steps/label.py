"""Step `label`: a name for every live feature from its own evidence.

Four witnesses, each a weighted log-odds of a word against the background (Monroe, Colaresi & Quinn 2008):
the words of its strongest text tokens, the captions of the samples of its strongest tokens, the captions of
those of its strongest patches, and the tokens that its direction promotes. `label_score` says how well the
name tells samples that activate the feature from those that do not, on samples that gave no evidence. With
`--labeller` a model writes the names instead (labeller.py), and they are scored alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.steps.cooccur import chosen_rows, feature_sets
from precompute.steps.label_words import Words, read_words
from precompute.store.making.unfinished import Collected, Lens, load_step, save_json, save_step
from precompute.store.schema import IMAGE, TEXT, VERDICTS
from precompute.utils.progress import say
from precompute.utils.ragged import expand, offsets, run_starts
from precompute.utils.text import has_letters, is_blank
from precompute.utils.token_text import MARKS, join
from precompute.utils.types import Array

WITNESSES = {"token": 1.0, "image_caption": 1.0, "text_caption": 0.5}  # weights of the log-odds
PROMOTED_BONUS = 2.0  # for the first promoted token, less for the later
PRIOR = 20.0  # pseudo-counts spread as the background
MIN_EVIDENCE = 2.0  # z of the log-odds below which a caption word is no evidence
SECOND = 0.85  # a second word joins the label from this share of the first's score
HELD_OUT = 20_000
STRONG = 0.25  # of p99.9: a sample counts as activating for label_score
MOST_COMMON = 0.5  # share of the captions beyond which a word of a written name tests nothing

def top_words(data: Collected, words: Words) -> tuple[csr_matrix, Array]:
    """(int32 [F, W]: how many of a feature's top text tokens are part of each word, int64 [F]: of any word)."""
    row, position = (data.examples[f"top_{name}"][:, TEXT] for name in ("row", "position"))
    feature, rank = np.nonzero(row >= 0)
    pairs = np.stack([row[feature, rank], position[feature, rank]], axis=1).astype(np.int64)
    places, where = np.unique(pairs, axis=0, return_inverse=True)
    ids: list[list[int]] = []
    for sample, group in groupby(places.tolist(), key=lambda place: place[0]):
        ids += words_at(data, words, sample, [token for _, token in group])
    length = np.array([len(one) for one in ids], dtype=np.int64)
    start, flat = offsets(length), np.array([word for one in ids for word in one], dtype=np.int64)
    length_p = length[where.ravel()]
    word_p = flat[expand(start[:-1][where.ravel()], length_p)]
    shape = (data.n_features, len(words.name))
    matrix = csr_matrix((np.ones(len(word_p), np.int32), (np.repeat(feature, length_p), word_p)), shape=shape)
    return matrix, np.bincount(feature, length_p > 0, minlength=data.n_features).astype(np.int64)


def words_at(data: Collected, words: Words, row: int, positions: list[int]) -> list[list[int]]:
    """Of text tokens of a sample the words that they are part of: the first where words are separated, else each."""
    low, high = (int(x) for x in data.events.sample_token[row : row + 2])
    kinds = data.events.token_modality[low:high]
    first = int(np.argmax(kinds == TEXT))
    tokens = zip(data.events.token_id[low + first : high].tolist(), kinds[first:].tolist(), strict=True)
    joined = join([data.vocabulary[token] if kind == TEXT else "\n" for token, kind in tokens])
    places = list(words.places(joined.text))
    ids = []
    for position in positions:
        start, stop = joined.start[position - first], joined.stop[position - first]
        overlapping = [place.word for place in places if place.start < stop and place.stop > start]
        separate = [word for word in overlapping if word < words.n_separate]
        ids.append(separate[:1] or list(dict.fromkeys(overlapping)))
    return ids


def top_samples(data: Collected, modality: int) -> csr_matrix:
    """int32 [F, N] of ones: the samples of a feature's top tokens in one modality."""
    row = data.examples["top_row"][:, modality]
    feature, rank = np.nonzero(row >= 0)
    shape = (data.n_features, data.n_samples)
    matrix = csr_matrix((np.ones(len(feature), np.int32), (feature, row[feature, rank])), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def log_odds(count: csr_matrix, n_f: Array, background_w: Array, n_background: float) -> csr_matrix:
    """z of the weighted log-odds of each word against the background, CSR [F, W], on the words counted.

    Args:
        count: how often feature f's evidence has word w. n_f: the number of its pieces of evidence.
        background_w: how often the word occurs in n_background pieces of background.
    """
    matrix = count.tocoo()
    share = background_w[matrix.col] / n_background
    a, b = PRIOR * share, PRIOR * (1 - share)
    here, not_here = matrix.data + a, np.maximum(n_f[matrix.row] - matrix.data, 0) + b
    elsewhere = background_w[matrix.col] + a
    not_elsewhere = np.maximum(n_background - background_w[matrix.col], 0) + b
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = np.log(here / not_here) - np.log(elsewhere / not_elsewhere)
        z = delta / np.sqrt(1 / here + 1 / not_here + 1 / elsewhere + 1 / not_elsewhere)
    return csr_matrix((np.nan_to_num(z, nan=0.0, posinf=0.0), (matrix.row, matrix.col)), shape=count.shape)


def promoted_words(logits: Lens, words: Words) -> csr_matrix:
    """Bonus for caption words among the promoted tokens, falling with their rank."""
    token_of = [
        [words.id_of.get(token.strip().lower(), -1) for token in tokens] for tokens in logits.tokens("promoted")
    ]
    word_fr = np.array(token_of, dtype=np.int64).reshape(len(logits), -1)
    feature, rank = np.nonzero(word_fr >= 0)
    word = word_fr[feature, rank]
    _, first = np.unique(feature * len(words.name) + word, return_index=True)  # of a word's ranks the best
    bonus = PROMOTED_BONUS / (1 + rank[first])
    return csr_matrix((bonus, (feature[first], word[first])), shape=(len(logits), len(words.name)))


def evidence(data: Collected, words: Words, logits: Lens) -> csr_matrix:
    """Sum of the witnesses, CSR [F, W]."""
    tokens, n_f = top_words(data, words)
    evidence_fw = WITNESSES["token"] * _strong(log_odds(tokens, n_f, words.token_count, float(words.n_units)))
    df, n = np.asarray(words.in_caption.sum(0)).ravel(), float(data.n_samples)
    for name, modality in (("text_caption", TEXT), ("image_caption", IMAGE)):
        tops = top_samples(data, modality)
        count = (tops @ words.in_caption).tocsr()
        evidence_fw = evidence_fw + WITNESSES[name] * _strong(log_odds(count, np.asarray(tops.sum(1)).ravel(), df, n))
    # Promoted tokens speak for a word only beside another witness: the lens alone is noise for early layers.
    promoted = promoted_words(logits, words)
    return (evidence_fw + promoted.multiply(evidence_fw > 0)).tocsr()


def _strong(z: csr_matrix) -> csr_matrix:
    strong = z.copy()
    strong.data[strong.data < MIN_EVIDENCE] = 0
    strong.eliminate_zeros()
    return strong


def choose(evidence_fw: csr_matrix, words: Words | None = None) -> tuple[Array, Array]:
    """(best, second) word per feature, −1 where there is none; second only when nearly as good, and none of `words`
    that overlaps the best."""
    matrix = evidence_fw.tocoo()
    order = np.lexsort((matrix.col, -matrix.data, matrix.row))
    row, column, value = matrix.row[order], matrix.col[order], matrix.data[order]
    best, second = np.full(evidence_fw.shape[0], -1), np.full(evidence_fw.shape[0], -1)
    first = run_starts(row)
    best[row[first]] = column[first]
    follows = first[(first + 1 < len(row))]
    follows = follows[(row[follows + 1] == row[follows]) & (value[follows + 1] >= SECOND * value[follows])]
    second[row[follows]] = column[follows + 1]
    clashing = [k for k in np.flatnonzero(second >= 0) if words is not None and words.clash(best[k], second[k])]
    for k in clashing:
        low, high = np.searchsorted(row, [k, k + 1])
        near = column[low + 1 : high][value[low + 1 : high] >= SECOND * value[low]]
        second[k] = next((int(word) for word in near if words is not None and not words.clash(best[k], word)), -1)
    return best, second


class Name(NamedTuple):
    """A feature's name, and the caption words in it by which it is tested."""

    text: str
    words: list[int]


def detection(data: Collected, words: Words, names: list[Name | None], p999: Array) -> Array:
    """Balanced accuracy of "the caption has a word of the name" for "the sample activates the feature", on
    held-out samples.

    Held out: samples that gave the feature no evidence. Activating: a kept maximum over a quarter of p99.9;
    the others: none at all. NaN where either kind is missing, or the name has no word of a caption.
    """
    rows = chosen_rows(list(data.samples.column("sample_id")), HELD_OUT)
    texts, images = feature_sets(data, rows)
    any_nf = (texts + images).astype(bool).astype(np.int64).tocsr()
    maxima = data.maxima_of(rows)
    strongest = maxima[0].maximum(maxima[1]).tocsr()
    strongest.data = strongest.data > STRONG * p999[strongest.indices]
    strong_nf = any_nf.multiply(strongest).tocsr().astype(np.int64)
    strong_nf.eliminate_zeros()
    evidence_nf = (
        sum(top_samples(data, m) for m in (TEXT, IMAGE)).astype(bool).astype(np.int64)[:, rows].T.tocsr()
    )
    strong_nf = (strong_nf - strong_nf.multiply(evidence_nf)).tocsr()
    silent_seen = (any_nf + evidence_nf).astype(bool).astype(np.int64)
    length_f = np.array([len(name.words) if name else 0 for name in names])
    column = np.array([word for name in names if name for word in name.words], dtype=np.int64)
    name_fw = csr_matrix(
        (np.ones(len(column), np.int64), column, offsets(length_f)),
        shape=(len(names), len(words.name)),
    )
    word_nf = (words.in_caption[rows].astype(np.int64) @ name_fw.T).astype(bool).astype(np.int64).tocsr()

    def total(matrix: csr_matrix) -> Array:
        return np.asarray(matrix.sum(0)).ravel().astype(np.float64)

    n_strong, n_silent = total(strong_nf), len(rows) - total(silent_seen)
    hit = total(strong_nf.multiply(word_nf))
    false = total(word_nf) - total(silent_seen.multiply(word_nf))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (hit / n_strong + 1 - false / n_silent) / 2
    return np.where((length_f > 0) & (n_strong > 0) & (n_silent > 0), score, np.nan)


def keyword_name(words: Words, best: int, second: int) -> Name:
    chosen = [best, second] if second >= 0 else [best]
    return Name(", ".join(words.name[word] for word in chosen), chosen)


def fallback(data: Collected, words: Words, feature: int, promoted: list[str]) -> Name:
    """A name where no word stands out: its strongest text token, else its first promoted token, else the
    commonest word of the captions in which it fires."""

    def quoted(kind: str, token: str) -> Name:
        return Name(f"{kind} “{token}”", words.named_in(token))

    row, position = (int(data.examples[f"top_{n}"][feature, TEXT, 0]) for n in ("row", "position"))
    if row >= 0 and not is_blank(token := data.token(row, position).strip()):
        return quoted("token", token)
    for text in promoted:
        if has_letters(MARKS.sub("", text)):  # bytes of a character name nothing
            return quoted("towards", text.strip())
    rows = np.unique(data.examples["top_row"][feature])
    count = np.asarray(words.in_caption[rows[rows >= 0]].sum(0)).ravel()
    if count.any():
        return quoted("with", words.name[int(count.argmax())])
    return Name("no word", [])


def written_name(words: Words, text: str) -> Name:
    """A name in free words is tested by those of them that at most half of the captions have."""
    share = np.asarray(words.in_caption.sum(0)).ravel() / max(words.in_caption.shape[0], 1)
    return Name(text, [word for word in words.named_in(text) if share[word] <= MOST_COMMON])


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `labeller` (a URL) and `labeller_model`."""
    data, weigh = Collected(part, manifest), load_step(part, "weigh")
    logits = Lens.from_steps(data)
    words = read_words(list(data.samples.column("text")))
    best, second = choose(evidence(data, words, logits), words)
    names: list[Name | None] = [None] * data.n_features
    promoted = logits.tokens("promoted")
    live = np.flatnonzero(weigh["verdict"] != VERDICTS.index("dead")).tolist()
    for k in live:
        names[k] = (
            keyword_name(words, int(best[k]), int(second[k]))
            if best[k] >= 0
            else fallback(data, words, k, promoted[k])
        )
    summary: dict[str, Any] = {"method": "keywords"}
    if options.get("labeller"):
        from precompute.steps.labeller import Labeller, clean

        model = Labeller(str(options["labeller"]), options.get("labeller_model"))
        written = model.names(data, live, [[token.strip() for token in promoted[k]] for k in live])
        for k, text in zip(live, written, strict=True):
            names[k] = names[k] if text is None else written_name(words, text)
        n_failed = sum(text is None for text in written)
        summary = {"method": "labeller", "labeller": clean(model.model, 200), "n_failed": n_failed}
        say(f"labeller: {len(live) - n_failed} names written, {n_failed} failed and keep their keywords")
    save_json(part, "label", [name and name.text for name in names])
    save_step(part, "label", score=detection(data, words, names, weigh["p999"]))
    return {"labels": {**summary, "n": len(live)}}
