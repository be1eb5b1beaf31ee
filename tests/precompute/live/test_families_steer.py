"""Steering on every family's tiny model: the hook fires on prompt, picture and generated tokens alike."""

from pathlib import Path

import pytest
import torch

from precompute.live.intervention import Intervention
from precompute.live.steer import Done, Steering, steer
from precompute.model.batch import IMAGE, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny

STEPS = 3


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path_factory.mktemp("families") / "sae"))


def run(mllm: Mllm, sae: SaeV, changes: list[Intervention], *, hooked: bool = True) -> tuple[Done, list[torch.Tensor]]:
    """The report, and the logits of every step."""
    batch = mllm.prepare([Pair("the red dog", [families.picture((257, 230))])], generate=True)
    logits: list[torch.Tensor] = []
    head = mllm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda m, a, out: logits.append(out[:, -1].clone()))
    try:
        done = steer(mllm, sae, batch, Steering(changes, max_tokens=STEPS, hooked=hooked))
    finally:
        handle.remove()
    return done, logits


@pytest.mark.parametrize("family", families.MULTIMODAL)
def test_steering_reaches_every_family(tmp_path: Path, sae: SaeV, family: str) -> None:
    torch.set_num_threads(1)
    mllm = Mllm.load(families.MULTIMODAL[family](tmp_path), layer=tiny.LAYER, full=True, device="cpu")
    size = float(sae.directions_fd[5].norm())
    (none, bare), (_, still), (done, moved) = (
        run(mllm, sae, [Intervention(5, "add", 0.0, 1.0)], hooked=False),
        run(mllm, sae, [Intervention(5, "add", 0.0, 1.0)]),
        run(mllm, sae, [Intervention(5, "add", 1.0, 3.0 / size)]),
    )
    assert none.n_steered == 0
    for a, b in zip(bare, still, strict=True):
        assert torch.equal(a, b), "adding nothing changes no bit"
    batch = mllm.prepare([Pair("the red dog", [families.picture((257, 230))])], generate=True)
    assert done.n_steered >= (batch.modality_bs == IMAGE).sum() + 3
    # The default row stays, the steered one moves.
    assert torch.equal(moved[0][0], bare[0][0])
    assert not torch.allclose(moved[0][1], bare[0][1])
