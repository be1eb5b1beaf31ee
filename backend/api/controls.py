"""The controls of a store's verdicts, from STORE.controls.json beside it."""

from __future__ import annotations

import shlex

from fastapi import APIRouter
from pydantic import ValidationError

from backend.deps import StoreDep
from backend.schemas.controls import Controls, ControlsReport
from precompute.store.controls import controls_path, read_controls

router = APIRouter(tags=["stores"])


# Not `Cached`: the file may come while the store does not change.
@router.get("/controls", summary="How many features would be cross-modal by chance")
def get_controls(open_store: StoreDep) -> ControlsReport:
    """`controls` is null until `saevx controls` has run on the store."""
    content, note = read_controls(open_store.path, open_store.content_id)
    controls = None
    if content is not None:
        try:
            controls = Controls.model_validate(content)
        except ValidationError:
            note = f"{controls_path(open_store.path).name} cannot be read, so it is not shown."
    command = f"saevx controls {shlex.quote(open_store.path.absolute().name)}"
    return ControlsReport(controls=controls, command=command, note=note)
