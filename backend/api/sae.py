"""The store's SAE: its figures on this data, and what lies beside it of its evaluation and training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import ValidationError

from backend.deps import StateDep, StoreDep
from backend.schemas import Model, SaeEvaluation, SaeReport, SaeTraining
from precompute.sae.quality import sae_warning
from precompute.store.opening import located

router = APIRouter(tags=["sae"])

EVALUATION, TRAINING = "evaluation.json", "training.json"
MOST_BYTES = 64_000_000
"""A larger file beside the SAE is not what these commands write."""
Read = TypeVar("Read", bound=Model)


# Not `Cached`: the files beside the SAE may change while the store does not.
@router.get("/sae", summary="The SAE: its quality on this data, its evaluation and training")
def get_sae(state: StateDep, served: StoreDep) -> SaeReport:
    store = served.store
    sae, tokens, quality = (store.manifest[name] for name in ("sae", "tokens", "quality"))
    folder = Path(state.settings.sae or located(served.path, served.manifest, "sae"))
    notes: list[str] = []
    return SaeReport(
        name=sae["name"],
        sha256=sae["sha256"],
        architecture=sae["architecture"],
        n_features=store.n_features,
        n_text_tokens=tokens["text"],
        n_image_tokens=tokens["image"],
        **{name: finite(quality.get(name, {})) for name in ("fvu", "l0", "dead")},
        warning=sae_warning(quality),
        evaluation=beside(folder / EVALUATION, sae["sha256"], SaeEvaluation, notes),
        training=beside(folder / TRAINING, sae["sha256"], SaeTraining, notes),
        notes=notes,
    )


def finite(figures: dict[str, Any]) -> Any:
    """The figures, null in the place of what is no finite number: older stores may hold such."""
    return {name: value if value is None or math.isfinite(value) else None for name, value in figures.items()}


def beside(path: Path, sha256: str, kind: type[Read], notes: list[str]) -> Read | None:
    """The file if it is there and of this very SAE; else None, with a note where a file was passed over."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        told = found["sae"]["sha256"]
        read = kind.model_validate(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        notes.append(f"{path.name} beside the SAE cannot be read, so it is not shown.")
        return None
    if told != sha256:
        notes.append(f"{path.name} beside the SAE is of another SAE than this store's, so it is not shown.")
        return None
    return read
