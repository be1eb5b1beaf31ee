"""SAEs in the formats of other libraries, made from one of SAELens, and the comparison of two SAEs."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from precompute.sae.sae import SaeV
from tests.helpers import tiny

HIDDEN = torch.randn(50, tiny.D_MODEL, generator=torch.Generator().manual_seed(3)) * 3
State = dict[str, Tensor]
K, THRESHOLD = torch.tensor(8, dtype=torch.int32), torch.tensor(0.7)


def saelens(folder: Path, architecture: str, **options: object) -> tuple[SaeV, State]:
    """A SAELens folder, loaded, and its tensors."""
    if architecture == "topk":
        options["rescale_acts_by_decoder_norm"] = False
    tiny.make_sae(folder, architecture=architecture, **options)
    sae = SaeV.load(folder)
    return sae, {name: tensor.contiguous() for name, tensor in sae.sae.state_dict().items()}


def same(sae: SaeV, right: SaeV) -> None:
    acts_tf = right.encode(HIDDEN)
    assert torch.equal(sae.encode(HIDDEN), acts_tf) and bool((acts_tf > 0).any())
    assert torch.equal(sae.decode(acts_tf, HIDDEN), right.decode(acts_tf, HIDDEN))
    assert (sae.layer, sae.architecture, sae.sha256) == (right.layer, right.architecture, right.sha256)


def linear(state: State, bias: str) -> State:
    """Under the names of `torch.nn.Linear`."""
    return {
        "encoder.weight": state["W_enc"].T,
        "encoder.bias": state["b_enc"],
        "decoder.weight": state["W_dec"].T,
        bias: state["b_dec"],
    }


def gated(state: State) -> State:
    return {
        "encoder.weight": state["W_enc"].T, "decoder.weight": state["W_dec"].T, "decoder_bias": state["b_dec"],
        "r_mag": state["r_mag"], "gate_bias": state["b_gate"], "mag_bias": state["b_mag"],
    }  # fmt: skip


CLASSES: dict[str, tuple[str, dict[str, object], Callable[[State], State]]] = {
    "AutoEncoder": ("standard", {}, lambda s: linear(s, "bias")),
    "AutoEncoderNew": ("standard", {"apply_b_dec_to_input": False}, lambda s: linear(s, "decoder.bias")),
    "GatedAutoEncoder": ("gated", {}, gated),
    "AutoEncoderTopK": ("topk", {}, lambda s: {**linear(s, "b_dec"), "k": K, "threshold": THRESHOLD}),
    "BatchTopKSAE": ("jumprelu", {}, lambda s: {**linear(s, "b_dec"), "k": K, "threshold": THRESHOLD}),
    "MatryoshkaBatchTopKSAE": (
        "jumprelu",
        {},
        lambda s: {**s, "k": K, "threshold": THRESHOLD, "group_sizes": torch.tensor([24, 72])},
    ),
    "JumpReluAutoEncoder": ("jumprelu", {"apply_b_dec_to_input": False}, dict),
}


def dictionary(folder: Path, kind: str, state: State, *, pickled: bool, **trainer: object) -> Path:
    """A folder as dictionary_learning's `trainSAE` leaves it."""
    folder.mkdir(parents=True)
    report = {
        "trainer_class": "Trainer", "dict_class": kind, "activation_dim": tiny.D_MODEL, "dict_size": tiny.N_FEATURES,
        "layer": tiny.LAYER, "lm_name": "some/model", "wandb_name": "topk-run", "submodule_name": None,
        "device": "cuda:0", **({"k": 8} if "TopK" in kind else {}), **trainer,
    }  # fmt: skip
    report = {name: value for name, value in report.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps({"trainer": report, "buffer": {"d_submodule": 32, "io": "out"}}))
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    if pickled:
        torch.save(tensors, folder / "ae.pt")
    else:
        save_file(tensors, folder / "ae.safetensors")
    return folder


def sparsify(folder: Path, state: State, **options: object) -> Path:
    """As sparsify saves it: the encoder a Linear, W_dec with features first."""
    folder.mkdir(parents=True)
    details = {
        "d_in": tiny.D_MODEL, "expansion_factor": 3, "num_latents": 0, "k": 8, "normalize_decoder": True, **options,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in details.items() if value != "absent"}))
    tensors = {"encoder.weight": state["W_enc"].T, "encoder.bias": state["b_enc"], "W_dec": state["W_dec"]}
    save_file({n: t.contiguous() for n, t in {**tensors, "b_dec": state["b_dec"]}.items()}, folder / "sae.safetensors")
    return folder
