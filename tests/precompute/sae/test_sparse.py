"""z without the dense z: the same features as SAELens' own encoder, and the same numbers whatever computes them."""

from typing import Any

import pytest
import torch
from sae_lens import SAE

from precompute.products.rounding import has_units
from precompute.products.setting import Products
from precompute.sae.encode import Scale, sparse_features
from precompute.sae.sae import SaeV
from precompute.sae.sparse import FEWEST, applies, sparse_encoder

D, F, TOKENS, K = 48, FEWEST, 160, 20
SCALE = Scale(4, (float("inf"), float("inf")))
KINDS = ("topk", "topk rescaled", "jumprelu", "gated")


def made_up(kind: str, *, off: bool = False, normalize: str = "none") -> SaeV:
    rng = torch.Generator().manual_seed(1)
    config: dict[str, Any] = {
        "architecture": kind.split()[0], "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": normalize,
        "metadata": {"hook_name": "blocks.1.hook_resid_post"},
    }  # fmt: skip
    if "topk" in kind:
        config |= {"k": K, "rescale_acts_by_decoder_norm": "rescaled" in kind}
    inner = SAE.from_dict(config)
    weight = torch.randn(D, F, generator=rng) / D**0.5
    state = {"W_enc": weight, "W_dec": weight.T * torch.rand(F, 1, generator=rng)}
    state["b_dec"] = torch.randn(D, generator=rng)
    bias = torch.randn(F, generator=rng) * 0.1
    shift = 0.0 if "topk" in kind else 3.0
    if kind == "gated":
        state |= {"b_gate": bias - shift, "b_mag": bias, "r_mag": bias}
    else:
        state |= {"b_enc": bias - shift / 2}
    if kind == "jumprelu":
        state |= {"threshold": torch.full((F,), shift / 2)}
    if off:
        state["b_gate" if kind == "gated" else "b_enc"][::3] = -torch.inf
    inner.load_state_dict(state)
    return SaeV(inner, kind)


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(seed)) * 1.3


def dense(sae: SaeV, hidden: torch.Tensor) -> torch.Tensor:
    z = torch.zeros(len(hidden), F)
    features = sparse_features(sae, hidden, SCALE)
    z[torch.repeat_interleave(torch.arange(len(hidden)), features.count_t), features.feature_e] = features.z_e
    return z


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_saelens_computes(kind: str, off: bool) -> None:
    sae = made_up(kind, off=off and "rescaled" not in kind)
    assert applies(sae)
    hidden = tokens()
    expected, z = sae.encode(hidden), dense(sae, hidden)
    torch.testing.assert_close(z, expected, atol=2e-5, rtol=1e-5)
    different = ((z > 0) != (expected > 0)).sum()
    assert int(different) == 0 and int((z > 0).sum()) > 100


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
def test_inputs_are_scaled_as_saelens_scales_them(normalize: str) -> None:
    sae = made_up("topk", normalize=normalize)
    torch.testing.assert_close(dense(sae, tokens()), sae.encode(tokens()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_same_in_either_type_and_any_batch(kind: str) -> None:
    hidden, sae = tokens(), made_up(kind)
    z = dense(sae, hidden)
    alone = made_up(kind)
    parts = [dense(alone, part) for part in (hidden[:1], hidden[1:30], hidden[30:])]
    assert torch.equal(torch.cat(parts), z)
    plain = made_up(kind)
    plain.products = Products(exact=True)
    assert torch.equal(dense(plain, hidden), z)
    assert plain.products.facts()["encoder"].keys() == {"float32"}
    if has_units():
        assert "bfloat16" in sae.products.facts()["encoder"]


def test_of_equal_features_the_first_are_active() -> None:
    sae = made_up("topk")
    sae.sae.W_enc.data[:, 1::2] = sae.sae.W_enc.data[:, ::2]
    sae.sae.b_enc.data[1::2] = sae.sae.b_enc.data[::2]
    z = dense(sae, tokens())
    even, odd = z[:, ::2] > 0, z[:, 1::2] > 0
    assert int(odd.sum()) and not bool((odd & ~even).any())


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_not_finite_have_no_events(kind: str) -> None:
    hidden = tokens()[:4]
    hidden[1] = torch.nan
    sae = made_up(kind)
    features = sparse_features(sae, hidden, SCALE)
    assert features.count_t[1] == 0 and (features.count_t[[0, 2, 3]] > 0).all()
    assert bool(torch.isfinite(features.z_e).all())
    assert not len(sparse_features(sae, hidden[:0], SCALE).z_e)


def test_other_saes_are_encoded_as_before() -> None:
    sae = made_up("topk")
    assert sparse_encoder(sae) is sparse_encoder(sae) is not None
    sae.n_features = FEWEST - 1
    assert not applies(sae)
    wide = made_up("topk")
    wide.sae.cfg.k = F // 10
    assert not applies(wide)
