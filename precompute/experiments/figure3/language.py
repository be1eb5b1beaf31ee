"""What learning to see did to the language model: its cross-entropy on text, before and after."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precompute.data.batches import Batching, plan_rows
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.experiments.options import Figure3Options
from precompute.model.loader import load_batches, load_model
from precompute.options.shared import ModelLoading
from precompute.training.evaluate import losses
from precompute.utils.stats import bootstrap_rows, interval


def language_model(o: Figure3Options, base_model: Path, mllm_model: Path, source: Path) -> dict[str, Any]:
    """Cross-entropy of the held-out text in both models and its change, paired by text, each with a 95 % interval:
    of all texts, of the captions alone and of the plain texts alone."""
    base, mllm = (text_losses(o, model, source) for model in (base_model, mllm_model))
    ids = sorted(base)
    if ids != sorted(mllm):
        raise SaevxError("The two models do not take the same held-out texts: name another layer or data.")
    kinds = {"all": "", "captions": "validation-", "plain": "test-plain-"}
    changes = {}
    for kind, begin in kinds.items():
        ids_of_kind = [sample_id for sample_id in ids if sample_id.startswith(begin)]
        base_n2, mllm_n2 = (np.array([losses_of[i] for i in ids_of_kind]) for losses_of in (base, mllm))
        changes[kind] = change(base_n2, mllm_n2, o.resamples)
    return changes


def text_losses(o: Figure3Options, model: Path, source: Path) -> dict[str, tuple[float, float]]:
    """By sample id: summed cross-entropy in nats, and the number of tokens predicted."""
    mllm = load_model(str(model), ModelLoading(device=o.device, dtype=o.dtype), layer=o.layer, full=True)
    data, plan = plan_rows(mllm, read(str(source)), str(source), Batching(4096, seed=0))
    losses_by_id: dict[str, tuple[float, float]] = {}
    for loaded_batch in load_batches(mllm, ([data.rows[at] for at in batch] for batch in plan.batches)):
        if loaded_batch.batch is not None:
            _, nll_b, n_b = losses(mllm, loaded_batch.batch)
            for row, nll, n in zip(loaded_batch.rows, nll_b.tolist(), n_b.tolist(), strict=True):
                losses_by_id[row.sample_id] = (nll, float(n))
    return losses_by_id


def change(base_n2: NDArray[np.float64], mllm_n2: NDArray[np.float64], resamples: int) -> dict[str, Any]:
    """Mean cross-entropy a token before, after, and after less before; samples are resampled together."""
    n = len(base_n2)
    picked_wn = np.concatenate(list(bootstrap_rows(n, resamples, seed=0)))

    def mean(nll_n2: NDArray[np.float64], at: Any) -> Any:
        total = nll_n2[at].sum(axis=-2)
        return total[..., 0] / total[..., 1]

    value = [mean(nll_n2, np.arange(n)) for nll_n2 in (base_n2, mllm_n2)]
    draws = [mean(nll_n2, picked_wn) for nll_n2 in (base_n2, mllm_n2)]
    return {
        "base": interval(float(value[0]), draws[0]),
        "mllm": interval(float(value[1]), draws[1]),
        "change": interval(float(value[1] - value[0]), draws[1] - draws[0]),
        "n_texts": n,
        "targets": int(base_n2[:, 1].sum()),
    }
