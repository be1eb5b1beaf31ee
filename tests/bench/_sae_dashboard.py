"""SAEDashboard's side of dashboard.py: run in an environment of its own, it imports nothing of this project.

    PYTHON _sae_dashboard.py JOB.json RESULT.json

It does what its `NeuronpediaRunner` does with a batch of features, and with that one's own defaults: `SaeVisRunner`
makes the data, which is written as JSON. (The runner itself takes models and data from a hub only.) Once without a
cache of the model's activations, as `SaeVisConfig` has it by default, and once with one.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformer_lens.loading_from_pretrained as loading
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_dashboard.sae_vis_data import SaeVisConfig, SaeVisData
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformers import AutoTokenizer

DEFAULTS = NeuronpediaRunnerConfig(sae_set="", sae_path="", outputs_dir="")


def load_model(folder: str, device: str) -> Any:
    """The model with its weights as they are: nothing folded or centred, so its residual stream is the model's own.

    TransformerLens' reader of Llama configs passes over the base of the rotary embedding: it is set here.
    """
    known = json.loads((Path(folder) / "config.json").read_text())
    config = loading.get_pretrained_model_config(folder, fold_ln=False, device=device, dtype=torch.float32)
    config.rotary_base = known["rope_theta"]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = HookedSAETransformer(config, tokenizer, move_to_device=False)
    model.load_and_process_state_dict(
        loading.get_pretrained_state_dict(folder, config, dtype=torch.float32),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    model.move_model_modules_to_device()
    return model


def config_of(job: dict[str, Any], features: list[int], cache: Path | None) -> SaeVisConfig:
    """As NeuronpediaRunner builds it, from its own defaults."""
    column = Column(
        SequencesConfig(
            stack_mode="stack-all", buffer=None, compute_buffer=True, n_quantiles=DEFAULTS.n_quantiles,
            top_acts_group_size=DEFAULTS.top_acts_group_size, quantile_group_size=DEFAULTS.quantile_group_size,
        ),
        ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig(), FeatureTablesConfig(n_rows=3),
    )  # fmt: skip
    return SaeVisConfig(
        hook_point=job["hook"],
        features=features,
        minibatch_size_features=job["batch_features"],
        minibatch_size_tokens=DEFAULTS.n_prompts_in_forward_pass,
        quantile_feature_batch_size=DEFAULTS.quantile_feature_batch_size,
        device=job["device"],
        dtype="float32",
        ignore_tokens=set(job["ignore"]),
        cache_dir=cache,
        feature_centric_layout=SaeVisLayoutConfig(columns=[column]),
    )


def top(data: SaeVisData) -> dict[int, list[tuple[int, int, float]]]:
    """Of each feature (sequence, position, activation) of the strongest tokens, none without activation."""
    result = {}
    for feature, of in data.feature_data_dict.items():
        group = of.sequence_data.seq_group_data[0].seq_data
        # The activations it keeps of a whole sequence begin at the second token.
        places = [(one, one.qualifying_token_index) for one in group if one.qualifying_token_index > 0]
        valued = [(one.original_index, at, one.feat_acts[at - 1]) for one, at in places]
        result[feature] = [place for place in valued if place[2] > 0]
    return result


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    tokens = torch.from_numpy(np.load(job["tokens"]))
    model = load_model(job["model"], job["device"])
    sae = SAE.load_from_disk(job["sae"], device=job["device"], dtype="float32")
    words = {token_id: token for token, token_id in model.tokenizer.vocab.items()}
    scratch = Path(job["scratch"])

    def batch(features: list[int], tokens_bs: torch.Tensor, cache: Path | None) -> SaeVisData:
        data = SaeVisRunner(config_of(job, features, cache)).run(sae, model, tokens_bs)
        written = NeuronpediaConverter.convert_to_np_json(model, data, DEFAULTS, words)
        (scratch / f"batch-{features[0]}.json").write_text(written)
        return data

    size = job["batch_features"]
    batches = [list(range(at, at + size)) for at in range(0, job["features"], size)]
    batch(batches[0][:2], tokens[:4], None)  # whatever a library does once is not what is measured
    seconds: dict[str, list[float]] = {}
    examples: dict[int, list[tuple[int, int, float]]] = {}
    for way, cache in {"default": None, "cache": scratch / "cache"}.items():
        seconds[way] = []
        for features in batches:
            begin = time.perf_counter()
            data = batch(features, tokens, cache)
            seconds[way].append(time.perf_counter() - begin)
            examples.update(top(data))
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "examples": examples}))


if __name__ == "__main__":
    main()
