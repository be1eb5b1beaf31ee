"""The store's SAE: its figures on this data, and the evaluation and training files in its folder."""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import ValidationError

from backend.deps import StateDep, StoreDep
from backend.schemas.common import Model
from backend.schemas.sae import DensityGrid, PlaceMeans, SaeEvaluation, SaeReport, SaeTraining, Spread
from precompute.sae.reconstruction import sae_warning
from precompute.store.opening import source_of

router = APIRouter(tags=["sae"])

EVALUATION, TRAINING = "evaluation.json", "training.json"
MAX_BYTES = 64_000_000
"""A larger file was not written by these commands."""
Report = TypeVar("Report", bound=Model)


# Not `Cached`: the files in the SAE's folder may change while the store does not.
@router.get("/sae", summary="The SAE with its quality on this data, evaluation and training")
def get_sae(state: StateDep, open_store: StoreDep) -> SaeReport:
    store = open_store.reader
    sae, tokens, quality = (store.manifest[name] for name in ("sae", "tokens", "quality"))
    folder = Path(state.settings.sae or source_of(open_store.path, open_store.manifest, "sae"))
    notes: list[str] = []
    return SaeReport(
        name=sae["name"],
        sha256=sae["sha256"],
        architecture=sae["architecture"],
        n_features=store.n_features,
        n_text_tokens=tokens["text"],
        n_image_tokens=tokens["image"],
        **{name: finite(quality.get(name, {})) for name in ("fvu", "l0", "dead")},
        verdicts=store.detail["verdicts"],
        density=DensityGrid.model_validate(store.sae.density),
        fvu_samples=Spread.model_validate(store.sae.fvu),
        l0_tokens=Spread.model_validate(store.sae.l0),
        l0_places=PlaceMeans.model_validate(store.sae.l0_places),
        fvu_places=PlaceMeans.model_validate(store.sae.fvu_places),
        warning=sae_warning(quality),
        evaluation=read_report(folder / EVALUATION, sae["sha256"], SaeEvaluation, notes),
        training=read_report(folder / TRAINING, sae["sha256"], SaeTraining, notes),
        notes=notes,
    )


def finite(figures: dict[str, Any]) -> Any:
    """The figures, with null instead of infinities and NaN, which older stores may hold."""
    return {name: value if value is None or math.isfinite(value) else None for name, value in figures.items()}


def read_report(path: Path, sha256: str, kind: type[Report], notes: list[str]) -> Report | None:
    """The file if it exists and belongs to this SAE; otherwise None, with a note if a file was ignored."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        sae_sha256 = content["sae"]["sha256"]
        report = kind.model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        notes.append(f"{path.name} in the SAE's folder cannot be read, so it is not shown.")
        return None
    if sae_sha256 != sha256:
        notes.append(f"{path.name} in the SAE's folder belongs to another SAE, so it is not shown.")
        return None
    return report
