"""z of the steered features alone, beside the same out of all of them."""

from pathlib import Path

import pytest
import torch

from precompute.sae.sae import SaeV
from precompute.sae.subset import INDEPENDENT, encoder_of
from tests.helpers import tiny

IDS = torch.tensor([7, 3, 95, 40])


def hidden(n: int = 400) -> torch.Tensor:
    return torch.randn(n, tiny.D_MODEL, generator=torch.Generator().manual_seed(2)) * 3


@pytest.mark.parametrize("scaling", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize(
    "architecture", ["standard", "jumprelu", "gated", "topk", "batchtopk", "matryoshka_batchtopk", "matching_pursuit"]
)
def test_the_same_as_out_of_all_features(tmp_path: Path, architecture: str, scaling: str) -> None:
    options = {"bias": -0.2} if architecture == "topk" else {}
    sae = SaeV.load(
        tiny.make_sae(tmp_path / "sae", architecture=architecture, normalize_activations=scaling, **options)
    )
    naive_tk, z_tk = sae.encode(hidden())[:, IDS], encoder_of(sae, IDS)(hidden())
    assert naive_tk.any() and not naive_tk.all()
    torch.testing.assert_close(z_tk, naive_tk, rtol=1e-5, atol=1e-5)
    assert torch.equal(sae.encode(hidden())[:, IDS], naive_tk), "the SAE itself is left as it was"
    if architecture.startswith("topk"):
        assert architecture not in INDEPENDENT and torch.equal(z_tk, naive_tk)


def test_features_in_both_directions_are_encoded_together(tmp_path: Path) -> None:
    sae = SaeV.load(tiny.make_sae(tmp_path / "sae", architecture="abstopk"))
    ids = torch.tensor([2, 2 + tiny.N_FEATURES])
    assert torch.equal(encoder_of(sae, ids)(hidden()), sae.encode(hidden())[:, ids])


def test_no_feature_is_none(tmp_path: Path) -> None:
    sae = SaeV.load(tiny.make_sae(tmp_path / "sae"))
    assert encoder_of(sae, torch.zeros(0, dtype=torch.long))(hidden(3)).shape == (3, 0)
