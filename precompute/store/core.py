"""What the parts of an open store share: its folder, manifest, database connections and token texts."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from cachetools import LRUCache, cachedmethod
from sqlalchemy import Engine, Row

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.events import Events
from precompute.store.opening import Stamp
from precompute.store.sql import changed_error, fetch, fetch_of, fetch_plain
from precompute.utils.token_text import NEIGHBOURS, join, whole_token
from precompute.utils.types import Array, Item

MAX_FOUND_BYTES = 1 << 24
"""Of what words find in labels and promoted tokens: 256 words of a store of 65,536 features."""
MAX_REFS = 16_384
"""Features whose names are held, some 12 MB: a page names a hundred, mostly those that many samples have."""
NAME_FIELDS = ("id", "label", "label_score", "description")
"""What names a feature: its description where the score of its label is low."""
_REFERENCE = (*NAME_FIELDS, "verdict", "max_text", "max_image", "p999", "family")


class Core:
    """One open store, without its queries. Every part of `reader.Store` holds the same one."""

    def __init__(self, path: Path, manifest: Item, engine: Engine, stamps: dict[str, Stamp]) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.stamps = stamps
        """Inode, size and time of change of each file but the images, as they were when the store was opened."""
        self.scale_log2 = int(manifest["scale_log2"])
        self.n_features = int(manifest["sae"]["n_features"])
        self.n_samples = int(manifest["data"]["n_samples"])
        self.events = Events(path / "events", self.scale_log2)
        self._mask_cache: LRUCache[Any, Array] = LRUCache(MAX_FOUND_BYTES, getsizeof=lambda mask_f: mask_f.nbytes)
        self._mask_lock = RLock()
        self._refs: dict[int, Item] = {}

    def file(self, name: str) -> Path:
        """The path of a file of the manifest, which must still be the file that the store was opened with.

        Raises:
            StoreUnreadable: it is another one, or missing.
        """
        path = self.path / name
        if name in self.stamps and Stamp.from_file(path) != self.stamps[name]:
            raise changed_error(path)
        return path

    def read(self, name: str) -> bytes:
        """The bytes of a file of the manifest. Raises StoreUnreadable as `file`, or where it cannot be read."""
        path = self.file(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise changed_error(path) from error

    def rows(self, query: Any) -> Sequence[Row[Any]]:
        """All rows of a query. Raises as `sql.fetch`."""
        return fetch(self.engine, query)

    def list_tag(self, noun: str, **options: Any) -> str:
        """Twelve letters that stand for one list: the store's content, the noun, the order and the filters.

        A cursor carries the tag of its list, so that the cursor of another list, order, filter or store is refused.
        """
        text = json.dumps([self.manifest["content_id"], noun, options], sort_keys=True, default=str)
        return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())[:12].decode()

    def check_feature(self, feature: int) -> None:
        """Raises SaevxError where the store has no such feature."""
        if not 0 <= feature < self.n_features:
            raise SaevxError(f"No feature {feature}: this store has 0 to {self.n_features - 1}.")

    @cached_property
    def family(self) -> Array:
        """int64 [F]: the family of each feature, which is the id of its strongest member; its own where it has none."""
        return feature_columns(self.engine, "coalesce(family, id)", dtype=np.int64)[:, 0]

    @cached_property
    def has_top_words(self) -> bool:
        """Whether the store has the table: those made before it was stored do not."""
        return bool(fetch_plain(self.engine, "SELECT 1 FROM sqlite_master WHERE name = 'top_words'"))

    @cachedmethod(attrgetter("_mask_cache"), lock=attrgetter("_mask_lock"))
    def found_by(self, match: str) -> Array:
        """bool [F]: the features that a query of full text search finds. A store never changes, so the last are held: a
        common word has tens of thousands of features."""
        found_f = np.zeros(self.n_features, bool)
        query = "SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?"
        found_f[np.array(fetch_plain(self.engine, query, [match]), np.int64).ravel()] = True
        return found_f

    @cached_property
    def features_of_strongest(self) -> dict[str, list[int]]:
        """By word, the features whose strongest top word it is, that of the side on which more of its strongest samples
        have it; in a store without top words, those with it as their label."""
        features: dict[str, list[int]] = defaultdict(list)
        if not self.has_top_words:
            for id, label in fetch_plain(self.engine, "SELECT id, label FROM features WHERE label IS NOT NULL"):
                features[label.lower().strip()].append(id)
            return dict(features)
        for id, *texts in fetch_plain(self.engine, "SELECT id, text, image FROM top_words"):
            sides = [side for text in texts if text and (side := json.loads(text))]
            n_most = max((side["n"] for side in sides), default=0)
            for word in {side["word"].lower().strip() for side in sides if side["n"] == n_most}:
                features[word].append(id)
        return dict(features)

    @cached_property
    def evidence_rank(self) -> Array:
        """int32 [F]: place of each feature by evidence, then the score of its name, then its number."""
        query = "SELECT id FROM features ORDER BY evidence DESC NULLS LAST, label_score DESC NULLS LAST, id"
        rank_f = np.empty(self.n_features, np.int32)
        rank_f[np.array(fetch_plain(self.engine, query), np.int64).ravel()] = np.arange(self.n_features)
        return rank_f

    @cached_property
    def concept(self) -> Array:
        """int64 [F]: equal for features of one family, or of families with one name but for what it has in brackets:
        lists show such features as one. The text feature and the image feature of a word are seldom near-copies."""
        query = (
            "SELECT coalesce(families.name, features.label), coalesce(features.family, features.id) "
            "FROM features LEFT JOIN families ON families.id = features.family ORDER BY features.id"
        )
        names = [
            f"#{family}" if name is None else name.split(" (")[0].lower()
            for name, family in fetch_plain(self.engine, query)
        ]
        _, first, of_each = np.unique(np.array(names, str), return_index=True, return_inverse=True)
        return first[of_each]

    def feature_refs(self, ids: Iterable[int]) -> dict[int, Item]:
        """id → `NAME_FIELDS`, verdict, max_text, max_image, p999 and family of these features."""
        unique_ids, cache = sorted({int(id) for id in ids}), self._refs
        refs = {id: cache[id] for id in unique_ids if id in cache}
        if absent := [id for id in unique_ids if id not in refs]:
            query = f"SELECT {', '.join(_REFERENCE)} FROM features WHERE id IN (?)"
            rows = {row[0]: dict(zip(_REFERENCE, row, strict=True)) for row in fetch_of(self.engine, query, absent)}
            if len(cache) + len(rows) > MAX_REFS:
                cache = self._refs = {}
            cache.update(rows)
            refs.update(rows)
        return {id: refs[id].copy() for id in unique_ids if id in refs}


class Vocabulary:
    """The texts of tokens: `store.vocabulary`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @cached_property
    def words(self) -> list[str]:
        """The text of each token id, in id order; "" for ids that the model's vocabulary leaves out."""
        rows = fetch_plain(self._core.engine, "SELECT token_id, text FROM vocabulary ORDER BY token_id")
        words = [""] * (rows[-1][0] + 1 if rows else 0)
        for token_id, text in rows:
            words[token_id] = text
        return words

    def text(self, token_id: int) -> str:
        """The text of one token: a word's first piece starts with a space, bytes of a character are marks."""
        return self.words[token_id] if token_id < len(self.words) else f"<{token_id}>"

    def texts(self, token_id_t: Array, window: slice = slice(None)) -> list[str]:
        """What each token of a sample, or of a window of it, shows.

        Of several tokens that share one character the first shows it, and the others show marks for their bytes.

        Args:
            token_id_t: int [t], the token ids of the whole sample, or of all its text.
            window: the part of it to return.
        """
        first, stop, _ = window.indices(len(token_id_t))
        low = max(0, first - NEIGHBOURS)  # the window may cut through a character
        pieces = [self.text(token) for token in token_id_t[low : stop + NEIGHBOURS].tolist()]
        return join(pieces).visible[first - low : stop - low]

    def whole_token(self, token_id_t: Array, position: int) -> str:
        """The token at `position` of a sample, with all of a character that it shares with its neighbours.

        Args:
            token_id_t: int [t], the token ids of the sample.
        """
        first = max(0, position - NEIGHBOURS)
        token_ids = token_id_t[first : position + NEIGHBOURS + 1].tolist()
        return whole_token([self.text(token) for token in token_ids], position - first)


def feature_columns(engine: Engine, *expressions: str, dtype: Any = np.float64) -> Array:
    """[F, n]: n columns of the table `features`, or expressions of them, in id order; of float64 NaN for null."""
    rows = fetch_plain(engine, f"SELECT {', '.join(expressions)} FROM features ORDER BY id")
    return np.array(rows, dtype).reshape(-1, len(expressions))


def modality_code(name: str) -> int:
    """0 for "text", 1 for "image". Raises SaevxError for another name."""
    if name not in s.MODALITIES:
        raise SaevxError(f"Unknown modality {name!r}: use text or image.")
    return s.MODALITIES.index(name)


def feature_ref(feature: Item) -> Item:
    """What a list names a feature by: `NAME_FIELDS` and verdict."""
    return {name: feature[name] for name in (*NAME_FIELDS, "verdict")}
