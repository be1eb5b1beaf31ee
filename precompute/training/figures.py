"""From sums over samples to the figures of `saevx evaluate` and their intervals (METHOD, *Quality of an SAE-V*)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from precompute.model.batch import IMAGE, TEXT
from precompute.sae.reconstruction import fvu
from precompute.store.schema import TOKEN_KINDS
from precompute.utils.stats import bootstrap_weights, interval
from precompute.utils.types import Array

PARTS: dict[str, tuple[int, ...]] = {"all": (TEXT, IMAGE), "text": (TEXT,), "image": (IMAGE,)}
"""Which tokens are replaced; `all` takes special tokens and sinks too with --patch-special."""
GROUPS = {"both": [TEXT, IMAGE], "text": [TEXT], "image": [IMAGE]}


def runs_of(top: Sequence[int]) -> list[str]:
    """The runs of the model, by name.

    Args:
        top: numbers of features that a token keeps, in further runs.
    """
    whats = ("zero", "patched", *(f"top{n}" for n in top))
    return ["original", *(f"{name}{suffix}" for name in whats for suffix in ("", "_text", "_image"))]


@dataclass
class Sums:
    """Of every sample, in the order they were run."""

    n_target: list[float] = field(default_factory=list)
    """Text tokens that something predicts."""
    nll: list[list[float]] = field(default_factory=list)
    """Summed cross-entropy in nats, a column for each run."""
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


def loss_recovered(cross_entropy_w: dict[str, Array], tops: Sequence[str]) -> dict[str, Array]:
    """float64 [w] by `loss_recovered.…`: the part of what zero ablation adds to the cross-entropy that a replacement
    does not add; NaN where zero ablation adds nothing.

    Args:
        cross_entropy_w: float64 [w] by `cross_entropy.RUN`. tops: replacements by the n strongest features.
    """
    result: dict[str, Array] = {}
    for part in PARTS:
        suffix = "" if part == "all" else f"_{part}"
        zero_w = cross_entropy_w[f"cross_entropy.zero{suffix}"]
        added_w = zero_w - cross_entropy_w["cross_entropy.original"]
        for run_name, key in (("patched", part), *((top, f"{part}_{top}") for top in tops)):
            gain_w = zero_w - cross_entropy_w[f"cross_entropy.{run_name}{suffix}"]
            result[f"loss_recovered.{key}"] = np.where(added_w > 0, gain_w / added_w, np.nan)
    return result


def figures(sums: Sums, fired_mf: Array, resamples: int, seed: int, top: Sequence[int] = ()) -> dict[str, Any]:
    """Every figure of `saevx evaluate`, by group and name, with its interval from bootstrap resamples of the samples.

    Args:
        fired_mf: bool [2, F], features that were active on text and on image tokens. top: as of `runs_of`.
    """
    runs, tops = runs_of(top), [f"top{n}" for n in top]
    target_n, nll_nr = np.array(sums.n_target), np.array(sums.nll)
    tokens_n4, active_nm = np.array(sums.tokens), np.array(sums.active)
    error_nm, square_nm, total_nmd = np.array(sums.error), np.array(sums.square), np.array(sums.total_md)
    total = {name: total_nmd[:, kinds].sum(1) for name, kinds in GROUPS.items()}

    def weighted_figures(weight_wn: Array) -> dict[str, Array]:
        """float64 [w] by name: figures where sample i counts weight_wn[:, i] times."""
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy_wr = weight_wn @ nll_nr / (weight_wn @ target_n)[:, None]
            figures_w = {f"cross_entropy.{run}": entropy_wr[:, i] for i, run in enumerate(runs)}
            figures_w |= loss_recovered(figures_w, tops)
            for name, kinds in GROUPS.items():
                n_w = weight_wn @ tokens_n4[:, kinds].sum(1)
                error_w, square_w = (weight_wn @ sum_nm[:, kinds].sum(1) for sum_nm in (error_nm, square_nm))
                figures_w[f"fvu.{name}"] = fvu(error_w, square_w, weight_wn @ total[name], n_w)
                figures_w[f"l0.{name}"] = weight_wn @ active_nm[:, kinds].sum(1) / n_w
        return figures_w

    n = len(target_n)
    all_figures = weighted_figures(np.ones((1, n)))
    draws: dict[str, list[Array]] = {name: [] for name in all_figures}
    for weight_wn in bootstrap_weights(n, resamples, seed, chunk=64):
        for name, values in weighted_figures(weight_wn).items():
            draws[name].append(values)
    result: dict[str, Any] = {}
    for name, value in all_figures.items():
        group, _, key = name.partition(".")
        result.setdefault(group, {})[key] = interval(float(value[0]), np.concatenate(draws[name]))
    tokens = tokens_n4.sum(axis=0).tolist()
    if not tokens[IMAGE]:  # without image tokens nothing was replaced there
        result["cross_entropy"] |= dict.fromkeys(f"{run_name}_image" for run_name in ("zero", "patched", *tops))
        result["loss_recovered"] |= dict.fromkeys(("image", *(f"image_{run_name}" for run_name in tops)))
    result["tokens"] = {**dict(zip(TOKEN_KINDS, tokens, strict=True)), "targets": int(target_n.sum())}
    # Resampling can only lose features, so a bootstrap interval of these would lie above the figure itself.
    result["dead"] = {
        "both": int((~fired_mf.any(axis=0)).sum()),
        **{name: int((~fired_mf[m]).sum()) for name, m in (("text", TEXT), ("image", IMAGE))},
    }
    return result
