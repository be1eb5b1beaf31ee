"""`store.top_words`: the word on which a feature is strongest, and the word that its strongest images share."""

from collections.abc import Iterable

from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.sql import PlainQuery
from precompute.utils.types import Item

_WORDS = PlainQuery(s.top_words.c)


class TopWords:
    """Both sides of a feature in a word each, as the step `label` counted them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def of(self, feature: int) -> dict[str, Item | None]:
        """For "text" the word of which most of the feature's strongest text tokens are part, or the token; for "image"
        the word that most captions of its strongest images have, where it stands out from all captions. Each with `n`,
        how many of the `of` strongest samples have it; None where no word stands out, and in a store made before they
        were stored.

        Raises:
            SaevxError: no such feature.
        """
        self._core.check_feature(feature)
        return self.of_all([feature])[feature]

    def of_all(self, features: Iterable[int]) -> dict[int, dict[str, Item | None]]:
        """feature → what `of` gives, for features that the store has, in one query."""
        words: dict[int, dict[str, Item | None]] = {int(k): dict.fromkeys(s.MODALITIES) for k in features}
        for row in _WORDS.fetch_of(self._core.engine, "top_words WHERE id IN (?)", words) if self.held else ():
            words[row["id"]] = {name: row[name] for name in s.MODALITIES}
        return words

    @property
    def held(self) -> bool:
        """Whether the store has them: those made before they were stored do not."""
        return self._core.has_top_words
