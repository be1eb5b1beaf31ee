"""The pages that work on the data or with the live model: co-occurrence, quality, search, steering."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from backend.api import cooccurrence as cooccurrence_api
from backend.api import features as features_api
from backend.api import sae as sae_api
from backend.api import samples as samples_api
from backend.deps import OpenStore, State, StateDep, StoreDep
from backend.pages import data
from backend.pages.parts import Curves, chart, curves
from backend.pages.templating import Maybe, MaybeFloat, MaybeInt, MaybeStr, SampleKey, render_for
from backend.schemas import FlagName, SaeTraining, ScoreName

router = APIRouter(default_response_class=HTMLResponse)

PAIR_SORTS = {"npmi": "NPMI", "lift": "lift", "support": "support"}
SUMS = {"cosine", "cosine-cooccurring", "cooccurring-l0"}
"""Scores that add up over features, so that longer samples get more (METHOD: scoring and ranking data)."""
SCOPES = ("image", "prompt", "generated")


@router.get("/cooccurrence")
def cooccurrence(
    request: Request,
    state: StateDep,
    served: StoreDep,
    min_support: Annotated[MaybeInt, Query()] = None,
    sort: Literal["npmi", "lift", "support"] = "npmi",
    feature: MaybeInt = None,
    cursor: MaybeStr = None,
) -> HTMLResponse:
    support = 5 if min_support is None else min_support
    page = cooccurrence_api.get_cooccurrence(served, min_support=support, sort=sort, feature=feature, cursor=cursor)
    return render_for(
        request,
        "cooccurrence.html",
        state,
        served,
        section="/cooccurrence",
        page=page,
        q={"min_support": support, "sort": sort, "feature": feature, "cursor": cursor},
        sorts=PAIR_SORTS.items(),
        glimpses=data.glimpses(request, served, [pair.b.id for pair in page.items]),
    )


@router.get("/quality")
def quality(
    request: Request,
    state: StateDep,
    served: StoreDep,
    flag: Annotated[FlagName | None, Maybe] = None,
    threshold: MaybeFloat = None,
    by: Annotated[ScoreName | None, Maybe] = None,
    keep: Annotated[float, Query(gt=0, le=100)] = 50,
    clean: bool = False,
    cursor: MaybeStr = None,
) -> HTMLResponse:
    flags, scores = data.list_flags(served), data.list_scores(served)
    chosen = next((one for one in flags if one.name == flag), None) if flag else flags[0]
    score = next((one for one in scores if one.name == by), None) if by else data.headline(scores)
    if chosen is None or score is None:
        unknown = f"flag {flag!r}" if chosen is None else f"score {by!r}"
        raise HTTPException(404, f"This store has no {unknown}.")
    limit = chosen.threshold if threshold is None else threshold
    worst: dict[str, Any] = {"flag": chosen.name, "threshold": limit, "sort": chosen.name, "order": "desc"}
    offenders = samples_api.get_samples(request, served, **worst, cursor=cursor, limit=24)
    moved = threshold is not None and threshold != chosen.threshold
    over = f"{chosen.name}:{limit:.6g}" if moved else chosen.name
    dropped = ["all", *([over] if moved else [])] if clean else []
    kept = data.kept(served, score.name, keep, dropped)
    return render_for(
        request,
        "quality.html",
        state,
        served,
        section="/quality",
        flags=flags,
        flag=chosen,
        threshold=limit,
        moved=moved,
        chart=chart(chosen.histogram, mark=limit),
        offenders={
            "items": [data.offender(request, served, one.sample_id, chosen.name) for one in offenders.items],
            "total": offenders.total,
            "next": offenders.next,
        },
        scores=scores,
        by=score,
        grows=score.name in SUMS,
        keep=f"{keep:g}",
        clean=clean,
        kept=kept.n,
        keep_chart=chart(score.histogram, mark=kept.cut),
        keep_params={"by": score.name, "keep": f"{keep:g}", "flags": dropped},
        clean_params={"by": "random", "keep": 100, "flags": over},
    )


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


@router.get("/search")
async def search(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: MaybeStr = None,
    model: bool = False,
    sample: MaybeStr = None,
    sample_key: SampleKey = None,
) -> HTMLResponse:
    """By words; through the model if `model` asks for it; with the picture of `sample` if that is given."""
    return await found(request, state, served, q, model, sample or sample_key, None)


@router.post("/search")
async def search_picture(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: Annotated[str, Form()] = "",
    model: Annotated[bool, Form()] = False,
    sample: Annotated[str, Form()] = "",
    sample_key: Annotated[SampleKey, Form()] = None,
    image: Annotated[UploadFile | None, File()] = None,
) -> HTMLResponse:
    """The same with a picture's bytes, which have no address."""
    upload = image if image is not None and image.size else None
    return await found(request, state, served, q or None, model, sample or sample_key, upload)


async def found(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: str | None,
    model: bool,
    sample: str | None,
    image: UploadFile | None,
) -> HTMLResponse:
    refused: HTTPException | None = None
    results: dict[str, Any] | None = None
    picture: data.Query | None = None
    try:
        if image is not None or sample or (q and model):
            told = image is None and sample is not None and not (q or "").strip()  # by the pass
            with contextlib.nullcontext() if told else state.live.reserve(served.name) as place:
                picture = await data.query_image(request, state, served, sample, image)
                results = await data.live_search(request, state, served, place, q, picture)
        elif q:
            results = await run_in_threadpool(data.word_search, request, served, q)
    except HTTPException as error:  # shown in its place on the page, not instead of it
        refused = error
    asked = {"q": q or "", "through_model": model, "sample_id": sample or "", "picture": picture and picture.url}
    page = await run_in_threadpool(search_page, request, state, served, asked, results, refused)
    page.headers.update((refused.headers if refused else None) or {})
    return page


def search_page(
    request: Request,
    state: State,
    served: OpenStore,
    asked: dict[str, Any],
    results: dict[str, Any] | None,
    refused: HTTPException | None,
) -> HTMLResponse:
    ids = [f.id for f in [*(results["ranked"] or []), *(results["words"] or [])]] if results else []
    return render_for(
        request,
        "search.html",
        state,
        served,
        section="/search",
        status=refused.status_code if refused else 200,
        live=state.live.status(served.name),
        error=str(refused.detail) if refused else None,
        results=results,
        glimpses=data.glimpses(request, served, ids),
        **asked,
    )


@router.get("/steer")
def steer(
    request: Request,
    state: StateDep,
    served: StoreDep,
    sample: MaybeStr = None,
    prompt: str | None = None,
    feature: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    scope: str = ",".join(SCOPES),
    max_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
) -> HTMLResponse:
    """`feature` is id:mode:strength, several times."""
    start: dict[str, Any] = {
        "sample": sample
        if sample is not None
        else samples_api.get_samples(request, served, limit=1).items[0].sample_id,
        "prompt": prompt if prompt is not None else "What is in the picture?",
        "features": [one for text in feature if (one := asked_feature(served, text))],
        "scope": [one for one in scope.split(",") if one in SCOPES],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    return render_for(
        request,
        "steer.html",
        state,
        served,
        section="/steer",
        live=state.live.status(served.name),
        start=start,
    )


def asked_feature(served: StoreDep, text: str) -> dict[str, Any] | None:
    """One `feature=` of the address with its label; None where it cannot be read: old links still open."""
    number, _, rest = text.partition(":")
    mode, _, strength = rest.partition(":")
    try:
        named = features_api.get_feature(served, int(number))
        return {
            "id": named.id,
            "label": named.label,
            "mode": mode if mode in ("set", "add", "ablate") else "add",
            "strength": float(strength or 1),
        }
    except (ValueError, HTTPException):
        return None
