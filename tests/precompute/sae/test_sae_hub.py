"""SAEs by name: every release that SAELens lists, and repositories, read from a hub of our own over HTTP."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from precompute.errors import SaevxError
from precompute.sae.hook_names import layer_of
from precompute.sae.sae import SaeV
from tests.helpers import tiny
from tests.helpers.hub import Hub

GEMMA = "layer_17_width_16k_l0_medium"
LOAD = """
import json, sys, torch
torch.set_num_threads(1)
from precompute.errors import SaevxError
from precompute.sae.sae import SaeV
facts = {}
for name in sys.argv[1:]:
    try:
        sae = SaeV.load(name)
        facts[name] = [sae.layer, sae.architecture, sae.n_features, float(sae.encode(torch.ones(1, sae.d_model)).sum())]
    except SaevxError as error:
        facts[name] = str(error)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str], SaeV]:
    """What SaeV.load makes of each name in a process whose hub is ours, the files that it fetched, and the SAE that
    every one of them holds."""
    root = tmp_path_factory.mktemp("hub")
    plain = SaeV.load(tiny.make_sae(root / "someone/saes/layer 2/run", architecture="jumprelu"))
    tiny.make_sae(root / "someone/saes", architecture="jumprelu")
    (root / "someone/saes/huge.bin").write_bytes(bytes(1000))
    state = {name.replace("W_", "w_"): value.contiguous() for name, value in plain.sae.state_dict().items()}
    for kind in ("resid_post", "mlp_out"):
        folder = root / "google/gemma-scope-2-4b-it" / kind / GEMMA
        folder.mkdir(parents=True)
        save_file(state, folder / "params.safetensors")
        hook = "model.layers.17.output"
        report = {"architecture": "jump_relu", "model_name": "gemma-v3-4b-it", "hf_hook_point_in": hook}
        (folder / "config.json").write_text(json.dumps(report))
    dictionary = root / "someone/dictionaries/layer_2/trainer_0"
    dictionary.mkdir(parents=True)
    trainer = {"dict_class": "JumpReluAutoEncoder", "layer": tiny.LAYER}
    (dictionary / "config.json").write_text(json.dumps({"trainer": trainer}))
    tensors = {name: value.contiguous() for name, value in plain.sae.state_dict().items()}
    torch.save(tensors, dictionary / "ae.pt")
    message = {"hook_name": f"model.layers.{tiny.LAYER}", "apply_b_dec_to_input": "true"}
    save_file(tensors, root / "someone/saes/plain.safetensors", message)
    names = [
        "someone/dictionaries/layer_2/trainer_0", "someone/saes/plain.safetensors",
        f"gemma-scope-2-4b-it-res:{GEMMA}", f"google/gemma-scope-2-4b-it/resid_post/{GEMMA}",
        "someone/saes/layer 2/run", "someone/saes:layer 2/run", "someone/saes", "someone/saes/layer 3",
        "someone/nothing/here",
        f"gemma-scope-2-4b-it-mlp:{GEMMA}", "gemma-scope-2-4b-it-res:layer_99",
    ]  # fmt: skip
    with Hub(root) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *names], env=env, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), hub.requests, plain


def test_a_release_and_the_same_place_by_its_repository(loaded: tuple[dict[str, Any], list[str], SaeV]) -> None:
    result, _, plain = loaded
    z = float(plain.encode(torch.ones(1, tiny.D_MODEL)).sum())
    for name in (f"gemma-scope-2-4b-it-res:{GEMMA}", f"google/gemma-scope-2-4b-it/resid_post/{GEMMA}"):
        layer, architecture, n_features, got = result[name]
        assert (layer, architecture, n_features) == (17, "jumprelu", tiny.N_FEATURES)
        assert got != z, "Gemma Scope does not take the decoder's bias off its input"


def test_a_repository_with_and_without_a_folder(loaded: tuple[dict[str, Any], list[str], SaeV]) -> None:
    result, query, plain = loaded
    right = [tiny.LAYER, "jumprelu", tiny.N_FEATURES, float(plain.encode(torch.ones(1, tiny.D_MODEL)).sum())]
    for name in ("someone/saes/layer 2/run", "someone/saes:layer 2/run", "someone/saes"):
        assert result[name] == right
    assert not [file for file in query if file.endswith("huge.bin")], "only the SAE is fetched"


def test_other_formats_of_a_repository(loaded: tuple[dict[str, Any], list[str], SaeV]) -> None:
    result, _, plain = loaded
    z = float(plain.encode(torch.ones(1, tiny.D_MODEL)).sum())
    layer, architecture, n_features, got = result["someone/dictionaries/layer_2/trainer_0"]
    assert (layer, architecture, n_features) == (tiny.LAYER, "jumprelu", tiny.N_FEATURES)
    assert got != z, "this class does not take the decoder's bias off its input"
    assert result["someone/saes/plain.safetensors"] == [tiny.LAYER, "jumprelu", tiny.N_FEATURES, z]


def test_wrong_names_are_explained(loaded: tuple[dict[str, Any], list[str], SaeV]) -> None:
    result = loaded[0]
    assert "someone/nothing/here" in result["someone/nothing/here"]
    assert "no SAE at someone/saes/layer 3" in result["someone/saes/layer 3"]
    assert "residual stream" in result[f"gemma-scope-2-4b-it-mlp:{GEMMA}"]
    assert "layer_99 not found" in result["gemma-scope-2-4b-it-res:layer_99"]


def test_the_layers_of_every_listed_release_of_the_residual_stream() -> None:
    """What SAELens itself says of a release without asking the hub, held against the layer in the SAE's name."""
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    seen = {"gemma_2": 0, "gemma_3": 0, "named": 0}
    for release in get_pretrained_saes_directory().values():
        for sae_id, place in release.saes_map.items():
            if release.conversion_func == "gemma_3" and "resid_post" in place:
                report = loaders._infer_gemma_3_raw_cfg_dict(release.repo_id, place)
                hooks, kind = [report["hf_hook_point_in"]], "gemma_3"
            elif release.conversion_func == "gemma_2" and "-res" in release.repo_id and "layer_" in place:
                report = loaders.get_gemma_2_config_from_hf(release.repo_id, place, "cpu")
                hooks, kind = [report["hook_name"]], "gemma_2"
            elif "hook_resid_post" in sae_id:  # the id is the hook's name, a trainer's number behind it at most
                hooks, kind = [re.split("__", sae_id)[0]], "named"
            else:
                continue
            number = re.search(r"(?:layer_|layer|blocks\.)(\d+)", sae_id)
            assert number is not None
            assert [layer_of(hook) for hook in hooks] == [int(number[1])], f"{release.release}:{sae_id}"
            seen[kind] += 1
    assert seen["gemma_3"] > 1000 and seen["gemma_2"] > 1000 and seen["named"] > 500, seen


def test_other_places_of_listed_releases_are_refused() -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    refused = 0
    for release in get_pretrained_saes_directory().values():
        if release.conversion_func == "gemma_3":
            for place in [place for place in release.saes_map.values() if "resid_post" not in place][:3]:
                with pytest.raises(SaevxError, match="residual stream"):
                    layer_of(loaders._infer_gemma_3_raw_cfg_dict(release.repo_id, place)["hf_hook_point_in"])
                refused += 1
    assert refused > 50
