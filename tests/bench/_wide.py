"""A made-up store of any size, written by the real writer: what the server must still be quick with.

Numbers are drawn, not computed: 65,536 features over a million pairs would take a GPU for days. What is drawn has the
shapes, types and rough distributions of a real run, examples are events of their samples, and captions are words of
the demo's vocabulary by Zipf's law; so every page and query works on it as on a real store.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from precompute.steps.index import flat_index
from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.directions.vectors import MEAN, SCALE, SCALES
from precompute.store.histogram import N_BINS
from precompute.store.making.unfinished import save_json, save_step
from precompute.store.reader import Store
from precompute.utils.stats import histogram, quantiles
from precompute.utils.types import Array
from tests.bench._npy import as_npy, blocks
from tests.bench._places import with_sample_map
from tests.helpers.synthetic import finish

SIDE = 6
PATCHES = SIDE * SIDE
WORDS = (6, 25)
"""Words of a caption: from, below."""
PER_TOKEN = 8
TOP, BANDS, BAND, KEPT = 20, 4, 8, 256
D = 1024
CHUNK = 20_000
N_REASONS = 1000


class Wide:
    """The store being drawn: F features, N samples."""

    def __init__(self, part: Path, demo: Path, n_features: int, n_samples: int, seed: int = 0) -> None:
        self.part, self.f, self.n = part, n_features, n_samples
        self.rng = np.random.Generator(np.random.PCG64(seed))
        model = Store.open(demo / "store")
        self.like, self.vocabulary = model.manifest, list(model.vocabulary.words)
        self.pictures = sorted((demo / "store" / "images").rglob("*.webp"))[:100]
        model.close()
        for folder in ("collect", "events", "index", "images/0"):
            (part / folder).mkdir(parents=True, exist_ok=True)
        self.n_words = self.rng.integers(*WORDS, n_samples)
        self.token = np.r_[0, np.cumsum(self.n_words + PATCHES + 1)]
        """Of each sample: one special token, its patches, its words."""
        words = [i for i, t in enumerate(self.vocabulary) if t[:1] == " " and t[1:].isalpha() and len(t) > 3]
        self.words = self.rng.permutation(words)

    def draw(self) -> dict[str, Any]:
        """All that the steps leave. Returns the manifest."""
        self.examples()
        tokens = self.events()
        self.samples()
        self.features()
        self.partners()
        self.vectors()
        kinds = np.bincount(tokens, minlength=4).tolist()
        del self.like["files"], self.like["content_id"], self.like["schema"]
        return {
            **self.like,
            "name": "wide",
            "scale_log2": 0,
            "model": {**self.like["model"], "name": "made up", "d_model": D},
            "sae": {**self.like["sae"], "name": "made up", "n_features": self.f},
            "data": {**self.like["data"], "name": "made up", "n_rows": self.n, "n_samples": self.n, "n_quarantined": 0},
            "tokens": dict(zip(s.TOKEN_KINDS, kinds, strict=True)),
            "cooccurrence": {"n_samples": min(self.n, 100_000), "kept": 16, "min_support": 5},
        }

    def examples(self) -> None:
        """Strongest samples and bands; each entry becomes an event of its sample."""
        per = TOP + BANDS * BAND
        step = self.n // per  # so that no sample is twice in a list
        row = self.rng.integers(0, self.n, (self.f, 2, 1)) + np.arange(per) * step
        row = (row + self.rng.integers(0, step, (self.f, 2, per))) % self.n
        at = np.empty_like(row)
        at[:, s.TEXT] = 1 + PATCHES + (self.rng.random((self.f, per)) * self.n_words[row[:, s.TEXT]]).astype(np.int64)
        at[:, s.IMAGE] = 1 + self.rng.integers(0, PATCHES, (self.f, per))
        value = np.empty(row.shape, np.float16)
        value[..., :TOP] = -np.sort(-self.rng.uniform(8, 16, (self.f, 2, TOP)), axis=-1)
        for band in range(BANDS):
            mine = slice(TOP + band * BAND, TOP + (band + 1) * BAND)
            value[..., mine] = self.rng.uniform(8, 16, (self.f, 2, BAND)) / 2**band
        feature = np.broadcast_to(np.arange(self.f)[:, None, None], row.shape)
        # What is drawn twice is one event, so it has one value.
        place = (row * (PATCHES + WORDS[1] + 1) + at) * self.f + feature
        _, inverse = np.unique(place, return_inverse=True)
        largest = np.zeros(place.size, np.float16)
        np.maximum.at(largest, inverse.reshape(-1), value.reshape(-1))
        value = largest[inverse].reshape(row.shape)
        result: dict[str, Array] = {}
        n_active = self.rng.integers(1, 9, row.shape).astype(np.int32)
        n_same = np.minimum(self.rng.geometric(0.8, row.shape) - 1, TOP).astype(np.uint8)
        columns = {"row": row, "position": at, "value": value, "n_active": n_active, "n_same": n_same}
        for name, array in columns.items():
            result[f"top_{name}"] = array[..., :TOP]
            result[f"band_{name}"] = array[..., TOP:].reshape(self.f, 2, BANDS, BAND)
        order = np.argsort(row, axis=None, kind="stable")
        self.planted = [array.reshape(-1)[order] for array in (row, at, feature, value)]
        peak = self.rng.integers(130, 150, (self.f, 2, 1))
        bins = np.arange(N_BINS)
        hist = (3e4 * np.exp(-(((bins - peak) / 14.0) ** 2)) * self.rng.random((self.f, 2, 1))).astype(np.int64)
        self.count = hist.sum(-1)
        save_step(self.part, "examples", **result)
        np.savez(
            self.part / "collect" / "accum.npz",
            allow_pickle=False, hist=hist, count=self.count, max=value.max(-1), total=self.count << 24,
        )  # fmt: skip

    def events(self) -> Array:
        """events/: drawn features beside the planted ones. Returns every token's modality."""
        folder, n_tokens = self.part / "events", int(self.token[-1])
        rank = np.minimum(self.rng.zipf(1.3, n_tokens) - 1, len(self.words) - 1)  # Zipf's law for words
        token_id = np.asarray(self.words)[rank].astype(np.int32)
        modality = np.full(n_tokens, s.TEXT, np.uint8)
        modality[self.token[:-1]] = s.SPECIAL
        patch = (self.token[:-1, None] + 1 + np.arange(PATCHES)).reshape(-1)
        modality[patch], token_id[patch], token_id[self.token[:-1]] = s.IMAGE, 0, 1
        self.token_id = token_id
        np.save(folder / "token_id.npy", token_id)
        np.save(folder / "token_modality.npy", modality)
        np.save(folder / "sample_token.npy", self.token)
        count_t, max_n = np.zeros(n_tokens, np.int64), np.zeros(2 * self.n, np.int64)
        kind = np.dtype(np.uint16 if self.f <= 1 << 16 else np.uint32)
        with (
            (folder / "f.raw").open("wb") as feature, (folder / "v.raw").open("wb") as value,
            (folder / "mf.raw").open("wb") as max_feature, (folder / "mv.raw").open("wb") as max_value,
        ):  # fmt: skip
            for low in range(0, self.n, CHUNK):
                high = min(low + CHUNK, self.n)
                first, last = int(self.token[low]), int(self.token[high])
                t, k, v = self.chunk(low, high, modality[first:last])
                count_t[first:last] = np.bincount(t, minlength=last - first)
                k.astype(kind).tofile(feature)
                v.tofile(value)
                group, k, v = self.maxima(t, k, v, low, high, modality[first:last])
                max_n[2 * low : 2 * high] = np.bincount(group, minlength=2 * (high - low))
                k.astype(kind).tofile(max_feature)
                v.tofile(max_value)
        for raw, name, dtype in (
            ("f", "event_feature", kind),
            ("v", "event_value", np.float16),
            ("mf", "max_feature", kind),
            ("mv", "max_value", np.float16),
        ):
            as_npy(folder / f"{raw}.raw", folder / f"{name}.npy", np.dtype(dtype))
        np.save(folder / "token_event.npy", np.r_[0, np.cumsum(count_t)])
        np.save(folder / "max_offset.npy", np.r_[0, np.cumsum(max_n)])
        return modality

    def chunk(self, low: int, high: int, modality: Array) -> tuple[Array, Array, Array]:
        """(token in the chunk, feature, value) of samples low…high−1, features rising in a token."""
        counted = np.flatnonzero(modality != s.SPECIAL)
        token = np.repeat(counted, PER_TOKEN)
        feature = (self.f * self.rng.random(len(token)) ** 2).astype(np.int64)
        value = self.rng.uniform(0.25, 4, len(token)).astype(np.float16)
        row, at, planted, high_value = (a[slice(*np.searchsorted(self.planted[0], [low, high]))] for a in self.planted)
        token = np.r_[self.token[row] + at - self.token[low], token]
        feature, value = np.r_[planted, feature], np.r_[high_value, value]
        # One sort of packed numbers; of two with the same token and feature the planted one comes first and stays.
        key = (token * self.f + feature).astype(np.uint64) << np.uint64(17)
        drawn = np.arange(len(token)) >= len(row)
        key = np.sort(key | (drawn.astype(np.uint64) << np.uint64(16)) | value.view(np.uint16))
        place = (key >> np.uint64(17)).astype(np.int64)
        first = np.r_[True, place[1:] != place[:-1]]
        place, value = place[first], (key[first] & np.uint64(0xFFFF)).astype(np.uint16).view(np.float16)
        return place // self.f, place % self.f, value

    def maxima(self, t: Array, k: Array, v: Array, low: int, high: int, modality: Array) -> tuple[Array, Array, Array]:
        """(2 · row + modality in the chunk, feature rising, largest value): the 256 strongest of each."""
        sample_t = np.repeat(np.arange(high - low), np.diff(self.token[low : high + 1]))
        group = sample_t[t] * 2 + modality[t]
        key = np.sort(((group * self.f + k).astype(np.uint64) << np.uint64(16)) | v.view(np.uint16))
        place = key >> np.uint64(16)
        key = key[np.r_[place[1:] != place[:-1], True]]
        place, value = (key >> np.uint64(16)).astype(np.int64), (key & np.uint64(0xFFFF)).astype(np.int64)
        group = place // self.f
        order = np.lexsort((-value, group))
        rank = np.arange(len(order)) - np.searchsorted(group, group)
        remaining = np.sort(order[rank < KEPT])
        return group[remaining], place[remaining] % self.f, value[remaining].astype(np.uint16).view(np.float16)

    def samples(self) -> None:
        """Captions, pictures, scores and flags."""
        images = []
        for i, path in enumerate(self.pictures):
            shutil.copyfile(path, self.part / "images" / "0" / f"{i}_0.webp")
            images.append({"width": 256, "height": 256, "sha256": f"{i:064}", "thumb": f"images/0/{i}_0.webp"})
        views = [[SIDE, SIDE, [0, 0, 256, 256], 0]]
        with (self.part / "collect" / "samples.jsonl").open("w", encoding="utf-8") as file:
            for row in range(self.n):
                text = "".join(
                    self.vocabulary[i] for i in self.token_id[self.token[row] + 1 + PATCHES : self.token[row + 1]]
                ).strip()
                line = {"row": row, "index": row, "sample_id": f"pair-{row:07}", "text": text,
                        "images": [images[row % len(images)]], "views": views, "extra": {}, "source": {}}  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        (self.part / "collect" / "quarantine.jsonl").write_text("")
        (self.part / "collect" / "vocabulary.json").write_text(json.dumps(self.vocabulary))
        full = np.full(self.n, 256)
        np.savez(
            self.part / "collect" / "sample.npz",
            allow_pickle=False, n_text=self.n_words, n_image=full * 0 + PATCHES, n_special=full * 0 + 1,
            n_sink=full * 0, width=full, height=full,
        )  # fmt: skip
        scores = {name: self.rng.normal(5, 2, self.n) for name in s.SCORES}
        flags = {name: self.rng.beta(2, 8, self.n) for name in s.FLAGS}
        save_step(self.part, "score", **scores)
        near, cosine = self.rng.integers(0, self.n, self.n), self.rng.random(self.n)
        fvu = self.rng.uniform(0.1, 0.4, (2, self.n))
        save_step(self.part, "flag", **flags, fvu_text=fvu[0], fvu_image=fvu[1], near_row=near, near_cosine=cosine)
        save_json(self.part, "score", [
            {"name": name, "description": s.SCORES[name], "mean": float(v.mean()), "std": float(v.std()),
             "median": float(np.median(v)), "quantiles": quantiles(v), "hist": histogram(v), "length_rho": 0.1,
             "auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}
            for name, v in scores.items()
        ])  # fmt: skip
        table, reasons = [], []
        for name, v in flags.items():
            limit = float(np.quantile(v, 0.95))
            table.append({
                "name": name, "title": s.FLAGS[name][0], "description": "made up", "source": s.FLAGS[name][1],
                "unit": None, "threshold": limit, "count": int((v > limit).sum()), "hist": histogram(v),
                "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9,
            })  # fmt: skip
            worst = np.argsort(-v)[:N_REASONS].tolist()
            why = {"text": "Made up.", "features": self.rng.integers(0, self.f, 4).tolist(), "tokens": ["word"]}
            reasons += [[row, name, why] for row in worst]
        save_json(self.part, "flag", {"flags": table, "reasons": reasons})

    def features(self) -> None:
        """ω and what goes with it, names, the logit lens."""
        density = np.minimum(self.count / (self.n * 20.0), 1)
        names = ("p999", *s.OMEGA_FIELDS, "omega_all_pairs", "modality_share", "same_sample_rate", *s.PAIR_FIELDS)
        columns = {name: self.rng.random(self.f) for name in names}
        columns["p999"] = columns["p999"] * 4 + 4
        columns |= {"n_both": (columns["n_both"] * 100).astype(np.int64), "place_share": self.rng.random(self.f)}
        place_map, kinds = self.rng.random((self.f, 7, 7)), np.array(["", "", "", "patch 1,2", "row 3"])
        samples = self.rng.integers(10, max(11, self.n // 20), (self.f, 2))
        shares = [0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.08, 0.1, 0.1, 0.02]
        verdict = self.rng.choice(len(s.VERDICTS), self.f, p=shares).astype(np.int8)
        save_step(
            self.part, "weigh", **columns, samples=samples, n_samples=samples.max(1), density=density, verdict=verdict,
            place=self.rng.choice(kinds, self.f), place_map=place_map,
        )  # fmt: skip
        pick = self.rng.integers(0, len(self.words), (self.f, 2))
        words = [[self.vocabulary[self.words[i]].strip() for i in two] for two in pick.tolist()]
        place = mapfile.quantise_places(self.rng.normal(size=(self.f, 2)))
        omega = mapfile.quantise_omega(columns["omega"])
        columns_of_map = (place[:, 0], place[:, 1], verdict, omega, mapfile.quantise_density(density.max(1)))
        mapfile.write_map(self.part / mapfile.NAME, mapfile.FeatureMap(*columns_of_map))
        dead = verdict == s.VERDICTS.index("dead")
        save_json(self.part, "label", [None if d else ", ".join(w) for d, w in zip(dead, words, strict=True)])
        save_json(self.part, "description", [f'the word "{a}"; images whose captions say "{b}"' for a, b in words])
        both = [[{"word": word, "n": 12, "of": 20} for word in pair] for pair in words]
        save_json(self.part, "top_words", [dict(zip(s.MODALITIES, pair, strict=True)) for pair in both])
        save_step(self.part, "label", score=self.rng.random(self.f))
        tokens = np.asarray(self.words)[self.rng.integers(0, len(self.words), (2, self.f, 10))]
        logit = -np.sort(-self.rng.normal(3, 1, (2, self.f, 10)).astype(np.float32), axis=-1)
        lens = {
            "promoted": tokens[0], "promoted_logit": logit[0], "suppressed": tokens[1], "suppressed_logit": -logit[1]
        }  # fmt: skip
        lens |= {f"raw_{name}": values for name, values in lens.items()}
        save_step(self.part, "logits", **lens, informative=logit[0, :, 0] > 3)
        number = np.arange(self.f)
        family = np.where(self.rng.random(self.f) < 1 / 2, number // 4 * 4, number)
        save_step(self.part, "families", family=family)

    def partners(self) -> None:
        """Pairs of features: 16 for each, kind and side."""
        n_mf = self.rng.integers(500, 5000, (2, self.f))
        result: dict[str, Array] = {"n_samples": n_mf}
        for kind in s.COOCCURRENCE_KINDS:
            a, b = np.repeat(np.arange(self.f), 16), self.rng.integers(0, self.f, 16 * self.f)
            if kind == "text-image":
                a, b = np.r_[a, self.rng.integers(0, self.f, 16 * self.f)], np.r_[b, np.repeat(np.arange(self.f), 16)]
            else:
                a, b = np.minimum(a, b), np.maximum(a, b)
            key = np.unique((a * self.f + b)[a != b] if kind != "text-image" else a * self.f + b)
            support = np.minimum(4 + self.rng.zipf(1.6, len(key)), 500)
            shuffled = self.rng.integers(0, 6, len(key))
            for name, values in zip(
                ("a", "b", "support", "shuffled"), (key // self.f, key % self.f, support, shuffled), strict=True
            ):
                result[f"{kind}/{name}"] = values
        save_step(self.part, "cooccur", **result)
        near: dict[str, Array] = {}
        for space in s.NEIGHBOUR_SPACES:
            near[f"{space}_neighbours"] = self.rng.integers(0, self.f, (self.f, 10))
            near[f"{space}_cosine"] = -np.sort(-self.rng.random((self.f, 10)).astype(np.float32), axis=1)
        save_step(self.part, "index", **near, mean_cosine=self.rng.random(self.f))
        np.save(self.part / "index" / MEAN, self.rng.normal(size=D).astype(np.float32))
        np.save(self.part / "index" / SCALES, np.ones(self.f, SCALE))

    def vectors(self) -> None:
        """index/*.faiss."""
        for name, n, width in (
            ("decoder", self.f, D), ("profile", self.f, D), ("sample_text", self.n, 256), ("sample_image", self.n, 256)
        ):  # fmt: skip
            index: Any = None
            for subset in blocks(n):
                drawn = self.rng.normal(size=(subset.stop - subset.start, width)).astype(np.float32)
                faiss.normalize_L2(drawn)
                if index is None:
                    index = flat_index(drawn)
                else:
                    index.add(drawn)
            faiss.write_index(index, str(self.part / "index" / f"{name}.faiss"))


def write(out: Path, demo: Path, n_features: int, n_samples: int) -> Path:
    """The store at `out`, made where it is not there yet."""
    if not out.exists():
        part = out.with_name(out.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        finish(part, with_sample_map(part, Wide(part, demo, n_features, n_samples).draw()))
        (part / "run.json").write_text("{}\n")
        part.rename(out)
    return out
