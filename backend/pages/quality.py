"""Flags and scores of the data, and what a filter keeps."""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from backend.annotations.filters import rightly_flagged
from backend.api import quality as quality_api
from backend.api import samples as samples_api
from backend.api.annotations.lists import get_filters
from backend.api.annotations.marks import get_marks
from backend.api.samples import SampleQuery
from backend.drawing.charts import chart
from backend.pages.cards import sample_card
from backend.pages.scores_and_flags import list_flags, list_scores
from backend.pages.visit import PageDep, PageVisit
from backend.params import Cursor, FormQuery
from backend.schemas.common import FlagName, ScoreName
from backend.schemas.quality import FilterPreview, FlagOverlap
from backend.schemas.samples import Score
from backend.stores import OpenStore
from precompute.scoring.scores import FROM_LIKELIHOOD
from precompute.store.schema import FLAGS
from precompute.utils.types import Array

router = APIRouter(default_response_class=HTMLResponse)

N_EDGE = 6
"""Samples that the page shows of an export."""

SUMS = {"cosine", "cosine-cooccurring", "cooccurring-l0"}
"""Scores that are sums over features, so that longer samples score higher (METHOD: scoring and ranking data)."""


NOT_CALIBRATED = {
    "random": "a control: .5 by construction",
    "l0": "not tested: a mean over tokens, which exchanged captions keep",
}
"""Why a score has no AUROC, where it could not have one."""


class QualityQuery(FormQuery):
    """A flag with its threshold, and what the export holds."""

    flag: FlagName | None = None
    threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None
    by: ScoreName | None = None
    """Score that the export keeps the highest of; all pairs without one."""
    keep: Annotated[float, Query(gt=0, le=100)] = 50
    """Per cent of the pairs that the flags leave."""
    without: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012 - pydantic copies it
    """Flags that the export leaves out."""
    require: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012
    """Flags that all pairs of the export have."""
    without_right: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012
    """Flags: the export leaves out the pairs that people marked as rightly flagged."""
    only_right: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012
    """Flags: it has only such pairs."""
    clean: bool = False
    """Older addresses: leave out every flagged pair."""
    cursor: Cursor = None


@router.get("/quality")
def quality(visit: PageDep, query: Annotated[QualityQuery, Query()]) -> HTMLResponse:
    """Flags and scores of the data, and what an export of them holds."""
    flags, scores = list_flags(visit.store), list_scores(visit.store)
    flag = next((f for f in flags if f.name == query.flag), None) if query.flag else flags[0]
    score = next((s for s in scores if s.name == query.by), None)
    if flag is None or (query.by and score is None):
        problem = f"flag {query.flag!r}" if flag is None else f"score {query.by!r}"
        raise HTTPException(404, f"This store has no {problem}.")
    limit = flag.threshold if query.threshold is None else query.threshold
    name: Any = flag.name
    sample_query = SampleQuery(flag=name, threshold=limit, sort=name, order="desc", cursor=query.cursor, limit=12)
    samples = samples_api.get_samples(visit.request, visit.store, sample_query)
    limit_changed = limit != flag.threshold
    option = f"{flag.name}:{limit!r}" if limit_changed else flag.name
    tray = export_tray(visit.store, query, {flag.name: option})
    overlap = quality_api.get_overlap(visit.store, [option] if limit_changed else [])
    marks = get_marks(visit.store, name, limit)
    counts = {flag_option.partition(":")[0]: overlap.counts[i][i] for i, flag_option in enumerate(overlap.flags)}
    return visit.render(
        "quality.html",
        section="/quality",
        saved=get_filters(visit.store, "/quality").items,
        flags=flags,
        counts=counts,
        n_flagged=overlap.n_flagged,
        table=overlap_table(overlap),
        titles={name: title for name, (title, _) in FLAGS.items()},
        marks=marks,
        marked={mark.sample_id: mark.right for mark in marks.items},
        marks_off=visit.store.annotations.why_read_only() is not None,
        flag=flag,
        threshold=limit,
        moved=limit_changed,
        option=option,
        chart=chart(flag.histogram, mark=limit),
        flagged={
            "items": [flagged_card(visit, sample.sample_id, flag.name) for sample in samples.items],
            "total": samples.total,
            "next": samples.next,
        },
        scores=scores,
        by=score,
        grows=score is not None and score.name in SUMS,
        keep=f"{query.keep:g}",
        without=tray.without,
        q=query,
        n_right=tray.n_right,
        preview=tray.preview,
        edge=edge_cards(visit, query.by, tray.rows),
        export=tray.params,
        keep_chart=chart(score.histogram, mark=tray.preview.cut) if score else None,
        best=[item for item in (headline(scores, False), headline(scores, True)) if item],
        no_sae=FROM_LIKELIHOOD,
        not_calibrated=NOT_CALIBRATED,
    )


class Cell(NamedTuple):
    """Pairs with both of two flags."""

    n: int
    share: float
    """Of those with the rarer flag."""
    level: int
    """1–4 by the share; 0 for a flag with itself, and where there is no such pair."""
    flags: str
    """Both, as `GET /samples` takes them."""


class OverlapRow(NamedTuple):
    """A flag of the matrix."""

    name: str
    cells: list[Cell]


def overlap_table(overlap: FlagOverlap) -> list[OverlapRow]:
    """The matrix of the flags that any pair has."""
    n = overlap.counts
    in_use = [i for i in range(len(n)) if n[i][i]]
    rows = []
    for i in in_use:
        cells = []
        for j in in_use:
            share = n[i][j] / min(n[i][i], n[j][j])
            names = overlap.flags[i] if i == j else f"{overlap.flags[i]},{overlap.flags[j]}"
            cells.append(Cell(n[i][j], share, 0 if i == j else math.ceil(4 * share), names))
        rows.append(OverlapRow(overlap.flags[i].partition(":")[0], cells))
    return rows


class Tray(NamedTuple):
    """What the export holds."""

    without: list[str]
    preview: FilterPreview
    rows: Array
    """int64 [K], rising: the samples in it."""
    params: dict[str, Any]
    """Of `GET /filter`."""
    n_right: dict[str, int]
    """By flag, the pairs that people marked as rightly flagged."""


def export_tray(open_store: OpenStore, query: QualityQuery, options: dict[str, str]) -> Tray:
    """What the export holds.

    Args:
        options: NAME:THRESHOLD of flags with another threshold, by name.
    """
    left_out = list(FLAGS) if query.clean else query.without
    params: dict[str, Any] = (
        {"by": query.by, "keep": query.keep if query.by else None}
        | {
            key: [options.get(name, name) for name in names]
            for key, names in (("flags", left_out), ("require", query.require))
        }
        | {"without_right": query.without_right, "only_right": query.only_right}
    )
    choice = quality_api.FilterQuery(**params)
    rows = quality_api.filtered_rows(open_store, choice)
    preview = quality_api.preview_of(open_store, choice, rows)
    n_right = {flag: int(rightly_flagged(open_store.annotations, open_store.reader, flag).sum()) for flag in FLAGS}
    return Tray(left_out, preview, rows, params, n_right)


def edge_cards(visit: PageVisit, by: ScoreName | None, rows: Array) -> list[dict[str, Any]]:
    """Cards of the samples that tell whether the export is cut at the right place: those with the lowest score, or the
    first of the data where none ranks them.

    Args:
        rows: int64 [K], rising: the samples in the export.
    """
    if by is not None:
        score = np.nan_to_num(visit.store.reader.quality.score_values(by)[rows], nan=-np.inf)
        lowest = np.argpartition(score, N_EDGE)[:N_EDGE] if len(rows) > N_EDGE else np.arange(len(rows))
        rows = rows[lowest[np.lexsort((rows[lowest], score[lowest]))]]
    page = samples_api.as_page(visit.request, visit.store, samples_api.samples_in(visit.store, rows[:N_EDGE].tolist()))
    return [sample_card(sample, sample.scores.get(by) if by else None) for sample in page.items]


def headline(scores: list[Score], from_likelihood: bool) -> Score | None:
    """The score with the best calibration: of those from the SAE, or of those that need none (`from_likelihood`)."""
    with_auroc = [s for s in scores if s.auroc and (s.name in FROM_LIKELIHOOD) == from_likelihood]
    return max(with_auroc, key=lambda s: s.auroc.value if s.auroc else 0.0) if with_auroc else None


def flagged_card(visit: PageVisit, sample_id: str, flag: str) -> dict[str, Any]:
    """A flagged sample's card with its flag score and, if the store has one, the reason; for a near-duplicate also
    `twin`, the card of the sample that it repeats."""
    sample = samples_api.get_sample(visit.request, visit.store, sample_id, 1)
    reasons = [flag_hit.reason.text for flag_hit in sample.flags if flag_hit.name == flag and flag_hit.reason]
    twin_id = sample.near_sample_id if flag == "near-duplicate" else None
    twin = sample_card(samples_api.get_sample(visit.request, visit.store, twin_id, 1)) if twin_id else None
    return {**sample_card(sample, sample.flag_scores.get(flag), reasons[0] if reasons else ""), "twin": twin}
