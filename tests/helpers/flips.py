"""One changed bit of a store, which must be found."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL = ("manifest.json", "run.json")


@contextmanager
def changed_bit(store: Path, seed: int) -> Iterator[Path]:
    """Changes a random bit while the block runs: of a third of the seeds in a file drawn by its size, of a third in any
    file, of a third in the manifest or run.json. Gives the file."""
    rng = random.Random(seed)
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.stat().st_size]
    of_size = rng.choices(files, [path.stat().st_size for path in files])[0]
    path = (of_size, rng.choice(files), store / SMALL[seed // 3 % 2])[seed % 3]
    content = path.read_bytes()
    at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
    path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    try:
        yield path
    finally:
        path.write_bytes(content)
