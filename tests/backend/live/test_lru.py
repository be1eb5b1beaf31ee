"""The cache of the server against a plain list in the order of use."""

from hypothesis import given
from hypothesis import strategies as st

from backend.live.lru import Lru


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 4))), st.integers(1, 8))
def test_it_holds_the_entries_used_last(calls: list[tuple[int, int | None]], capacity: int) -> None:
    cache: Lru[int, int] = Lru(capacity, size_of=lambda size: size)
    used: list[tuple[int, int]] = []  # the oldest first
    for key, size in calls:
        own = [entry for entry in used if entry[0] == key]
        if size is None:
            assert cache.get(key) == (own[0][1] if own else None)
        else:
            cache.put(key, size)
            own = [(key, size)]
        used = [entry for entry in used if entry[0] != key] + own
        while len(used) > 1 and sum(size for _, size in used) > capacity:
            used.pop(0)
        assert set(cache.entries) == {key for key, _ in used}
        assert cache.entries.currsize == min(sum(size for _, size in used), capacity)
    assert [cache.entries.popitem() for _ in used] == used and not cache.entries
