"""The front page: what the store holds, and a first selection of features."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.features import FeatureQuery
from backend.api.stores import get_store_detail
from backend.deps import StateDep, StoreDep
from backend.pages.cards import list_flags, previews
from backend.pages.charts import split
from backend.schemas.features import Feature
from backend.templating import render_for
from precompute.sae.reconstruction import sae_warning
from precompute.store.schema import TESTED_VERDICTS

router = APIRouter(default_response_class=HTMLResponse)

@router.get("/")
def front(request: Request, state: StateDep, open_store: StoreDep) -> HTMLResponse:
    """The front page of a store."""
    store = get_store_detail(state, open_store)
    best = FeatureQuery(verdict=["cross-modal"], sort="agreement_low", order="desc", limit=200)
    strongest = one_of_each(features_api.get_features(open_store, best).items, 12)
    quality = store.quality
    provenance = [
        ("model", store.model),
        ("layer", f"{store.layer} (resid_post, counted from 0), width {store.d_model}"),
        ("SAE", store.sae),
        ("data", store.dataset),
        (
            "special tokens, sinks",
            f"{store.n_special_tokens:,}, {store.n_sink_tokens:,} (not counted in any figure)",
        ),
        ("threshold δ of ω", ", ".join(f"{k} {v}" for k, v in store.delta.items())),
        ("labels", label_source(store.manifest.get("labels", {}))),
        *((name, text) for name in ("fvu", "l0", "dead") if (text := per_modality(quality.get(name)))),
        ("content id", store.content_id),
        ("created", f"{store.created:%Y-%m-%d %H:%M}" if store.created else "–"),
        ("code version", store.version),
    ]
    return render_for(
        request,
        "front.html",
        state,
        open_store,
        section="/",
        verdicts=store.verdicts,
        n_tested=sum(store.verdicts.get(name, 0) for name in TESTED_VERDICTS),
        split=split(store.verdicts),
        strongest=strongest,
        previews=previews(request, open_store, [f.id for f in strongest]),
        n_flagged=sum(flag.count for flag in list_flags(open_store)),
        provenance=provenance,
        unavailable=state.unavailable,
        sae_warning=sae_warning(quality),
        rejected=open_store.store.rejected.kinds if store.n_quarantined else [],
        shuffled=bool(store.manifest.get("options", {}).get("shuffle_images")),
    )


def one_of_each(features: list[Feature], n: int) -> list[Feature]:
    """The first n features with different labels, because features of one thing often have neighbouring ranks."""
    first = {(f.label or f"#{f.id}"): f for f in reversed(features)}
    return sorted(first.values(), key=features.index)[:n]


def label_source(labels: dict[str, Any]) -> str:
    """How the labels were made."""
    if labels.get("method") != "labeller":
        return "keywords from each feature's own examples"
    failed = labels.get("n_failed")
    return f"written by {labels.get('labeller') or 'a model'}" + (f", {failed} from keywords" if failed else "")


def per_modality(value: Any) -> str:
    """A figure of the manifest's `quality` in words: a number, or one per modality."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, one in value.items() if (text := per_modality(one)))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else ""
