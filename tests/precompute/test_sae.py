from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from precompute.errors import SaevxError
from precompute.sae import SaeV, layer_of
from tests import tiny

HIDDEN = torch.randn(50, tiny.D_MODEL, generator=torch.Generator().manual_seed(3)) * 3
KINDS = [
    {"architecture": "standard"},
    {"architecture": "standard", "apply_b_dec_to_input": False},
    {"architecture": "standard", "normalize_activations": "constant_norm_rescale"},
    {"architecture": "standard", "normalize_activations": "layer_norm"},
    {"architecture": "topk"},
    {"architecture": "topk", "rescale_acts_by_decoder_norm": True},
    {"architecture": "jumprelu"},
    {"architecture": "gated"},
]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(str(v) for v in kind.values()))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path, **request.param))


def test_directions_are_what_decoding_adds(kind: SaeV) -> None:
    """d_k = decode(e_k) − decode(0), with whatever scaling the SAE applies to that token."""
    h_td = HIDDEN[:1].expand(tiny.N_FEATURES, -1)
    eye = torch.eye(tiny.N_FEATURES)
    added_fd = kind.decode(eye, h_td) - kind.decode(torch.zeros_like(eye), h_td)
    scale = kind.token_scale(h_td)
    right = kind.directions_fd if scale is None else kind.directions_fd * scale
    torch.testing.assert_close(added_fd, right, rtol=1e-4, atol=1e-4)


def test_sparse_reconstruction_is_the_decoder(kind: SaeV) -> None:
    acts_tf = kind.encode(HIDDEN)
    assert acts_tf.dtype == torch.float32 and bool((acts_tf >= 0).all()) and bool((acts_tf > 0).any())
    row, feature = (acts_tf > 0).nonzero(as_tuple=True)
    offset = torch.cat(
        [torch.zeros(1, dtype=torch.long), torch.bincount(row, minlength=len(HIDDEN)).cumsum(0)]
    )
    rebuilt = kind.reconstruct(offset, feature, acts_tf[row, feature], HIDDEN)
    torch.testing.assert_close(rebuilt, kind.decode(acts_tf, HIDDEN), rtol=1e-4, atol=1e-4)


def test_it_is_saelens_own_encoding(tmp_path: Path) -> None:
    from sae_lens import SAE

    folder = tiny.make_sae(tmp_path)
    assert torch.equal(SaeV.load(folder).encode(HIDDEN), SAE.load_from_disk(folder).encode(HIDDEN))


def test_encoding_twice_is_the_same(kind: SaeV) -> None:
    assert torch.equal(kind.encode(HIDDEN), kind.encode(HIDDEN))


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.10.hook_resid_post", 10),
        ("blocks.3.hook_resid_pre", 2),
        ("model.layers.7", 7),
        ("model.language_model.layers.16", 16),
        ("language_model.model.layers.16", 16),
        ("transformer.h.5", 5),
    ],
)
def test_layer_of(hook: str, layer: int) -> None:
    assert layer_of(hook) == layer


@pytest.mark.parametrize(
    "hook", ["blocks.3.hook_mlp_out", "blocks.0.hook_resid_pre", "model.layers.7.mlp", "x"]
)
def test_other_hooks_are_refused(hook: str) -> None:
    with pytest.raises(SaevxError, match="residual stream"):
        layer_of(hook)


def test_layer_can_be_named(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path, hook="")
    with pytest.raises(SaevxError, match="--layer"):
        SaeV.load(folder)
    assert SaeV.load(folder, layer=3).layer == 3


def test_a_stored_input_factor_is_folded(tmp_path: Path) -> None:
    plain = SaeV.load(tiny.make_sae(tmp_path / "plain"))
    folder = tiny.make_sae(tmp_path / "scaled", normalize_activations="expected_average_only_in")
    with pytest.raises(SaevxError, match="factor"):
        SaeV.load(folder)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "norm_scaling_factor": 0.5}))
    folded = SaeV.load(folder)
    expected = plain.sae.activation_fn((HIDDEN * 0.5 - plain.sae.b_dec) @ plain.sae.W_enc + plain.sae.b_enc)
    torch.testing.assert_close(folded.encode(HIDDEN), expected)


def test_sha256_tells_saes_apart_wherever_they_lie(tmp_path: Path) -> None:
    a, b = (SaeV.load(tiny.make_sae(tmp_path / name)) for name in "ab")
    assert a.sha256 == b.sha256
    with torch.no_grad():
        b.sae.b_enc[0] += 1
    assert SaeV(b.sae, "b").sha256 != a.sha256


def test_what_is_no_sae(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "gone", "no-such-release:x"):
        with pytest.raises(SaevxError):
            SaeV.load(name)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(SaevxError, match="cannot be loaded"):
        SaeV.load(tmp_path)
    with pytest.raises(SaevxError, match="another model"):
        SaeV.load(tiny.make_sae(tmp_path)).check(64)
