"""Folders of dictionary_learning."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from precompute.errors import SaevxError
from precompute.sae.sae import SaeV
from tests.helpers.sae_formats import CLASSES, K, dictionary, linear, saelens, same


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_dictionary_learning(kind: str, pickled: bool, tmp_path: Path) -> None:
    architecture, options, renamed = CLASSES[kind]
    right, state = saelens(tmp_path / "right", architecture, **options)
    if architecture == "jumprelu" and "BatchTopK" in kind:
        right.sae.threshold.data.fill_(0.7)
        right = SaeV(right.sae, "right")
    folder = dictionary(tmp_path / "sae", kind, renamed(state), pickled=pickled)
    same(SaeV.load(folder), right)
    same(SaeV.load(folder, format="dictionary-learning"), right)
    same(SaeV.load(folder / ("ae.pt" if pickled else "ae.safetensors")), right)
    assert SaeV.load(folder).format == "dictionary-learning"


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("AutoEncoderTopK", {"k": "absent"}, "TopK.*does not say k"),
        ("AutoEncoderTopK", {"k": None}, "TopK.*does not say k"),
        ("AutoEncoder", {"dict_class": "CrossCoder"}, "CrossCoder"),
        ("AutoEncoder", {"dict_class": "absent"}, "dict_class = None"),
        ("AutoEncoder", {"layer": "absent"}, "--layer"),
        ("AutoEncoder", {"submodule_name": "mlp_out"}, "residual stream"),
        ("AutoEncoder", {"submodule_name": "attn_out_layer_2"}, "residual stream"),
        ("GatedAutoEncoder", {}, "lacks"),
    ],
)
def test_what_a_folder_of_dictionary_learning_does_not_say(
    kind: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    _, state = saelens(tmp_path / "right", "topk" if "TopK" in kind else "standard")
    folder = dictionary(tmp_path / "sae", kind, linear(state, "bias"), pickled=False, **change)
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(folder)


def test_ks_and_thresholds_that_contradict_or_were_never_learnt(tmp_path: Path) -> None:
    _, state = saelens(tmp_path / "right", "topk")
    two = dictionary(tmp_path / "two", "AutoEncoderTopK", {**linear(state, "b_dec"), "k": K + 1}, pickled=False)
    with pytest.raises(SaevxError, match=r"k = 8 and weights\.k = 9"):
        SaeV.load(two)
    alone = {**linear(state, "b_dec"), "k": K}
    own = dictionary(tmp_path / "own", "AutoEncoderTopK", alone, pickled=False, k="absent")
    assert SaeV.load(own).sae.cfg.k == 8
    for i, threshold in enumerate((None, -1.0, 0.0)):
        more = {} if threshold is None else {"threshold": torch.tensor(threshold)}
        folder = dictionary(tmp_path / str(i), "BatchTopKSAE", {**linear(state, "b_dec"), **more}, pickled=False)
        with pytest.raises(SaevxError, match="never learnt"):
            SaeV.load(folder)


def test_the_hook_of_dictionary_learning(tmp_path: Path) -> None:
    _, state = saelens(tmp_path / "right", "standard")
    for module, layer in (("resid_post_layer_2", 2), ("resid_pre_layer_2", 1), ("model.layers.2", 2)):
        place = tmp_path / module
        folder = dictionary(place, "AutoEncoder", linear(state, "bias"), pickled=False, submodule_name=module)
        assert SaeV.load(folder).layer == layer
    config = json.loads((folder / "config.json").read_text())
    del config["trainer"]["submodule_name"]
    (folder / "config.json").write_text(json.dumps({**config, "buffer": {"io": "in"}}))
    assert SaeV.load(folder).layer == 1, "what goes into layer 2 is what layer 1 gave"


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def test_no_code_in_a_pickle_is_run(tmp_path: Path) -> None:
    _, state = saelens(tmp_path / "right", "standard")
    folder = dictionary(tmp_path / "sae", "AutoEncoder", linear(state, "bias"), pickled=True)
    torch.save({**linear(state, "bias"), "more": Hostile(tmp_path / "ran")}, folder / "ae.pt")
    with pytest.raises(SaevxError, match="code in it is never run"):
        SaeV.load(folder)
    with (folder / "ae.pt").open("wb") as file:
        pickle.dump(Hostile(tmp_path / "ran"), file, protocol=2)
    with pytest.raises(SaevxError):
        SaeV.load(folder)
    torch.save({"encoder": linear(state, "bias")}, folder / "ae.pt")
    with pytest.raises(SaevxError, match="more than tensors"):
        SaeV.load(folder)
    (folder / "ae.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n")
    with pytest.raises(SaevxError, match="git-lfs"):
        SaeV.load(folder)
    assert not (tmp_path / "ran").exists()
