"""Regular expressions of a tokenizer.json are a model's own, and some never end on a text that nearly matches
(CWE-1333). They are tried on such texts before a model reads any other.

The library gives up one match after ten million steps, about a second, by a panic: no error of Python's usual kind. A
text of thousands of letters holds thousands of such matches.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import printable
from typing import Any

from precompute.errors import PairError, SaevxError

PANIC = "PanicException"
UNITS = ("a", "A", "0", " ", "a ", "aA", "a0", "!", "\n", "é", "中", "a.", "a'")
LENGTHS = (28, 400)
ENDINGS = ("", "!", "\0", f"!{printable}", "a")
"""Texts that nearly match a pattern: a unit many times, and another sign; the library tries only texts that hold the
letters that a pattern needs."""
MAX_S = 2.0
"""Processor time for all of them, some 100: a usual tokenizer takes milliseconds."""


def check_patterns(source: str, tokenizer: Any) -> None:
    """Raises SaevxError where the patterns of a tokenizer take long, or fail.

    Args:
        tokenizer: of transformers; one that is not of the library `tokenizers` has no patterns of its own.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [getattr(backend, name, None) for name in ("normalizer", "pre_tokenizer", "decoder")]
    steps = [step for part in parts if part is not None and (step := step_of(part)) is not None]
    begin = time.thread_time()
    for text in texts():
        for step in steps:
            try:
                step(text)
            except BaseException as error:
                if type(error).__name__ != PANIC:
                    if isinstance(error, Exception):
                        continue  # a text that it does not take: rows with such a text are rejected
                    raise
                raise too_slow(source) from error
            if time.thread_time() - begin > MAX_S:
                raise too_slow(source)


def step_of(part: Any) -> Callable[[str], Any] | None:
    """What a part of a tokenizer does with a text."""
    for name in ("normalize_str", "pre_tokenize_str"):
        if hasattr(part, name):
            return getattr(part, name)
    return (lambda text: part.decode([text])) if hasattr(part, "decode") else None


def texts() -> Iterator[str]:
    for length in LENGTHS:
        for unit in UNITS:
            for ending in ENDINGS:
                yield unit * (length // len(unit)) + ending


def too_slow(source: str) -> SaevxError:
    return SaevxError(
        f"The tokenizer of the model {source} has a regular expression that does not end in time on a text such as "
        "'aaaa!': mend its tokenizer.json, or choose another model."
    )


@contextmanager
def no_panic() -> Iterator[None]:
    """Turns a tokenizer's panic over a pair into a PairError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise PairError("the model's tokenizer gives up on its text", "shorten it, or choose another model") from error
