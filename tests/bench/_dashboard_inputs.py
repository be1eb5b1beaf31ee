"""What the comparison with SAEDashboard runs on: the language model, a corpus of token ids, and random SAEs."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sae_lens import SAE
from torch import Tensor
from transformers import AutoModelForCausalLM

from precompute.model.batch import TEXT, Pair
from precompute.model.loading import silence_warnings
from precompute.model.mllm import Mllm
from tests.bench.common import Setup

LENGTH, ACTIVE, CALIBRATION = 128, 45, 16


def language_model(setup: Setup, layer: int) -> Mllm:
    """The demo's language model by itself, to layer L, as a causal model's folder that transformers 4 and 5 read."""
    folder = setup.scratch / "lm"
    mllm = Mllm.load(setup.demo / "model", layer=layer, device="cpu", dtype="float32")
    config = copy.deepcopy(mllm.model.config.get_text_config())
    config.num_hidden_layers = layer + 1
    lm = AutoModelForCausalLM.from_config(config)
    lm.model.load_state_dict(mllm.decoder.state_dict())
    with silence_warnings():
        lm.save_pretrained(folder)
    mllm.tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    mllm.tokenizer.save_pretrained(folder)
    rewrite(folder / "config.json", rope_theta=lm.config.rope_parameters["rope_theta"])
    rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return Mllm.load(folder, layer=layer, device=setup.device, dtype="float32")


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=1))


def corpus(setup: Setup, mllm: Mllm, n: int, *, again: bool = False) -> tuple[Path, NDArray[np.int64]]:
    """The demo's captions one after the other, cut into n documents of 128 tokens, the first of them the
    begin-of-sequence token; as data of our own, and as tokens [n, 128]. `again` takes the captions in further orders
    where they are used up."""
    lines = (setup.demo / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    captions, rng = [json.loads(line)["text"] for line in lines], np.random.default_rng(0)
    stream: list[int] = mllm.tokenizer("\n".join(captions), add_special_tokens=False)["input_ids"]
    while again and len(stream) < 2 * n * LENGTH:
        shuffled = "\n".join(captions[i] for i in rng.permutation(len(captions)))
        stream += mllm.tokenizer(shuffled, add_special_tokens=False)["input_ids"]
    texts: list[str] = []
    rows = []
    for at in range(0, len(stream) - LENGTH, LENGTH - 1):
        text = mllm.tokenizer.decode(stream[at : at + LENGTH - 1])
        batch = mllm.prepare([Pair(text)])
        ids = batch.inputs["input_ids"][0].cpu().numpy()
        # A cut may fall where the text alone is tokenised otherwise, or a document stand there already.
        if len(ids) == LENGTH and text not in texts and (batch.modality_bs[0, 1:] == TEXT).all():
            texts.append(text)
            rows.append(ids)
        if len(texts) == n:
            break
    assert len(texts) == n, f"only {len(texts)} documents"
    path = setup.scratch / "documents.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    return path, np.stack(rows)


def hidden(mllm: Mllm, path: Path) -> Tensor:
    """h [t, d] of the first documents' own tokens."""
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()[:CALIBRATION]]
    return mllm.hidden(mllm.prepare([Pair(text) for text in texts]))[:, 1:].flatten(0, 1).float().cpu()


def random_sae(
    folder: Path, hidden_td: Tensor, layer: int, n_features: int, architecture: str, active: int = ACTIVE
) -> Path:
    """A SAELens SAE with random directions, `active` of which are active at a token. Decoder rows have length 1."""
    rng = torch.Generator().manual_seed(n_features)
    d_model = hidden_td.shape[1]
    encoder_df = torch.randn(d_model, n_features, generator=rng) / hidden_td.std(dim=0)[:, None] / d_model**0.5
    state = {
        "W_enc": encoder_df,
        "b_enc": torch.zeros(n_features),
        "W_dec": torch.nn.functional.normalize(encoder_df.T, dim=1).contiguous(),
        "b_dec": hidden_td.mean(dim=0),
    }
    config: dict[str, Any] = {
        "architecture": architecture, "d_in": d_model, "d_sae": n_features, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": "lm"},
    }  # fmt: skip
    if architecture == "topk":
        config |= {"k": active, "rescale_acts_by_decoder_norm": True}
    else:
        before_tf = (hidden_td - state["b_dec"]) @ encoder_df
        state["b_enc"] = -before_tf.quantile(1 - active / n_features, dim=0)
    sae = SAE.from_dict(config)
    sae.load_state_dict(state)
    sae.save_model(folder)
    return folder
