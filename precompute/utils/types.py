"""Types that many modules name or make theirs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array. Docstrings say dtype and shape; a name ends in its axes' letters, such as `mean_f`, `score_sf`."""
Item = dict[str, Any]
"""A JSON object: one thing of a list, a page or a manifest."""
Items = list[Item]
T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that makes an item when it is read. A class of this kind has `__len__` and `item`."""

    @abstractmethod
    def item(self, number: int) -> T:
        """The item of this number, from 0 on."""

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self.item(number) for number in range(*at.indices(len(self)))]
        return self.item(range(len(self))[at])


def check_keywords(options: Mapping[str, Any], keywords: type) -> None:
    """Raises TypeError for an option that the TypedDict `keywords` does not have, as Python does for a parameter."""
    if unknown_names := sorted(set(options) - set(keywords.__annotations__)):
        raise TypeError(f"there is no option {unknown_names[0]!r}: use {', '.join(keywords.__annotations__)}")
