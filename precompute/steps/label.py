"""Step `label`: a name for every live feature from its own evidence, and the evidence in words.

The evidence for a word comes from five places: the words of the feature's strongest text tokens, the captions of the
samples of its strongest tokens, the captions of those of its strongest patches, the captions of all samples that have
it, and the tokens that its direction promotes. Each but the last is a weighted log-odds of the word against the
background (Monroe, Colaresi & Quinn 2008). Of the words with the most evidence, the one that best tells the feature's
samples from others becomes its name (names/choice.py). `label_score` says how well the name does so on other samples
(names/name_test.py). With `--labeller` a model writes the names instead (labeller.py), and they are scored alike.
"""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from precompute.data.halves import halves
from precompute.steps.evidence.agreement import agreements
from precompute.steps.label_words import Words, read_words
from precompute.steps.names.choice import (
    MAX_CAPTION_SHARE,
    Name,
    candidates,
    choose,
    distinguish,
    is_function_word,
    log_odds,
)
from precompute.steps.names.description import Counts, TopWords, caption_ends, describe, place_words, top_words
from precompute.steps.names.name_test import NameTest, make_name_test
from precompute.store.making.unfinished import Collected, Lens, load_step, save_json, save_step
from precompute.store.schema import IMAGE, TEXT, VERDICTS
from precompute.utils.progress import say
from precompute.utils.ragged import expand, offsets
from precompute.utils.text import ENGLISH_FUNCTION_WORDS, has_letters, is_blank
from precompute.utils.token_text import MARKS, join
from precompute.utils.types import Array

WEIGHTS = {"token": 1.0, "image_caption": 1.0, "text_caption": 0.5, "sample": 1.0}  # weights of the log-odds
PROMOTED_BONUS = 2.0  # for the first promoted token, less for the later
_FEATURES_AT_ONCE = 1 << 12
MIN_EVIDENCE = 2.0  # z of the log-odds below which a caption word is no evidence


def tokens_of_words(data: Collected, words: Words, counts_n: Array | None = None) -> tuple[csr_matrix, Array]:
    """(int32 [F, W]: how many of a feature's top text tokens are part of each word, int64 [F]: of any word).

    Args:
        counts_n: bool [N], the samples that count; None for all.
    """
    row, position = (data.examples[f"top_{name}"][:, TEXT] for name in ("row", "position"))
    feature, rank = np.nonzero(row >= 0 if counts_n is None else (row >= 0) & counts_n[row])
    pairs = np.stack([row[feature, rank], position[feature, rank]], axis=1).astype(np.int64)
    places, where = np.unique(pairs, axis=0, return_inverse=True)
    ids: list[list[int]] = []
    for sample, group in groupby(places.tolist(), key=lambda place: place[0]):
        ids += words_at(data, words, sample, [token for _, token in group])
    length = np.array([len(word_ids) for word_ids in ids], dtype=np.int64)
    start, flat = offsets(length), np.array([word for word_ids in ids for word in word_ids], dtype=np.int64)
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
    text = join([data.vocabulary[token] if kind == TEXT else "\n" for token, kind in tokens])
    places = list(words.places(text.text))
    ids = []
    for position in positions:
        start, stop = text.start[position - first], text.stop[position - first]
        found_words = [place.word for place in places if place.start < stop and place.stop > start]
        separate_words = [word for word in found_words if word < words.n_separate]
        ids.append(separate_words[:1] or list(dict.fromkeys(found_words)))
    return ids


def top_samples(data: Collected, modality: int, counts_n: Array | None = None) -> csr_matrix:
    """int32 [F, N] of ones: the samples of a feature's top tokens in one modality.

    Args:
        counts_n: bool [N], the samples that count; None for all.
    """
    row = data.examples["top_row"][:, modality]
    feature, rank = np.nonzero(row >= 0 if counts_n is None else (row >= 0) & counts_n[row])
    shape = (data.n_features, data.n_samples)
    matrix = csr_matrix((np.ones(len(feature), np.int32), (feature, row[feature, rank])), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def promoted_words(logits: Lens, words: Words) -> csr_matrix:
    """Bonus for caption words among the promoted tokens, falling with their rank."""
    places = [
        (feature, rank, words.id_of.get(token.strip().lower(), -1))
        for feature, tokens in enumerate(logits.promoted_tokens())
        for rank, token in enumerate(tokens)
    ]
    feature, rank, word = np.array([place for place in places if place[2] >= 0], np.int64).reshape(-1, 3).T
    _, first = np.unique(feature * len(words.name) + word, return_index=True)  # of a word's ranks the best
    bonus = PROMOTED_BONUS / (1 + rank[first])
    return csr_matrix((bonus, (feature[first], word[first])), shape=(logits.n_features, len(words.name)))


def evidence(data: Collected, words: Words, logits: Lens, counts_n: Array, name_test: NameTest) -> csr_matrix:
    """Sum of all evidence, float64 CSR [F, W].

    Args:
        counts_n: bool [N], the samples that may give evidence. name_test: on some of these.
    """
    tokens, n_f = tokens_of_words(data, words, counts_n)
    evidence_fw = WEIGHTS["token"] * _drop_weak(log_odds(tokens, n_f, words.token_count, float(words.n_units)))
    df, n = np.asarray(words.in_caption.sum(0)).ravel(), float(data.n_samples)
    for name, modality in (("text_caption", TEXT), ("image_caption", IMAGE)):
        tops = top_samples(data, modality, counts_n)
        count = (tops @ words.in_caption).tocsr()
        evidence_fw = evidence_fw + WEIGHTS[name] * _drop_weak(log_odds(count, np.asarray(tops.sum(1)).ravel(), df, n))
    evidence_fw = evidence_fw + WEIGHTS["sample"] * sample_evidence(name_test)
    # Promoted tokens count for a word only where it has other evidence: the lens alone is noise for early layers.
    promoted_fw = promoted_words(logits, words)
    return (evidence_fw + promoted_fw.multiply(evidence_fw > 0)).tocsr()


def sample_evidence(name_test: NameTest) -> csr_matrix:
    """What the captions of all samples that have a feature say of it, float64 CSR [F, W]."""
    background_w, n = np.asarray(name_test.caption_nw.sum(0)).ravel(), float(name_test.caption_nw.shape[0])
    blocks = []
    for low in range(0, name_test.on_fn.shape[0], _FEATURES_AT_ONCE):
        on_fn = name_test.on_fn[low : low + _FEATURES_AT_ONCE].astype(np.int64)
        count = (on_fn @ name_test.caption_nw).tocsr()
        blocks.append(_drop_weak(log_odds(count, np.asarray(on_fn.sum(1)).ravel(), background_w, n)))
    return vstack(blocks, format="csr")


def _drop_weak(z: csr_matrix) -> csr_matrix:
    strong_z = z.copy()
    strong_z.data[strong_z.data < MIN_EVIDENCE] = 0
    strong_z.eliminate_zeros()
    return strong_z


def fallback(data: Collected, words: Words, feature: int, tokens: list[str], barred_w: Array) -> Name:
    """A name where no word stands out: its strongest text token, else its first promoted token, else the
    commonest word of the captions in which it fires.

    Args:
        barred_w: bool [W], words that must not name it.
    """

    def quote(kind: str, token: str) -> Name | None:
        own_words = words.named_in(token)
        is_barred = token.strip().lower() in ENGLISH_FUNCTION_WORDS if not own_words else barred_w[own_words].all()
        return None if is_barred and barred_w.any() else Name(f"{kind} “{token}”", own_words)

    row, position = (int(data.examples[f"top_{n}"][feature, TEXT, 0]) for n in ("row", "position"))
    if row >= 0 and not is_blank(token := data.token(row, position).strip()) and (name := quote("token", token)):
        return name
    for text in tokens:  # bytes of a character name nothing
        if has_letters(MARKS.sub("", text)) and (name := quote("towards", text.strip())):
            return name
    rows = np.unique(data.examples["top_row"][feature])
    count = np.asarray(words.in_caption[rows[rows >= 0]].sum(0)).ravel() * ~barred_w
    if not count.any():  # no caption need have a word
        return Name("no word", [])
    w = int(count.argmax())
    return Name(f"with “{words.name[w]}”", [w])


def written_name(words: Words, text: str) -> Name:
    """A name in free words is tested by those of them that at most half of the captions have."""
    share = words.caption_share
    return Name(text, [word for word in words.named_in(text) if share[word] <= MAX_CAPTION_SHARE])


def keyword_names(
    data: Collected, words: Words, logits: Lens, verdict_f: Array, name_test: NameTest, scoring: Array
) -> list[Name | None]:
    """A name for every live feature.

    Args:
        verdict_f: int [F], indices into `VERDICTS`.
        name_test: what chooses among words.
        scoring: int64, the rows by which names are scored: they are no evidence.
    """
    gives_evidence_n = np.ones(data.n_samples, bool)
    gives_evidence_n[scoring] = False
    barred_w, none_w = is_function_word(words), np.zeros(len(words.name), bool)
    on_images_f = np.array([VERDICTS[verdict] not in ("text-only", "mostly-text") for verdict in verdict_f], bool)
    feature_c, word_c = candidates(
        evidence(data, words, logits, gives_evidence_n, name_test),
        lambda feature, word: ~(on_images_f[feature] & barred_w[word]),
    )
    words_of, promoted_tokens = choose(feature_c, word_c, name_test, words), logits.promoted_tokens()
    names: list[Name | None] = [None] * data.n_features
    for k in np.flatnonzero(verdict_f != VERDICTS.index("dead")).tolist():
        if k in words_of:
            names[k] = Name(", ".join(words.name[word] for word in words_of[k]), words_of[k])
        else:
            names[k] = fallback(data, words, k, promoted_tokens[k], barred_w if on_images_f[k] else none_w)
    return distinguish(names, name_test, words, barred_w)


def words_and_descriptions(
    data: Collected, words: Words, names: list[Name | None], tokens_fw: csr_matrix, weigh: Mapping[str, Array]
) -> tuple[list[TopWords], list[str | None]]:
    """Of each feature the top word of both sides, and what stands for a live feature's name where it fails.

    Args:
        tokens_fw: of `tokens_of_words`.
        weigh: what that step left, by name, [F] each.
    """
    samples = [top_samples(data, modality) for modality in (TEXT, IMAGE)]
    n_fm = np.stack([np.asarray(tops.sum(1)).ravel() for tops in samples], axis=1)
    n_fm[weigh["verdict"] == VERDICTS.index("text-only"), IMAGE] = 0  # hardly any, and weak
    n_fm[weigh["verdict"] == VERDICTS.index("image-only"), TEXT] = 0
    # A migrated store has neither places nor their maps here: its descriptions are stored already.
    places = [place and place_words(place, weigh["place_map"].shape[1:]) for place in weigh["place"].tolist()]
    image_fw = (samples[IMAGE] @ words.in_caption).tocsr()
    counts = Counts(tokens_fw, image_fw, n_fm, caption_ends(data), words.caption_share)
    of_features = top_words(data, counts, words.name, is_function_word(words))
    texts = describe(counts, of_features, places)
    return of_features, [text if name else None for text, name in zip(texts, names, strict=True)]


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `labeller` (a URL) and `labeller_model`."""
    data, weigh = Collected(part, manifest), load_step(part, "weigh")
    logits = Lens.from_steps(data)
    words = read_words(data.samples.values("text"))
    choice_rows, test_rows = halves(data.samples.values("sample_id"))
    name_test = make_name_test(data, words.in_caption, weigh["p999"], choice_rows)
    names = keyword_names(data, words, logits, weigh["verdict"], name_test, test_rows)
    named_f = [k for k, name in enumerate(names) if name is not None]
    summary: dict[str, Any] = {"method": "keywords"}
    example_samples: csr_matrix | None = None
    if options.get("labeller"):
        from precompute.steps.labeller import Labeller, clean

        model = Labeller(str(options["labeller"]), options.get("labeller_model"))
        promoted_tokens = logits.promoted_tokens()
        model_names = model.names(data, named_f, [[token.strip() for token in promoted_tokens[k]] for k in named_f])
        for k, text in zip(named_f, model_names, strict=True):
            names[k] = names[k] if text is None else written_name(words, text)
        n_failed = sum(text is None for text in model_names)
        summary = {"method": "labeller", "labeller": clean(model.model, 200), "n_failed": n_failed}
        say(f"labeller: {len(named_f) - n_failed} names written, {n_failed} failed and keep their keywords")
        example_samples = top_samples(data, TEXT) + top_samples(data, IMAGE)  # the model has seen some of them
    test = make_name_test(data, words.in_caption, weigh["p999"], test_rows, example_samples)
    score = test.accuracy(np.arange(len(names)), [name.words if name else [] for name in names])
    save_json(part, "label", [name and name.text for name in names])
    tokens_fw, _ = tokens_of_words(data, words)
    of_features, descriptions = words_and_descriptions(data, words, names, tokens_fw, weigh)
    save_json(part, "top_words", of_features)
    save_json(part, "description", descriptions)
    save_step(part, "label", score=score, **agreements(data, words, tokens_fw))
    return {"labels": {**summary, "n": len(named_f)}}
