"""Blocks of a product on as many threads as torch has."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Block = TypeVar("Block")
Result = TypeVar("Result")


def in_threads(work: Callable[[Block], Result], blocks: Iterable[Block]) -> list[Result]:
    """The results of blocks in their order, each computed by one thread.

    Much of the work on a block is NumPy's, which uses one thread. So blocks are divided among threads, and torch's
    operations on a block are not."""
    n = torch.get_num_threads()
    if n == 1:
        return [work(block) for block in blocks]
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, blocks))
    finally:
        torch.set_num_threads(n)
