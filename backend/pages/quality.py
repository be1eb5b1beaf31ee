"""Flags and scores of the data, and what a filter keeps."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import quality as quality_api
from backend.api import samples as samples_api
from backend.api.samples import SampleQuery
from backend.deps import StateDep, StoreDep
from backend.pages.cards import card, list_flags, list_scores
from backend.pages.charts import chart
from backend.params import Cursor, FormQuery
from backend.schemas.common import FlagName, ScoreName
from backend.schemas.samples import Score
from backend.stores import OpenStore
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)

SUMS = {"cosine", "cosine-cooccurring", "cooccurring-l0"}
"""Scores that are sums over features, so that longer samples score higher (METHOD: scoring and ranking data)."""


class QualityQuery(FormQuery):
    """A flag with its threshold, and a filter."""

    flag: FlagName | None = None
    threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None
    by: ScoreName | None = None
    """Score that the filter keeps the highest of."""
    keep: Annotated[float, Query(gt=0, le=100)] = 50
    """Per cent of the samples."""
    clean: bool = False
    """Whether the filter also drops flagged samples."""
    cursor: Cursor = None


@router.get("/quality")
def quality(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[QualityQuery, Query()]
) -> HTMLResponse:
    """Flags and scores of the data, and a preview of a filter."""
    flag, threshold, by, keep = query.flag, query.threshold, query.by, query.keep
    flags, scores = list_flags(open_store), list_scores(open_store)
    chosen = next((one for one in flags if one.name == flag), None) if flag else flags[0]
    score = next((one for one in scores if one.name == by), None) if by else headline(scores)
    if chosen is None or score is None:
        unknown = f"flag {flag!r}" if chosen is None else f"score {by!r}"
        raise HTTPException(404, f"This store has no {unknown}.")
    limit = chosen.threshold if threshold is None else threshold
    name: Any = chosen.name
    worst = SampleQuery(flag=name, threshold=limit, sort=name, order="desc", cursor=query.cursor, limit=24)
    flagged = samples_api.get_samples(request, open_store, worst)
    moved = threshold is not None and threshold != chosen.threshold
    over = f"{chosen.name}:{limit:.6g}" if moved else chosen.name
    dropped = ["all", *([over] if moved else [])] if query.clean else []
    selection = selected(open_store, score.name, keep, dropped)
    return render_for(
        request,
        "quality.html",
        state,
        open_store,
        section="/quality",
        flags=flags,
        flag=chosen,
        threshold=limit,
        moved=moved,
        chart=chart(chosen.histogram, mark=limit),
        flagged={
            "items": [flagged_card(request, open_store, one.sample_id, chosen.name) for one in flagged.items],
            "total": flagged.total,
            "next": flagged.next,
        },
        scores=scores,
        by=score,
        grows=score.name in SUMS,
        keep=f"{keep:g}",
        clean=query.clean,
        n_kept=selection.n,
        keep_chart=chart(score.histogram, mark=selection.cut),
        keep_params={"by": score.name, "keep": f"{keep:g}", "flags": dropped},
        clean_params={"by": "random", "keep": 100, "flags": over},
    )


def headline(scores: list[Score]) -> Score:
    """The score to show first: the one with the best calibration on this data, otherwise the first of the list."""
    known = [one for one in scores if one.auroc is not None]
    return max(known, key=lambda one: one.auroc.value if one.auroc else 0.0) if known else scores[0]


def flagged_card(request: Request, open_store: OpenStore, sample_id: str, flag: str) -> dict[str, Any]:
    """A flagged sample's card with its flag score and, if the store has one, the reason."""
    sample = samples_api.get_sample(request, open_store, sample_id, 1)
    reasons = [hit.reason.text for hit in sample.flags if hit.name == flag and hit.reason]
    return card(sample, sample.flag_scores.get(flag), reasons[0] if reasons else "")


class Selection(NamedTuple):
    """The samples that a filter keeps."""

    n: int
    cut: float | None
    """Smallest score among the kept samples."""


def selected(open_store: OpenStore, by: str, keep: float, flags: list[str]) -> Selection:
    """How many samples `GET /filter` would stream, and the score at the cut."""
    store_quality = open_store.store.quality
    rows = store_quality.best_rows(by=by, keep=keep, flags=quality_api.flag_names(flags))
    values = store_quality.score_values(by)[rows]
    return Selection(len(rows), float(values.min()) if len(rows) else None)
