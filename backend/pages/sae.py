"""The page of the SAE: its figures on this data, its evaluation and its training."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api import sae as sae_api
from backend.deps import StateDep, StoreDep
from backend.pages.charts import Curves, curves
from backend.schemas.sae import SaeTraining
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/sae")
def sae(request: Request, state: StateDep, open_store: StoreDep) -> HTMLResponse:
    """Figures of the SAE."""
    report = sae_api.get_sae(state, open_store)
    return render_for(
        request,
        "sae.html",
        state,
        open_store,
        section="/sae",
        sae=report,
        figures=[
            ("FVU", "Fraction of variance unexplained, of the residual stream by its reconstruction ĥ", report.fvu, 3),
            ("L0", "Mean number of active features per token", report.l0, 1),
            ("dead", "Features that no such token activates", report.dead, 0),
        ],
        parts=[("all", ""), ("text only", "_text"), ("image only", "_image")],
        charts=training_charts(report.training) if report.training else [],
    )


def training_charts(training: SaeTraining) -> list[tuple[str, str, Curves]]:
    """Title, subtitle and lines over the steps, one tuple per chart."""
    steps = [float(one.step) for one in training.log]
    sides = [("text", "t"), ("image", "p"), ("both", "b")]
    losses = [("loss", "b", [one.loss for one in training.log])]
    charts = [("Loss", "per batch, log scale", curves(steps, losses, log=True))]
    for title, help, name in (
        ("FVU", "fraction of variance unexplained", "fvu"),
        ("L0", "active features per token", "l0"),
        ("Dead features", "not active on such tokens in the last steps", "dead"),
    ):
        lines = [(side, cls, [getattr(getattr(one, name), side) for one in training.log]) for side, cls in sides]
        charts.append((title, help, curves(steps, lines)))
    return charts
