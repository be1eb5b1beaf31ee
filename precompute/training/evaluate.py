"""`saevx evaluate`: what an SAE is worth inside a model (METHOD, *Quality of an SAE-V*).

The model runs over the data as it is, with h zeroed, and with ĥ in the place of h; sums are kept per sample, so that
intervals come from resampling samples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.data import RejectedRow, read, summary_of
from precompute.data.batches import plan_rows, smallest_hashes
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, SINK, SPECIAL, TEXT, Batch
from precompute.model.calibration import calibrate_data, mark_sinks, token_norms
from precompute.model.hooks import replace
from precompute.model.loader import LoadedBatch, check_images, load_batches, load_model
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.options.shared import NAMED_COLUMNS
from precompute.sae.encode import CHUNK_ELEMENTS, NOT_FINITE
from precompute.sae.quality import fvu, sae_warning
from precompute.sae.sae import SaeV
from precompute.utils.progress import progress_bar, say
from precompute.utils.provenance import code_version, plain_name
from precompute.utils.stats import bootstrap_weights, interval
from precompute.utils.tensors import exact
from precompute.utils.types import Array

PARTS: dict[str, tuple[int, ...]] = {"all": (TEXT, IMAGE), "text": (TEXT,), "image": (IMAGE,)}
"""Which tokens are replaced; `all` takes special tokens and sinks too with --patch-special."""
RUNS = ["original", *(f"{what}{suffix}" for what in ("zero", "patched") for suffix in ("", "_text", "_image"))]
GROUPS = {"both": [TEXT, IMAGE], "text": [TEXT], "image": [IMAGE]}
RECORDED = {"text_alone", "patch_special", "sinks", "max_samples", "resamples", "seed", "quantize"}
"""Options that the result repeats, besides the columns that were named."""


class Rebuilt(NamedTuple):
    """ĥ of tokens, and which features rebuilt it."""

    hidden_td: Tensor
    """float32 [t, d]."""
    active_t: Array
    """int64 [t]: number of features with z > 0."""
    fired_mf: Array
    """bool [2, F]: active on a text token, on an image token."""


@torch.inference_mode()
def rebuild(sae: SaeV, hidden_td: Tensor, kind_t: Array) -> Rebuilt:
    """decode(encode(h)) in chunks, so that dense z [t, F] never stands in memory whole."""
    chunk = max(16, CHUNK_ELEMENTS // sae.n_features)
    parts, active = [torch.zeros(0, sae.d_model, device=sae.device)], [np.zeros(0, np.int64)]
    fired_mf = np.zeros((2, sae.n_features), dtype=bool)
    for begin in range(0, len(hidden_td), chunk):
        h_td, kind_c = hidden_td[begin : begin + chunk], kind_t[begin : begin + chunk]
        acts_tf = sae.encode(h_td)
        on_tf = acts_tf > 0
        for m in (TEXT, IMAGE):
            at = torch.from_numpy(np.flatnonzero(kind_c == m)).to(sae.device)
            fired_mf[m] |= on_tf[at].any(0).cpu().numpy()
        active.append(on_tf.sum(1).cpu().numpy())
        parts.append(sae.decode(acts_tf, h_td))
    return Rebuilt(torch.cat(parts), np.concatenate(active), fired_mf)


def replacing(mllm: Mllm, at_bs: Array, by_td: Tensor | None) -> AbstractContextManager[None]:
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
class Sums:
    """Of every sample, in the order they were run."""

    n_target: list[float] = field(default_factory=list)
    """Text tokens that something predicts."""
    nll: list[list[float]] = field(default_factory=list)
    """Summed cross-entropy in nats, a column for each of RUNS."""
    tokens: list[Array] = field(default_factory=list)
    """int64 [4]: tokens by kind."""
    active: list[Array] = field(default_factory=list)
    """int64 [2]: active features of counted tokens, by modality; so too below."""
    error: list[Array] = field(default_factory=list)
    """float64 [2]: Σ‖h − ĥ‖²."""
    square: list[Array] = field(default_factory=list)
    """float64 [2]: Σ‖h‖²."""
    total_md: list[Array] = field(default_factory=list)
    """float64 [2, d]: Σh."""


@dataclass
class Shared:
    """What evaluations that differ in the SAE alone share: the model, loaded once, and what it loses without an SAE.
    Give each of them the same one, empty at first."""

    mllm: Mllm | None = None
    known: dict[tuple[str, tuple[int, ...]], Any] = field(default_factory=dict)
    """By the name of the run and the batch's rows."""

    def once(self, run: str, rows: tuple[int, ...], work: Callable[[], Any]) -> Any:
        if (run, rows) not in self.known:
            self.known[run, rows] = work()
        return self.known[run, rows]


def evaluate(options: EvaluateOptions, shared: Shared | None = None) -> dict[str, Any]:
    """All figures with their 95 % intervals, as the JSON that the command writes.

    Args:
        shared: keeps what other SAEs on the same model, layer, data and options need too; it grows with the tokens.

    Raises:
        SaevxError: wrong input, or an SAE that does not fit the model.
    """
    o = options
    sae = SaeV.load(o.sae, o.device, layer=o.layer, format=o.sae_format)
    if sae.layer_warning is not None:
        say(sae.layer_warning)
    mllm = shared.mllm if shared is not None else None
    if mllm is None:
        mllm = load_model(o.model, o, layer=sae.layer, full=True)
    if shared is not None:
        shared.mllm = mllm
    sae.check(mllm.d_model)
    data = read(o.data, o.columns._replace(mixed=True, text_only=o.text_alone))
    check_images(mllm, data, "--text-alone")
    if o.max_samples is not None:
        chosen = sorted(smallest_hashes([row.sample_id for row in data.rows], o.max_samples))
        data = data._replace(rows=[data.rows[i] for i in chosen])
    data, plan = plan_rows(mllm, data, o.data, batch_tokens=o.batch_tokens, seed=o.seed, id_column=o.id_column)
    sink = calibrate_data(mllm, data, plan, o.sink_multiple).sink_norm
    sums, fired_mf = Sums(), np.zeros((2, sae.n_features), dtype=bool)
    rejected_rows = list(data.rejected_rows)
    with progress_bar("evaluate", len(data.rows), "samples") as progress:
        for one in load_batches(mllm, ([data.rows[at] for at in batch] for batch in plan.batches)):
            rejected_rows += one.rejected_rows
            if one.batch is not None:
                rejected_rows += measure(mllm, sae, one, sink, o.patch_special, sums, fired_mf, shared)
            progress.update(len(one.rows) + len(one.rejected_rows))
    if not sum(sums.n_target):
        raise SaevxError(
            "No text token stands behind another one, so there is no cross-entropy to measure: give longer texts."
        )
    if rejected_rows:
        say(summary_of(rejected_rows, o.id_column))
    result = figures(sums, fired_mf, o.resamples, o.seed)
    warning = sae_warning({"fvu": {name: figure and figure["value"] for name, figure in result["fvu"].items()}})
    if warning is not None:
        say(warning)
    counts = {"name": data.name, "n_samples": len(sums.n_target), "n_set_aside": len(rejected_rows)}
    return {**provenance(o, sae, mllm, counts), **result}


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


def measure(
    mllm: Mllm,
    sae: SaeV,
    one: LoadedBatch,
    sink: tuple[float, float],
    special: bool,
    sums: Sums,
    fired_mf: Array,
    shared: Shared | None,
) -> list[RejectedRow]:
    """Add a batch to `sums` and `fired_mf`. Returns the rows that had to be set aside."""
    batch, rows = one.batch, tuple(row.index for row in one.rows)
    assert batch is not None

    def once(run: str, work: Callable[[], Any]) -> Any:
        return work() if shared is None else shared.once(run, rows, work)

    hidden_bsd, original_b, n_b = once("original", partial(losses, mllm, batch))
    norm_bs = token_norms(hidden_bsd)
    real_bs = np.arange(norm_bs.shape[1]) < batch.length_b[:, None]
    good_b: Array = np.all(np.isfinite(norm_bs) | ~real_bs, axis=1)
    kind_bs = mark_sinks(batch.modality_bs, norm_bs, sink)
    own_bs = kind_bs <= IMAGE
    taken_bs = (real_bs if special else own_bs) & good_b[:, None]
    h_td = hidden_bsd[torch.from_numpy(taken_bs).to(hidden_bsd.device)]
    rebuilt = rebuild(sae, h_td, kind_bs[taken_bs])
    fired_mf |= rebuilt.fired_mf

    nll_rb = {"original": original_b}
    for part, which in PARTS.items():
        at_bs = taken_bs if part == "all" else taken_bs & np.isin(kind_bs, which)
        suffix = "" if part == "all" else f"_{part}"
        by_td = rebuilt.hidden_td[torch.from_numpy(at_bs[taken_bs]).to(rebuilt.hidden_td.device)]
        for what, value in (("zero", None), ("patched", by_td)):
            work = partial(losses_with, mllm, batch, at_bs, value)
            if not at_bs.any():  # nothing to replace
                nll_rb[what + suffix] = original_b
            elif suffix and np.array_equal(at_bs, taken_bs):  # the same tokens as all
                nll_rb[what + suffix] = nll_rb[what]
            else:
                nll_rb[what + suffix] = once(what + suffix, work) if value is None else work()
    add(sums, good_b, n_b, nll_rb, kind_bs, real_bs, taken_bs, h_td, rebuilt)
    return [
        RejectedRow(row.index, row.sample_id, NOT_FINITE)
        for row, good in zip(one.rows, good_b, strict=True)
        if not good
    ]


def losses(mllm: Mllm, batch: Batch) -> tuple[Tensor, Array, Array]:
    """h [b, s, d], and per pair the summed cross-entropy of its text tokens and their number."""
    hidden_bsd, mean_b = mllm.hidden_and_nll(batch)
    n_b = (batch.modality_bs[:, 1:] == TEXT).sum(axis=1)
    return hidden_bsd, np.where(n_b > 0, mean_b, 0.0) * n_b, n_b


def losses_with(mllm: Mllm, batch: Batch, at_bs: Array, by_td: Tensor | None) -> Array:
    """Summed cross-entropy of each pair, h replaced."""
    with replacing(mllm, at_bs, by_td):
        return losses(mllm, batch)[1]


def add(
    sums: Sums,
    good_b: Array,
    n_b: Array,
    nll_rb: dict[str, Array],
    kind_bs: Array,
    real_bs: Array,
    taken_bs: Array,
    h_td: Tensor,
    rebuilt: Rebuilt,
) -> None:
    """One entry of `sums` a good pair."""
    rebuilt_td = exact(rebuilt.hidden_td)
    h_td = h_td.to(rebuilt_td.device).double()
    error_t = (h_td - rebuilt_td).square().sum(1).cpu().numpy()
    square_t = h_td.square().sum(1).cpu().numpy()
    pair_t, kind_t = np.nonzero(taken_bs)[0], kind_bs[taken_bs]
    for b in np.flatnonzero(good_b).tolist():
        masks = [(pair_t == b) & (kind_t == m) for m in (TEXT, IMAGE)]
        sums.n_target.append(float(n_b[b]))
        sums.nll.append([float(nll_rb[run][b]) for run in RUNS])
        sums.tokens.append(np.bincount(kind_bs[b][real_bs[b]], minlength=4)[:4])
        sums.active.append(np.array([rebuilt.active_t[mask].sum() for mask in masks]))
        sums.error.append(np.array([error_t[mask].sum() for mask in masks]))
        sums.square.append(np.array([square_t[mask].sum() for mask in masks]))
        sums.total_md.append(np.stack([h_td[torch.from_numpy(mask)].sum(0).cpu().numpy() for mask in masks]))


# ---- from sums to figures


def figures(sums: Sums, fired_mf: Array, resamples: int, seed: int) -> dict[str, Any]:
    """Every figure of the whole, and of `resamples` draws of as many samples with replacement."""
    target_n, nll_nr = np.array(sums.n_target), np.array(sums.nll)
    tokens_n4, active_nm = np.array(sums.tokens), np.array(sums.active)
    error_nm, square_nm, total_nmd = np.array(sums.error), np.array(sums.square), np.array(sums.total_md)
    total = {name: total_nmd[:, which].sum(1) for name, which in GROUPS.items()}

    def of(weight_wn: Array) -> dict[str, Array]:
        """Figures [w] where sample i counts weight_wn[:, i] times."""
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy_wr = weight_wn @ nll_nr / (weight_wn @ target_n)[:, None]
            figures_w = {f"cross_entropy.{run}": entropy_wr[:, i] for i, run in enumerate(RUNS)}
            for part in PARTS:
                suffix = "" if part == "all" else f"_{part}"
                zero, patched = (figures_w[f"cross_entropy.{what}{suffix}"] for what in ("zero", "patched"))
                gap = zero - figures_w["cross_entropy.original"]
                figures_w[f"loss_recovered.{part}"] = np.where(gap > 0, (zero - patched) / gap, np.nan)
            for name, which in GROUPS.items():
                n_w = weight_wn @ tokens_n4[:, which].sum(1)
                error_w, square_w = (weight_wn @ sum_nm[:, which].sum(1) for sum_nm in (error_nm, square_nm))
                figures_w[f"fvu.{name}"] = fvu(error_w, square_w, weight_wn @ total[name], n_w)
                figures_w[f"l0.{name}"] = weight_wn @ active_nm[:, which].sum(1) / n_w
        return figures_w

    n = len(target_n)
    whole = of(np.ones((1, n)))
    drawn: dict[str, list[Array]] = {name: [] for name in whole}
    for weight_wn in bootstrap_weights(n, resamples, seed, chunk=64):
        for name, values in of(weight_wn).items():
            drawn[name].append(values)
    result: dict[str, Any] = {}
    for name, value in whole.items():
        group, _, key = name.partition(".")
        result.setdefault(group, {})[key] = interval(float(value[0]), np.concatenate(drawn[name]))
    tokens = tokens_n4.sum(axis=0).tolist()
    if not tokens[IMAGE]:  # without image tokens nothing was replaced there
        for group, keys in {"cross_entropy": ("zero_image", "patched_image"), "loss_recovered": ("image",)}.items():
            result[group] |= dict.fromkeys(keys)
    kinds = {"text": TEXT, "image": IMAGE, "special": SPECIAL, "sink": SINK}
    result["tokens"] = {**{name: tokens[kind] for name, kind in kinds.items()}, "targets": int(target_n.sum())}
    # Resampling can only lose features, so a bootstrap interval of these would lie above the figure itself.
    result["dead"] = {
        "both": int((~fired_mf.any(axis=0)).sum()),
        **{name: int((~fired_mf[m]).sum()) for name, m in (("text", TEXT), ("image", IMAGE))},
    }
    return result
