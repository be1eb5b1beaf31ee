"""The front page: what the store holds, and features to begin with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.stores import get_store_detail
from backend.deps import StateDep, StoreDep
from backend.pages.cards import glimpses, list_flags
from backend.pages.charts import split
from backend.schemas import Feature
from backend.templating import render_for
from precompute.sae.quality import sae_warning

router = APIRouter(default_response_class=HTMLResponse)




@router.get("/")
def front(request: Request, state: StateDep, served: StoreDep) -> HTMLResponse:
    store = get_store_detail(state, served)
    strongest = one_of_each(
        features_api.get_features(served, verdict=["cross-modal"], sort="lift", order="desc", limit=200).items, 12
    )
    quality = store.quality
    provenance = [
        ("model", store.model),
        ("layer", f"{store.layer} (resid_post, counted from 0), width {store.d_model}"),
        ("SAE", store.sae),
        ("data", store.dataset),
        (
            "special tokens, sinks",
            f"{store.n_special_tokens:,}, {store.n_sink_tokens:,} (run, never counted)",
        ),
        ("threshold δ of ω", ", ".join(f"{k} {v}" for k, v in store.delta.items())),
        ("labels", named_by(store.manifest.get("labels", {}))),
        *((name, shown) for name in ("fvu", "l0", "dead") if (shown := per_modality(quality.get(name)))),
        ("content", store.content_id),
        ("made", f"{store.created:%Y-%m-%d %H:%M}" if store.created else "–"),
        ("code version", store.version),
    ]
    return render_for(
        request,
        "front.html",
        state,
        served,
        section="/",
        verdicts=store.verdicts,
        split=split(store.verdicts),
        strongest=strongest,
        glimpses=glimpses(request, served, [f.id for f in strongest]),
        n_flagged=sum(flag.count for flag in list_flags(served)),
        provenance=provenance,
        unavailable=state.unavailable,
        sae_warning=sae_warning(quality),
        rejected=served.store.rejected.kinds if store.n_quarantined else [],
        shuffled=bool(store.manifest.get("options", {}).get("shuffle_images")),
    )


def one_of_each(features: list[Feature], n: int) -> list[Feature]:
    """The first n with labels of their own: features of one thing tend to stand together in a ranking."""
    first = {(f.label or f"#{f.id}"): f for f in reversed(features)}
    return sorted(first.values(), key=features.index)[:n]


def named_by(labels: dict[str, Any]) -> str:
    """Who wrote the features' names."""
    if labels.get("method") != "labeller":
        return "keywords from each feature's own evidence"
    failed = labels.get("n_failed")
    return f"written by {labels.get('labeller') or 'a model'}" + (f", {failed} left to keywords" if failed else "")


def per_modality(value: Any) -> str:
    """A figure of the manifest's `quality` in words: a number, or one per modality."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown}" for name, one in value.items() if (shown := per_modality(one)))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else ""
