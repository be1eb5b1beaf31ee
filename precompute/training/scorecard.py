"""The scorecard of `saevx evaluate`: what an SAE is worth in twelve lines, each beside its controls (docs/training.md).

A figure that cannot be computed is null: `needs` names the options that were not given, or its note says why.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.model.batch import IMAGE
from precompute.options.evaluate import EvaluateOptions
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.training.scorecard_files import of_files
from precompute.training.scorecard_store import Figure, of_store
from precompute.utils.reading import read_result
from precompute.utils.stats import unit
from precompute.utils.types import Array

ONE_SIDED = 0.1
"""Share of a feature's rate that lies in one modality below which it belongs to the other."""


class Activity(NamedTuple):
    """What fired during the evaluation."""

    count_mf: Array
    """int64 [2, F]: text tokens, image tokens on which a feature is active."""
    energy_mf: Array
    """float64 [2, F]: Σ z² over these."""


class Inputs(NamedTuple):
    """What the scorecard takes from elsewhere."""

    by_line: dict[str, list[Figure]]
    """Figures of the store, and of other commands' files."""
    controls: dict[str, dict[tuple[str, str], float | None]]
    """Values to stand beside each line, by line and name."""


def read_inputs(o: EvaluateOptions, sae: SaeV) -> Inputs:
    """Everything that the options name, read before the evaluation: after it a wrong file would cost its hours.

    Raises:
        SaevxError: a file that is not what its option takes, or a store of another SAE.
    """
    for source in o.other_sae:
        load_other(source, o, sae)
    controls = {"control_random_decoder": o.random_decoder, "control_untrained": o.untrained}
    control_values = {name: read_scorecard(path) if path else {} for name, path in controls.items()}
    files = of_files(o)
    if o.store is None:
        lines = ("pair evidence", "text alone", "localisation", "monosemanticity", "names")
        by_line = {line: [Figure.unmeasured(line, "--store STORE")] for line in lines}
    else:
        store = Store.open(o.store, 600.0)
        try:
            if store.manifest["sae"]["sha256"] != sae.sha256:
                raise SaevxError(f"The store {o.store} was made with another SAE: name one that was made with {o.sae}.")
            by_line = {line: list(of_line) for line, of_line in of_store(store, o)}
        finally:
            store.close()
    return Inputs({**by_line, **files}, control_values)


def scorecard(
    result: dict[str, Any], o: EvaluateOptions, sae: SaeV, activity: Activity, inputs: Inputs
) -> list[dict[str, Any]]:
    """All figures, in the order of the scorecard.

    Args:
        result: the other figures of the evaluation.
    """
    figures = [*model_figures(result), *modality_figures(activity, sae, result["tokens"])]
    by_line = dict(inputs.by_line)
    by_line["stability"] = [stability(sae, np.asarray(activity.count_mf.any(0)), o)]
    order = (
        "pair evidence", "text alone", "localisation", "patches", "monosemanticity", "hallucination", "steering",
        "names", "stability",
    )  # fmt: skip
    figures += [figure for line in order for figure in by_line[line]]
    return [
        {
            "line": f.line, "name": f.name, "better": f.better, "value": f.estimate and f.estimate["value"],
            "interval": [f.estimate["low"], f.estimate["high"]] if f.estimate and "low" in f.estimate else None,
            **{name: values.get((f.line, f.name)) for name, values in inputs.controls.items()}, "note": f.note,
            "needs": f.needs,
        }
        for f in figures
    ]  # fmt: skip


def model_figures(result: dict[str, Any]) -> Iterator[Figure]:
    """Reconstruction, and what the model loses by it."""
    for name in ("text", "image"):
        note = "Fraction of variance unexplained."
        yield Figure("reconstruction", f"FVU, {name}", result["fvu"][name], note, "lower")
        yield Figure("reconstruction", f"L0, {name}", result["l0"][name], "Active features per token.", None)
    n_dead = {"value": float(result["dead"]["both"])}
    yield Figure("reconstruction", "dead features", n_dead, "Active on no token of the evaluation.", "lower")
    for key, estimate in result["loss_recovered"].items():
        part, _, top = key.partition("_top")
        name = f"{part}, {top} features a token" if top else part
        note = (
            "Share that ĥ recovers of the loss that zeros cause."
            if estimate
            else "No such tokens, or zeros cause no loss."
        )
        yield Figure("loss recovered", name, estimate, note)


def modality_figures(activity: Activity, sae: SaeV, tokens: dict[str, int]) -> Iterator[Figure]:
    """How the features divide among text and image."""
    n_m = np.array([tokens["text"], tokens["image"]], dtype=np.float64)
    if not n_m.all():
        yield Figure("modalities", "features of both", None, "The data has tokens of one modality alone.", None)
        return
    rate_mf = activity.count_mf / n_m[:, None]
    is_alive = rate_mf.sum(0) > 0
    share = rate_mf[IMAGE, is_alive] / rate_mf[:, is_alive].sum(0)
    is_shared = (share >= ONE_SIDED) & (share <= 1 - ONE_SIDED)
    note = f"Alive features with {100 * ONE_SIDED:.0f} % of their rate or more in either modality."
    estimate = {"value": float(is_shared.mean())} if is_alive.any() else None
    yield Figure("modalities", "features of both", estimate, note, None)
    length_f = np.square(sae.directions_fd.detach().cpu().double().numpy()).sum(1)
    energy_mf = activity.energy_mf / n_m[:, None] * length_f
    overlap = 2 * energy_mf.min(0).sum() / energy_mf.sum() if energy_mf.any() else None
    note = "Share of the energy (z²‖d‖² a token) that features have in both modalities alike."
    yield Figure("modalities", "iso-energy", None if overlap is None else {"value": float(overlap)}, note, None)


def stability(sae: SaeV, is_alive: Array, o: EvaluateOptions) -> Figure:
    """How near each alive feature's direction comes to one of an SAE that was trained with another seed.

    Args:
        is_alive: bool [F].
    """
    if not o.other_sae:
        return Figure.unmeasured("stability", "--other-sae SAE")
    if not is_alive.any():
        return Figure("stability", "nearest direction", None, "No feature is active on this data.")
    own_fd = unit_centred(sae.directions_fd.detach().cpu().double().numpy())[is_alive]
    best_cosines = []
    for source in o.other_sae:
        directions = unit_centred(load_other(source, o, sae).directions_fd.detach().double().numpy())
        chunks = np.array_split(own_fd, -(-len(own_fd) // 1024))
        best_cosines.append(float(np.concatenate([(chunk @ directions.T).max(1) for chunk in chunks]).mean()))
    estimate = {"value": float(np.mean(best_cosines)), "low": min(best_cosines), "high": max(best_cosines)}
    note = "Mean cosine of a feature's centred direction with the nearest one of another seed. "
    note += f"Other seeds: {len(best_cosines)}; the interval is their range."
    return Figure("stability", "nearest direction", estimate, note)


def load_other(source: str, o: EvaluateOptions, sae: SaeV) -> SaeV:
    """The SAE of another seed, on the CPU. Raises SaevxError where it cannot be loaded or has another width."""
    other_sae = SaeV.load(source, "cpu", layer=o.layer, format=o.sae_format)
    if other_sae.d_model != sae.d_model:
        raise SaevxError(f"{source} has another width than {o.sae}: name an SAE of the same layer.")
    return other_sae


def unit_centred(directions_fd: Array) -> Array:
    """float64 [F, d]: unit directions without their mean, scaled to length 1 (METHOD, *Directions*)."""
    unit_fd = unit(directions_fd)
    return unit(unit_fd - unit_fd.mean(0))


def read_scorecard(path: Path) -> dict[tuple[str, str], float | None]:
    """Values of a scorecard by line and name.

    Raises:
        SaevxError: the file has no scorecard.
    """
    content = read_result(path)
    try:
        return {(line["line"], line["name"]): line["value"] for line in content["card"]}
    except (KeyError, TypeError) as error:
        raise SaevxError(f"{path} has no scorecard: name a file that `saevx evaluate` wrote.") from error
