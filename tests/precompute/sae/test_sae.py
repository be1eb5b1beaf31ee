import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from precompute.errors import SaevxError
from precompute.model.calibration import average_factor
from precompute.sae.sae import SaeV
from tests.helpers import tiny
from tests.helpers.sae_formats import sparsify

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
    {"architecture": "abstopk"},
    {"architecture": "matching_pursuit", "max_iterations": 12},
    {"architecture": "matching_pursuit", "max_iterations": 12, "apply_b_dec_to_input": False},
    {"architecture": "batchtopk"},
    {"architecture": "matryoshka_batchtopk", "rescale_acts_by_decoder_norm": False},
]


def named(kind: dict[str, Any]) -> str:
    return "-".join(str(value) for value in kind.values())


@pytest.fixture(params=KINDS, ids=named)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path, **request.param))


def test_directions_are_what_decoding_adds(kind: SaeV) -> None:
    """d_k = decode(e_k) − decode(0), with whatever scaling the SAE applies to that token."""
    h_td = HIDDEN[:1].expand(kind.n_features, -1)
    eye = torch.eye(kind.n_features)
    added_fd = kind.decode(eye, h_td) - kind.decode(torch.zeros_like(eye), h_td)
    scale = kind.token_scale(h_td)
    right = kind.directions_fd if scale is None else kind.directions_fd * scale
    torch.testing.assert_close(added_fd, right, rtol=1e-4, atol=1e-4)


def test_sparse_reconstruction_is_the_decoder(kind: SaeV) -> None:
    acts_tf = kind.encode(HIDDEN)
    assert acts_tf.dtype == torch.float32 and bool((acts_tf >= 0).all()) and bool((acts_tf > 0).any())
    row, feature = (acts_tf > 0).nonzero(as_tuple=True)
    offset = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(row, minlength=len(HIDDEN)).cumsum(0)])
    rebuilt = kind.reconstruct(offset, feature, acts_tf[row, feature], HIDDEN)
    torch.testing.assert_close(rebuilt, kind.decode(acts_tf, HIDDEN), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", KINDS, ids=named)
def test_it_is_saelens_own(options: dict[str, Any], tmp_path: Path) -> None:
    """Encoding bit for bit, decoding too; of a trainer's checkpoint, what SAELens itself saves for inference."""
    from sae_lens import SAE, TrainingSAE

    folder = tiny.make_sae(tmp_path / "sae", **options)
    right = folder
    if options["architecture"].endswith("batchtopk"):
        TrainingSAE.load_from_disk(folder).save_inference_model(right := tmp_path / "inference")
    own, ours = SAE.load_from_disk(right), SaeV.load(folder)
    with torch.no_grad():
        acts_tf = own.encode(HIDDEN)
        rebuilt_td = own.decode(acts_tf)
    mine_tf = ours.encode(HIDDEN)
    assert torch.equal(ours.decode(mine_tf, HIDDEN), rebuilt_td)
    if ours.signed:
        assert bool((acts_tf < 0).any()), "this SAE has features of both signs"
        mine_tf = mine_tf[:, : tiny.N_FEATURES] - mine_tf[:, tiny.N_FEATURES :]
    assert torch.equal(mine_tf, acts_tf)


def test_every_architecture_of_saelens_is_run_or_refused() -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    run = {str(kind["architecture"]) for kind in KINDS}
    refused = {"temporal", "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"}
    assert run | refused == set(SAE_CLASS_REGISTRY) | set(SAE_TRAINING_CLASS_REGISTRY)


def test_what_is_no_sae_of_single_tokens_is_refused(tmp_path: Path) -> None:
    for name, options in (
        ("transcoder", {"d_out": tiny.D_MODEL, "apply_b_dec_to_input": False}),
        ("temporal", {"n_heads": 2, "bottleneck_factor": 4}),
    ):
        folder = tiny.make_sae(tmp_path / name, architecture=name, **options)
        with pytest.raises(SaevxError, match="choose another architecture"):
            SaeV.load(folder)


def test_encoding_twice_is_the_same(kind: SaeV) -> None:
    assert torch.equal(kind.encode(HIDDEN), kind.encode(HIDDEN))


def average(folder: Path, **options: object) -> Path:
    return tiny.make_sae(folder, normalize_activations="expected_average_only_in", **options)


def expected(plain: SaeV, factor: float) -> torch.Tensor:
    """The SAE run on scaled inputs."""
    with torch.no_grad():
        return plain.sae.activation_fn((HIDDEN * factor - plain.sae.b_dec) @ plain.sae.W_enc + plain.sae.b_enc)


STORED = {
    "cfg.json": {"norm_scaling_factor": 0.5},
    "activation_scaler.json": {"scaling_factor": 0.5},
    "activations_store_state.safetensors": {"estimated_norm_scaling_factor": torch.tensor(0.5)},
}


@pytest.mark.parametrize("name", STORED)
def test_a_stored_input_factor_is_folded(tmp_path: Path, name: str) -> None:
    """Wherever a version of SAELens left it."""
    folder = average(tmp_path)
    plain = SaeV.load(tiny.make_sae(tmp_path / "plain"))
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(STORED[name], path)
    else:
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **STORED[name]}))
    folded = SaeV.load(folder)
    assert not folded.lacks_factor and folded.input_factor == {"value": 0.5, "source": "stored"}
    torch.testing.assert_close(folded.encode(HIDDEN), expected(plain, 0.5))
    rebuilt = folded.decode(folded.encode(HIDDEN))
    torch.testing.assert_close(rebuilt, plain.decode(expected(plain, 0.5)) / 0.5)


@pytest.mark.parametrize("architecture", ["standard", "matching_pursuit"])
def test_a_missing_input_factor_is_asked_for(tmp_path: Path, architecture: str) -> None:
    plain = SaeV.load(tiny.make_sae(tmp_path / "plain", architecture=architecture))
    sae = SaeV.load(average(tmp_path / "average", architecture=architecture))
    with pytest.raises(SaevxError, match="factor is not known"):
        sae.encode(HIDDEN)
    with pytest.raises(SaevxError, match="so does the store"):
        sae.fold_factor_of_store({"input_factor": None})
    name, before_fd = sae.sha256, sae.directions_fd.clone()
    sae.fold_factor_of_store({"input_factor": {"value": 0.25, "source": "estimated"}})
    assert sae.sha256 == name and sae.input_factor == {"value": 0.25, "source": "estimated"}
    rebuilt = sae.decode(sae.encode(HIDDEN))
    torch.testing.assert_close(rebuilt, plain.decode(plain.encode(HIDDEN * 0.25)) / 0.25, rtol=1e-4, atol=1e-4)
    if architecture == "standard":
        torch.testing.assert_close(sae.directions_fd, before_fd / 0.25)
    sae.fold_input_factor(9.0)  # it lacks none now
    torch.testing.assert_close(rebuilt, sae.decode(sae.encode(HIDDEN)))


def test_the_average_factor_makes_the_mean_norm_root_d() -> None:
    factor = average_factor([HIDDEN[:20], HIDDEN[20:]])
    assert float((HIDDEN * factor).norm(dim=-1).mean()) == pytest.approx(tiny.D_MODEL**0.5, rel=1e-6)
    with pytest.raises(SaevxError, match="cannot be estimated"):
        average_factor([torch.zeros(3, 4)])


def test_whitened_inputs_are_folded(tmp_path: Path) -> None:
    plain = SaeV.load(tiny.make_sae(tmp_path / "plain"))
    folder = tiny.make_sae(tmp_path / "white", normalize_activations="covariance_whitening")
    with pytest.raises(SaevxError, match="whitened"):
        SaeV.load(folder)
    mean_d, matrix_dd = HIDDEN.mean(0).double(), torch.linalg.inv(torch.cov(HIDDEN.T.double()) + torch.eye(32))
    tensors = {"mean": mean_d, "matrix": matrix_dd, "inverse_matrix": torch.linalg.inv(matrix_dd)}
    path = folder / "activation_whitening.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    white_td = ((HIDDEN.double() - mean_d) @ matrix_dd).float()
    torch.testing.assert_close(SaeV.load(folder).encode(HIDDEN), plain.encode(white_td), rtol=1e-3, atol=1e-4)


# ---- checkpoints of SAELens before version 6, such as SAE-V's released ones


def make_old(folder: Path, **changed: object) -> Path:
    """As SAELens 4 wrote it: one flat cfg.json."""
    plain = SaeV.load(tiny.make_sae(folder)).sae
    config = {
        "architecture": "standard", "d_in": tiny.D_MODEL, "d_sae": tiny.N_FEATURES, "dtype": "torch.float32",
        "device": "cuda:0", "model_name": "mistralai/Mistral-7B-Instruct-v0.2",
        "hook_name": "blocks.16.hook_resid_post", "hook_layer": 16, "hook_head_index": None,
        "activation_fn_str": "relu", "activation_fn_kwargs": {}, "apply_b_dec_to_input": False,
        "finetuning_scaling_factor": False, "sae_lens_training_version": "4.0.0", "prepend_bos": True,
        "dataset_path": "data", "dataset_trust_remote_code": True, "context_size": 4096,
        "normalize_activations": "none", "neuronpedia_id": None, "model_from_pretrained_kwargs": {},
    }  # fmt: skip
    config.update(changed)
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))
    save_file({k: v.contiguous() for k, v in plain.state_dict().items()}, folder / "sae_weights.safetensors")
    return folder


def test_an_old_checkpoint(tmp_path: Path) -> None:
    sae = SaeV.load(make_old(tmp_path))
    assert (sae.layer, sae.architecture, sae.normalize) == (16, "standard", "none")
    assert (sae.d_model, sae.n_features) == (tiny.D_MODEL, tiny.N_FEATURES)
    assert str(sae.device) == "cpu"
    torch.testing.assert_close(sae.encode(HIDDEN), torch.relu(HIDDEN @ sae.sae.W_enc + sae.sae.b_enc))


def test_old_keys_keep_their_meaning(tmp_path: Path) -> None:
    topk = SaeV.load(make_old(tmp_path / "a", activation_fn_str="topk", activation_fn_kwargs={"k": 5}))
    assert topk.architecture == "topk" and int((topk.encode(HIDDEN) > 0).sum(1).max()) <= 5
    assert SaeV.load(make_old(tmp_path / "b", normalize_activations=True)).lacks_factor
    assert SaeV.load(make_old(tmp_path / "c", normalize_activations="constant_norm_rescale")).normalize in (
        "constant_norm_rescale"
    )
    renamed = {"hook_name": "absent", "hook_layer": "absent", "activation_fn_str": "absent", "architecture": "absent"}
    oldest = make_old(tmp_path / "d", **renamed, hook_point="blocks.{layer}.hook_resid_pre", hook_point_layer=9)
    assert SaeV.load(oldest).layer == 8


def test_a_hook_in_metadata_without_a_version_is_used(tmp_path: Path) -> None:
    """SAELens takes such a file for one of its version 5, of which it reads no metadata."""
    nowhere = {"hook_name": "absent", "hook_layer": "absent"}
    hook = {"hook_name": "blocks.3.hook_resid_post"}
    assert SaeV.load(make_old(tmp_path / "a", **nowhere, metadata=hook)).layer == 3
    layer = {"hook_name": "blocks.{layer}.hook_resid_pre", "hook_layer": 3}
    assert SaeV.load(make_old(tmp_path / "b", **nowhere, metadata=layer)).layer == 2
    assert SaeV.load(make_old(tmp_path / "c", hook_layer="absent", metadata=hook)).layer == 16


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_byte_order_mark_is_passed_over(architecture: str, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path, architecture=architecture)
    plain = SaeV.load(folder).encode(HIDDEN)
    text = (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(text, encoding="utf-8-sig")
    assert torch.equal(SaeV.load(folder).encode(HIDDEN), plain)


def test_a_factor_learnt_after_training_goes_into_the_decoder(tmp_path: Path) -> None:
    plain = SaeV.load(make_old(tmp_path / "plain"))
    folder = make_old(tmp_path / "tuned", finetuning_scaling_factor=True)
    state = load_file(folder / "sae_weights.safetensors")
    factor_f = torch.linspace(0.5, 2.0, tiny.N_FEATURES)
    save_file({**state, "finetuning_scaling_factor": factor_f}, folder / "sae_weights.safetensors")
    tuned = SaeV.load(folder)
    acts_tf = tuned.encode(HIDDEN)
    assert torch.equal(acts_tf, plain.encode(HIDDEN))
    torch.testing.assert_close(tuned.decode(acts_tf), plain.decode(acts_tf * factor_f))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation function is 'tanh-relu'"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3, "signed": True}}, "signed topk"),
        ({"hook_head_index": 3}, "attention head 3"),
        ({"activation": "groupmax", "activation_fn_str": None}, "'groupmax'"),
        ({"signed": True}, "signed topk"),
        ({"transcode": True}, "writes to another"),
        ({"hook_name": "blocks.16.hook_mlp_out"}, "residual stream"),
        ({"hook_layer": 3}, "layer 3 and hook 'blocks.16.hook_resid_post'"),
    ],
)
def test_what_saelens_would_misread_is_refused(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(make_old(tmp_path, **changed))


def test_a_folder_of_sparsify(tmp_path: Path) -> None:
    """As multimodal-sae's: the layer stands in the folder's name."""
    plain = SaeV.load(tiny.make_sae(tmp_path / "plain", architecture="topk", k=6))
    state = {**plain.sae.state_dict(), "W_dec": plain.sae.W_dec.T}
    shape = {"num_latents": tiny.N_FEATURES, "expansion_factor": "absent"}
    sae = SaeV.load(sparsify(tmp_path / "model.layers.24", state, **shape, k=6, normalize_decoder=False))
    assert sae.layer == 24 and sae.architecture == "topk"
    assert torch.equal(sae.encode(HIDDEN), plain.encode(HIDDEN))


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
