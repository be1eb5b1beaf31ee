"""The SAE: its training, and its figures on this data."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api import sae as sae_api
from backend.deps import StateDep, StoreDep
from backend.pages.charts import Curves, curves
from backend.schemas import SaeTraining
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)




@router.get("/sae")
def sae(request: Request, state: StateDep, served: StoreDep) -> HTMLResponse:
    report = sae_api.get_sae(state, served)
    return render_for(
        request,
        "sae.html",
        state,
        served,
        section="/sae",
        sae=report,
        figures=[
            ("FVU", "Fraction of the residual stream's variance that ĥ leaves unexplained", report.fvu, 3),
            ("L0", "Active features a token", report.l0, 1),
            ("dead", "Features active on no such token", report.dead, 0),
        ],
        parts=[("all", ""), ("text only", "_text"), ("image only", "_image")],
        charts=training_charts(report.training) if report.training else [],
    )


def training_charts(training: SaeTraining) -> list[tuple[str, str, Curves]]:
    """Title, what it says, and its lines over the steps."""
    steps = [float(one.step) for one in training.log]
    sides = [("text", "t"), ("image", "p"), ("both", "b")]
    losses = [("loss", "b", [one.loss for one in training.log])]
    charts = [("Loss", "of one batch; logarithmic", curves(steps, losses, log=True))]
    for title, help, name in (
        ("FVU", "variance unexplained", "fvu"),
        ("L0", "active features a token", "l0"),
        ("Dead features", "silent for the last steps on such tokens", "dead"),
    ):
        lines = [(side, cls, [getattr(getattr(one, name), side) for one in training.log]) for side, cls in sides]
        charts.append((title, help, curves(steps, lines)))
    return charts
