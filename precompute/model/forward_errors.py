"""What went wrong where a model is run, in one sentence with the true cause."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from precompute.errors import ModelError, SaevxError
from precompute.utils.failures import memory_sentence
from precompute.utils.reading import cause

NOT_HERE = re.compile(
    r"not implemented|could not run|not supported|unsupported|kernel image|\b(CUDA|HIP|MPS|cuDNN|cuBLAS)\b",
    re.IGNORECASE,
)
"""What libraries say of an operation that a device, or a number type on it, lacks."""
SIZES = re.compile(
    r"\b(sizes?|shapes?|dimensions?|match|channels?|out of (range|bounds)|image (features|tokens))\b", re.IGNORECASE
)
"""And of tensors that do not fit together."""


@contextmanager
def forward_errors() -> Iterator[None]:
    """Turns what a forward pass in the block raises into a ModelError with what to do about its cause. Memory that is
    too small is said by the command, which knows the options that need less."""
    try:
        yield
    except SaevxError:
        raise
    except Exception as error:  # whatever a family's code raises
        if memory_sentence(error) is not None:
            raise
        raise ModelError(f"The model cannot be run ({cause(error).rstrip('.')}): {way_out(error)}.") from error


def way_out(error: Exception) -> str:
    """What to do, as the end of a sentence."""
    message = str(error)
    if isinstance(error, ImportError):
        return "install what is missing, or choose another model"
    if isinstance(error, NotImplementedError) or NOT_HERE.search(message):
        return "choose another --device, or --dtype float32"
    if isinstance(error, RuntimeError | ValueError | IndexError) and SIZES.search(message):
        return "its files do not belong together, so download all of its folder again"
    return "try it with --device cpu --dtype float32; if that fails too, its configuration is wrong, or transformers is"
