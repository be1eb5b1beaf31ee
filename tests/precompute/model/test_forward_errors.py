"""What fails while a model is run is told by its cause: files that do not belong together are one of several."""

import importlib
from collections.abc import Callable, Iterator

import pytest
import torch

from precompute.errors import SaevxError
from precompute.model.batch import Batch, Pair
from precompute.model.hooks import remove_at_end
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.tinies import Tiny

TOGETHER = "its files do not belong together, so download all of its folder again"
ELSEWHERE = "choose another --device, or --dtype float32"
CAUSES: dict[str, tuple[Callable[[], object], str]] = {
    "matrices of other sizes": (lambda: torch.ones(2, 3) @ torch.ones(4, 5), TOGETHER),
    "sums of other sizes": (lambda: torch.ones(2) + torch.ones(3), TOGETHER),
    "a token without an embedding": (
        lambda: torch.nn.functional.embedding(torch.tensor([9]), torch.ones(2, 2)),
        TOGETHER,
    ),
    "an operation that a number type lacks": (lambda: torch.linalg.qr(torch.ones(2, 2).half()), ELSEWHERE),
    "an operation that a device lacks": (
        lambda: torch.equal(torch.ones(1, device="meta"), torch.ones(1, device="meta")),
        ELSEWHERE,
    ),
    "a package that is missing": (lambda: importlib.import_module("kernels_of_nobody"), "install what is missing"),
    "anything else": (lambda: {}["scale"], "it lacks 'scale'): try it with --device cpu --dtype float32"),
}


@pytest.fixture(scope="module")
def mllm(tiny_files: Tiny) -> Iterator[Mllm]:
    yield Mllm.load(tiny_files.model, layer=1, full=True, device="cpu")


def batch_of(mllm: Mllm) -> Batch:
    return mllm.prepare([Pair("a dog", [tiny.picture(1)])])


@pytest.mark.parametrize("run", ["hidden", "hidden_and_nll"])
@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_told(name: str, run: str, mllm: Mllm) -> None:
    fail, words = CAUSES[name]
    failing = remove_at_end(mllm.decoder_layer().register_forward_pre_hook(lambda *_: fail()))
    with failing, pytest.raises(SaevxError) as caught:
        getattr(mllm, run)(batch_of(mllm))
    text = str(caught.value)
    assert text.startswith("The model cannot be run (") and words in text and text.endswith("."), text
    assert "\n" not in text and len(text) < 500
    assert (TOGETHER in text) == (words == TOGETHER)
    mllm.hidden(batch_of(mllm))  # the next one is run as ever


def test_a_memory_that_is_too_small_is_left_to_the_command(mllm: Mllm) -> None:
    """Which knows the options that need less."""
    failing = remove_at_end(mllm.decoder_layer().register_forward_pre_hook(lambda *_: torch.ones(1 << 50)))
    with failing, pytest.raises(RuntimeError, match="memory"):
        mllm.hidden(batch_of(mllm))
