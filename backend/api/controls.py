"""What commands measured on a finished store and wrote next to it: STORE.controls.json, STORE.hallucination.json."""

import shlex
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import ValidationError

from backend.deps import StoreDep
from backend.schemas.common import Model
from backend.schemas.controls import Controls, ControlsReport
from backend.schemas.features import FeatureRef
from backend.schemas.hallucination import HallucinationFigures, HallucinationReport
from backend.stores import OpenStore
from precompute.store.companion_files import CONTROLS, HALLUCINATION, companion_path, read_companion

router = APIRouter(tags=["stores"])
Figures = TypeVar("Figures", bound=Model)


# Neither is `Cached`: the file may come while the store does not change.
@router.get("/controls", summary="How many features would be cross-modal by chance")
def get_controls(open_store: StoreDep) -> ControlsReport:
    """`controls` is null until `saevx controls` has run on the store."""
    companion = read_companion(open_store.path, CONTROLS, open_store.content_id)
    controls, note = check_figures(open_store, CONTROLS, companion, Controls)
    return ControlsReport(controls=controls, command=f"saevx controls {folder_name(open_store)}", note=note)


@router.get("/hallucination", summary="Features that tell right answers from hallucinated ones, and their effect")
def get_hallucination(open_store: StoreDep) -> HallucinationReport:
    """`hallucination` is null until `saevx experiment hallucination --attach` has run on the store."""
    companion = open_store.reader.hallucination.read()
    figures, note = check_figures(open_store, HALLUCINATION, companion, HallucinationFigures)
    if figures is not None:  # with the names that the store has
        refs = open_store.reader.features.refs(f.id for f in figures.features)
        names = {k: FeatureRef.model_validate(ref).model_dump() for k, ref in refs.items()}
        figures.features = [f.model_copy(update=names.get(f.id, {})) for f in figures.features]
    command = f"saevx experiment hallucination --store {folder_name(open_store)} --attach"
    return HallucinationReport(hallucination=figures, command=command, note=note)


def check_figures(
    open_store: OpenStore, name: str, companion: tuple[dict[str, Any] | None, str | None], form: type[Figures]
) -> tuple[Figures | None, str | None]:
    """The content of a file as its schema has it, or None; and why it is not shown."""
    content, note = companion
    if content is None:
        return None, note
    try:
        return form.model_validate(content), note
    except ValidationError:
        return None, f"{companion_path(open_store.path, name).name} cannot be read, so it is not shown."


def folder_name(open_store: OpenStore) -> str:
    return shlex.quote(open_store.path.absolute().name)
