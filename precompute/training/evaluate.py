"""`saevx evaluate`: what an SAE is worth inside a model (METHOD, *Quality of an SAE-V*).

The model runs over the data as it is, with h zeroed, and with ĥ in the place of h; sums are kept per sample, so that
intervals come from resampling samples.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.data.batches import Batching, plan_rows, smallest_hashes
from precompute.data.disk.row_table import SampleIds, take
from precompute.data.records import RejectedRow
from precompute.data.rejections import summary_of
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, TEXT, Batch
from precompute.model.calibration import calibrate_data, mark_sinks, token_norms
from precompute.model.hooks import replace
from precompute.model.loader import LoadedBatch, check_images, load_batches, load_model
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.options.shared import NAMED_COLUMNS
from precompute.sae.encode import NOT_FINITE, chunk_tokens
from precompute.sae.reconstruction import sae_warning
from precompute.sae.sae import SaeV
from precompute.training.figures import PARTS, Sums, figures, runs_of
from precompute.training.scorecard import Activity, read_inputs, scorecard
from precompute.utils.progress import progress_bar, say
from precompute.utils.provenance import code_version, plain_name
from precompute.utils.tensors import on_float64_device
from precompute.utils.types import Array

RECORDED = {"text_alone", "patch_special", "sinks", "max_samples", "resamples", "seed", "quantize", "top"}
"""Options that the result repeats, besides the columns that were named."""


class Rebuilt(NamedTuple):
    """ĥ of tokens, and which features rebuilt it."""

    hidden_td: Tensor
    """float32 [t, d]."""
    active_t: Array
    """int64 [t]: number of features with z > 0."""
    count_mf: Array
    """int64 [2, F]: text tokens, image tokens on which it is active."""
    energy_mf: Array
    """float64 [2, F]: Σ z² over text tokens, over image tokens."""
    top_td: list[Tensor]
    """Each as `hidden_td`, from a token's strongest features alone."""


@torch.inference_mode()
def rebuild(sae: SaeV, hidden_td: Tensor, kind_t: Array, top: Sequence[int] = ()) -> Rebuilt:
    """decode(encode(h)) in chunks, so that dense z [t, F] never stands in memory whole.

    Args:
        top: numbers of features; for each ĥ is also made from so many of a token's strongest.
    """
    chunk = chunk_tokens(sae)
    parts = [[torch.zeros(0, sae.d_model, device=sae.device)] for _ in range(1 + len(top))]
    counts = [np.zeros(0, np.int64)]
    count_mf, energy_mf = np.zeros((2, sae.n_features), np.int64), np.zeros((2, sae.n_features))
    for begin in range(0, len(hidden_td), chunk):
        h_td, kind_c = hidden_td[begin : begin + chunk], kind_t[begin : begin + chunk]
        acts_tf = sae.encode(h_td)
        on_tf = acts_tf > 0
        for m in (TEXT, IMAGE):
            at = torch.from_numpy(np.flatnonzero(kind_c == m)).to(sae.device)
            count_mf[m] += on_tf[at].sum(0).cpu().numpy()
            energy_mf[m] += on_float64_device(acts_tf[at]).square().sum(0).cpu().numpy()
        counts.append(on_tf.sum(1).cpu().numpy())
        parts[0].append(sae.decode(acts_tf, h_td))
        for part, n in zip(parts[1:], top, strict=True):
            top_values = acts_tf.topk(min(n, sae.n_features), dim=1)
            part.append(sae.decode(torch.zeros_like(acts_tf).scatter_(1, *reversed(top_values)), h_td))
    whole_td, *top_td = (torch.cat(part) for part in parts)
    return Rebuilt(whole_td, np.concatenate(counts), count_mf, energy_mf, top_td)


def replace_hidden(mllm: Mllm, at_bs: Array, by_td: Tensor | None) -> AbstractContextManager[None]:
    """While open, h after layer L is `by_td` at the tokens `at_bs`; zero where that is None.

    Raises:
        SaevxError: the model ran without passing through the layer.
    """
    mask_bs = torch.from_numpy(at_bs)

    def change(h_bsd: Tensor) -> Tensor:
        h_bsd[mask_bs.to(h_bsd.device)] = 0.0 if by_td is None else by_td.to(h_bsd)
        return h_bsd

    return replace(mllm.decoder_layer(), mllm.layer, change)


@dataclass
class SharedModel:
    """What evaluations that differ in the SAE alone share: the model, loaded once, and what it loses without an SAE.
    Give each of them the same one, empty at first."""

    mllm: Mllm | None = None
    results: dict[tuple[str, tuple[int, ...]], Any] = field(default_factory=dict)
    """By the name of the run and the batch's rows."""

    def result_of(self, run: str, rows: tuple[int, ...], work: Callable[[], Any]) -> Any:
        """What `work` returns, computed for the first SAE alone."""
        if (run, rows) not in self.results:
            self.results[run, rows] = work()
        return self.results[run, rows]


def evaluate(options: EvaluateOptions, cache: SharedModel | None = None) -> dict[str, Any]:
    """All figures with their 95 % intervals, as the JSON that the command writes.

    Args:
        cache: keeps what other SAEs on the same model, layer, data and options need too; it grows with the tokens.

    Raises:
        SaevxError: wrong input, or an SAE that does not fit the model.
    """
    o = options
    sae = SaeV.load(o.sae, o.device, layer=o.layer, format=o.sae_format)
    if sae.layer_warning is not None:
        say(sae.layer_warning)
    inputs = read_inputs(o, sae)
    mllm = cache.mllm if cache is not None else None
    if mllm is None:
        mllm = load_model(o.model, o, layer=sae.layer, full=True)
    if cache is not None:
        cache.mllm = mllm
    sae.check(mllm.d_model)
    data = read(o.data, o.columns._replace(mixed=True, text_only=o.text_alone))
    check_images(mllm, data, "--text-alone")
    if o.max_samples is not None:
        sample_rows = sorted(smallest_hashes(SampleIds(data.rows), o.max_samples))
        data = data._replace(rows=take(data.rows, np.array(sample_rows, np.int64)))
    data, plan = plan_rows(mllm, data, o.data, Batching(o.batch_tokens, o.seed), id_column=o.id_column)
    sink = calibrate_data(mllm, data, plan, o.sink_multiple).sink_norm
    evaluation = Evaluation(mllm, sae, sink, o, cache)
    rejected_rows = list(data.rejected_rows)
    with progress_bar("evaluate", len(data.rows), "samples") as progress:
        for loaded_batch in load_batches(mllm, ([data.rows[at] for at in batch] for batch in plan.batches)):
            rejected_rows += loaded_batch.rejected_rows
            if loaded_batch.batch is not None:
                rejected_rows += evaluation.add(loaded_batch)
            progress.update(len(loaded_batch.rows) + len(loaded_batch.rejected_rows))
    sums = evaluation.sums
    if not sum(sums.n_target):
        raise SaevxError(
            "No text token stands behind another one, so there is no cross-entropy to measure: give longer texts."
        )
    if rejected_rows:
        say(summary_of(rejected_rows, o.id_column))
    result = figures(sums, evaluation.count_mf > 0, o.resamples, o.seed, o.top)
    warning = sae_warning({"fvu": {name: figure and figure["value"] for name, figure in result["fvu"].items()}})
    if warning is not None:
        say(warning)
    counts = {"name": data.name, "n_samples": len(sums.n_target), "n_set_aside": len(rejected_rows)}
    lines = scorecard(result, o, sae, Activity(evaluation.count_mf, evaluation.energy_mf), inputs)
    return {**provenance(o, sae, mllm, counts), **result, "card": lines}


def provenance(o: EvaluateOptions, sae: SaeV, mllm: Mllm, data: dict[str, Any]) -> dict[str, Any]:
    """What was evaluated, and how."""
    return {
        "sae": {
            "name": plain_name(o.sae), "sha256": sae.sha256, "architecture": sae.architecture,
            "n_features": sae.n_features, "hook": sae.hook,
        },
        "model": {
            "name": plain_name(o.model), "family": mllm.family, "layer": mllm.layer,
            "dtype": str(mllm.dtype).removeprefix("torch."), "device": mllm.device.type,
        },
        "data": data,
        "options": {
            **o.model_dump(mode="json", include=RECORDED),
            **o.model_dump(mode="json", include=NAMED_COLUMNS, exclude_defaults=True),
        },
        "code_version": code_version(),
    }  # fmt: skip


class TokenKinds(NamedTuple):
    """What the tokens of a batch are."""

    kind_bs: Array
    """uint8 [b, s]: TEXT, IMAGE, SPECIAL or SINK."""
    real_bs: Array
    """bool [b, s]: not padding."""
    taken_bs: Array
    """bool [b, s]: h is replaced there in the run `all`."""


class Evaluation:
    """An SAE measured in its model, batch after batch.

    Args:
        sink: norms above which a text, an image token is a sink.
    """

    def __init__(
        self, mllm: Mllm, sae: SaeV, sink: tuple[float, float], options: EvaluateOptions, cache: SharedModel | None
    ) -> None:
        self.mllm, self.sae, self.sink, self.shared = mllm, sae, sink, cache
        self.patch_special, self.top = options.patch_special, options.top
        self.sums = Sums()
        self.count_mf: Array = np.zeros((2, sae.n_features), np.int64)
        """int64 [2, F]: text tokens, image tokens on which it is active."""
        self.energy_mf: Array = np.zeros((2, sae.n_features))
        """float64 [2, F]: Σ z² over these."""

    def add(self, loaded_batch: LoadedBatch) -> list[RejectedRow]:
        """Measure a batch. Returns the rows that had to be rejected."""
        batch, rows = loaded_batch.batch, tuple(row.index for row in loaded_batch.rows)
        assert batch is not None

        def shared_result(run: str, work: Callable[[], Any]) -> Any:
            return work() if self.shared is None else self.shared.result_of(run, rows, work)

        hidden_bsd, original_b, n_b = shared_result("original", partial(losses, self.mllm, batch))
        norm_bs = token_norms(hidden_bsd)
        real_bs = np.arange(norm_bs.shape[1]) < batch.length_b[:, None]
        good_b: Array = np.all(np.isfinite(norm_bs) | ~real_bs, axis=1)
        kind_bs = mark_sinks(batch.modality_bs, norm_bs, self.sink)
        own_bs = kind_bs <= IMAGE
        taken_bs = (real_bs if self.patch_special else own_bs) & good_b[:, None]
        h_td = hidden_bsd[torch.from_numpy(taken_bs).to(hidden_bsd.device)]
        rebuilt = rebuild(self.sae, h_td, kind_bs[taken_bs], self.top)
        self.count_mf += rebuilt.count_mf
        self.energy_mf += rebuilt.energy_mf

        nll_rb = {"original": original_b}
        for part, kinds in PARTS.items():
            at_bs = taken_bs if part == "all" else taken_bs & np.isin(kind_bs, kinds)
            suffix = "" if part == "all" else f"_{part}"
            at_t = torch.from_numpy(at_bs[taken_bs]).to(rebuilt.hidden_td.device)
            tops = [(f"top{n}", top_td[at_t]) for n, top_td in zip(self.top, rebuilt.top_td, strict=True)]
            for run_name, value in (("zero", None), ("patched", rebuilt.hidden_td[at_t]), *tops):
                work = partial(losses_with, self.mllm, batch, at_bs, value)
                if not at_bs.any():  # nothing to replace
                    nll_rb[run_name + suffix] = original_b
                elif suffix and np.array_equal(at_bs, taken_bs):  # the same tokens as all
                    nll_rb[run_name + suffix] = nll_rb[run_name]
                else:
                    nll_rb[run_name + suffix] = shared_result(run_name + suffix, work) if value is None else work()
        self.add_sums(good_b, n_b, nll_rb, TokenKinds(kind_bs, real_bs, taken_bs), h_td, rebuilt)
        return [
            RejectedRow(row.index, row.sample_id, NOT_FINITE)
            for row, is_good in zip(loaded_batch.rows, good_b, strict=True)
            if not is_good
        ]

    def add_sums(
        self, good_b: Array, n_b: Array, nll_rb: dict[str, Array], tokens: TokenKinds, h_td: Tensor, rebuilt: Rebuilt
    ) -> None:
        """One entry of `sums` a good pair.

        Args:
            good_b: bool [b]. n_b: int64 [b] predicted text tokens. nll_rb: by run, float64 [b]: their cross-entropy.
            h_td: [t, d] of the taken tokens. rebuilt: what the SAE makes of them.
        """
        rebuilt_td = on_float64_device(rebuilt.hidden_td)
        h_td = h_td.to(rebuilt_td.device).double()
        error_t = (h_td - rebuilt_td).square().sum(1).cpu().numpy()
        square_t = h_td.square().sum(1).cpu().numpy()
        pair_t, kind_t = np.nonzero(tokens.taken_bs)[0], tokens.kind_bs[tokens.taken_bs]
        for b in np.flatnonzero(good_b).tolist():
            masks = [(pair_t == b) & (kind_t == m) for m in (TEXT, IMAGE)]
            self.sums.n_target.append(float(n_b[b]))
            self.sums.nll.append([float(nll_rb[run][b]) for run in runs_of(self.top)])
            self.sums.tokens.append(np.bincount(tokens.kind_bs[b][tokens.real_bs[b]], minlength=4)[:4])
            self.sums.active.append(np.array([rebuilt.active_t[mask].sum() for mask in masks]))
            self.sums.error.append(np.array([error_t[mask].sum() for mask in masks]))
            self.sums.square.append(np.array([square_t[mask].sum() for mask in masks]))
            self.sums.total_md.append(np.stack([h_td[torch.from_numpy(mask)].sum(0).cpu().numpy() for mask in masks]))


def losses(mllm: Mllm, batch: Batch) -> tuple[Tensor, Array, Array]:
    """h [b, s, d], and per pair the summed cross-entropy of its text tokens and their number."""
    hidden_bsd, mean_b = mllm.hidden_and_nll(batch)
    n_b = (batch.modality_bs[:, 1:] == TEXT).sum(axis=1)
    return hidden_bsd, np.where(n_b > 0, mean_b, 0.0) * n_b, n_b


def losses_with(mllm: Mllm, batch: Batch, at_bs: Array, by_td: Tensor | None) -> Array:
    """Summed cross-entropy of each pair, h replaced."""
    with replace_hidden(mllm, at_bs, by_td):
        return losses(mllm, batch)[1]
