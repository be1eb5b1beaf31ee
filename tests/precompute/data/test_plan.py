import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from precompute.data.batches import DS_SPARE, make_plan, smallest_hashes

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=120)


@given(lengths, st.integers(1, 1000), st.integers(1, 50), st.integers(0, 9))
def test_every_row_once_within_the_budget(length: list[int], budget: int, shard: int, seed: int) -> None:
    ids = [f"id{i}" for i in range(len(length))]
    plan = make_plan(ids, np.array(length), batch_tokens=budget, shard_samples=shard, ds=5, seed=seed)
    assert sorted(i for batch in plan.batches for i in batch) == list(range(len(length)))
    for batch in plan.batches:
        assert len(batch) == 1 or len(batch) * max(length[i] for i in batch) <= budget
    assert [b for run in plan.shards for b in run] == list(range(len(plan.batches)))
    for run in plan.shards[:-1]:
        assert sum(len(plan.batches[b]) for b in run) >= shard


@given(lengths, st.integers(1, 50), st.integers(1, 50))
def test_batches_do_not_hang_on_the_shards(length: list[int], one: int, other: int) -> None:
    ids = [f"id{i}" for i in range(len(length))]
    plans = [make_plan(ids, np.array(length), batch_tokens=400, shard_samples=n, ds=5, seed=0) for n in (one, other)]
    assert plans[0].batches == plans[1].batches and plans[0].ds == plans[1].ds


def test_the_order_of_batches_is_mixed() -> None:
    """The first batches, from which the prelude is taken, are not the shortest samples."""
    length = np.arange(1, 2001)
    plan = make_plan([str(i) for i in length], length, batch_tokens=4000, shard_samples=64, ds=5, seed=0)
    first = [length[i] for batch in plan.batches[:40] for i in batch]
    assert np.std([length[batch[0]] for batch in plan.batches[:40]]) > 300 and max(first) > 1500


def test_ds_are_the_smallest_hashes() -> None:
    ids = [f"pair-{i}" for i in range(200)]
    result = smallest_hashes(ids, 7)
    assert [ids[i] for i in result] == sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[:7]
    plan = make_plan(ids, np.ones(200, np.int64), batch_tokens=10, shard_samples=9, ds=7, seed=0)
    assert plan.ds[:7] == result and len(plan.ds) == 7 + DS_SPARE
