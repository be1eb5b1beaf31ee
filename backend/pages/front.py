"""The front page: what the store holds, and a first selection of features."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import features as features_api
from backend.api.controls import get_controls
from backend.api.features import FeatureQuery
from backend.api.stores import get_store_detail
from backend.drawing.charts import verdict_bar
from backend.drawing.figures import format_significant
from backend.pages.feature.summary import DIFFERS
from backend.pages.previews import previews, word_lines
from backend.pages.scores_and_flags import list_flags
from backend.pages.visit import PageDep
from backend.schemas.common import StoreDetail
from backend.schemas.features import Feature
from backend.stores import OpenStore
from backend.tour import steps
from precompute.sae.reconstruction import sae_warning
from precompute.store.schema import PLACES, TESTED_VERDICTS

router = APIRouter(default_response_class=HTMLResponse)

CARDS = 6
"""Features of a strip."""
SAE_FIGURES = {"fvu": "FVU", "l0": "L0", "dead": "dead"}
"""Figures of the manifest's `quality`, and how pages write them."""


@router.get("/")
def front(visit: PageDep) -> HTMLResponse:
    store = get_store_detail(visit.state, visit.store)
    strips = [*([] if visit.store.has_images else [strip_of_names(visit.store)]), *feature_strips(visit.store)]
    return visit.render(
        "front.html",
        section="/",
        has_model=visit.model.state not in ("off", "failed"),
        verdicts=store.verdicts,
        n_tested=sum(store.verdicts.get(name, 0) for name in TESTED_VERDICTS),
        split=verdict_bar(store.verdicts),
        controls=get_controls(visit.store),
        strips=strips,
        previews=previews(visit, {f.id for strip in strips for f in strip["features"]}),
        words=word_lines(visit.store, [f.id for strip in strips if strip["by_side"] for f in strip["features"]]),
        n_flags=sum(flag.count for flag in list_flags(visit.store)),
        n_flagged=visit.reader.quality.n_flagged,
        provenance=provenance_of(store, visit.store.has_images),
        unavailable=visit.state.unavailable,
        sae_warning=sae_warning(store.quality),
        rejected=visit.reader.rejected.kinds if store.n_quarantined else [],
        shuffled=bool(store.manifest.get("options", {}).get("shuffle_images")),
    )


def provenance_of(store: StoreDetail, has_images: bool) -> list[tuple[str, str]]:
    """Where the figures come from, and what the SAE is on this data."""
    n_special, n_sink = f"{store.n_special_tokens:,}", f"{store.n_sink_tokens:,}"
    delta = [("threshold δ of ω", ", ".join(f"{k} {v}" for k, v in store.delta.items()))]
    of_sae = [(title, per_modality(store.quality.get(name), has_images)) for name, title in SAE_FIGURES.items()]
    return [
        ("model", store.model),
        ("layer", f"{store.layer} (resid_post, counted from 0), width {store.d_model}"),
        ("SAE", store.sae),
        ("data", store.dataset),
        ("special tokens, sinks", f"{n_special}, {n_sink} (not counted in any figure)"),
        *(delta if has_images else []),
        ("labels", label_source(store.manifest.get("labels", {}))),
        *((name, text) for name, text in of_sae if text),
        ("content id", store.content_id),
        ("created", f"{store.created:%Y-%m-%d %H:%M}" if store.created else "–"),
        ("code version", store.version),
    ]


@router.get("/tour")
def tour(visit: PageDep) -> RedirectResponse:
    """Leads to the first step of the tour on this store."""
    first = steps(visit.store)[0]
    return RedirectResponse(f"{visit.links.page(first.path, **first.params, tour=1)}#{first.panel}", 303)


def feature_strips(store: OpenStore) -> list[dict[str, Any]]:
    """The features of four kinds that are most worth a look, each with the list that goes on with them; `by_side`:
    whether what they are takes the words of both sides."""

    def list_features(n: int = CARDS, **query: Any) -> list[Feature]:
        return features_api.get_features(store, FeatureQuery(**{"fold": "names", "limit": n, **query})).items

    ids = store.reader.quality.features_of_reasons
    feature_of = {f.id: f for f in list_features(len(ids) or 1, ids=",".join(map(str, ids)))} if ids else {}
    return [
        {
            "name": "Words and images agree",
            "help": "Cross-modal features with the most evidence: the captions of their strongest images have their "
            "words.",
            "features": [
                f for f in list_features(verdict=["cross-modal"], sort="evidence", order="desc") if f.evidence
            ],
            "more": {"verdict": "cross-modal", "sort": "evidence"},
            "by_side": False,
        },
        {
            "name": "The two sides differ",
            "help": "They fire on both sides of the same pairs, but the captions of their strongest images do not have "
            "their words. Below each name: the word that most of its tokens share, and most of these captions, if any.",
            "by_side": True,
            "features": [
                # One line a name would show the features of that name whose sides agree.
                f
                for f in list_features(verdict=["cross-modal"], sort="agreement", order="asc", fold="families")
                if f.agreement is not None and f.agreement < DIFFERS
            ],
            "more": {"verdict": "cross-modal", "sort": "agreement", "order": "asc", "fold": "families"},
        },
        {
            "name": "Tied to a place",
            "help": "Most of their activation on images lies on one patch, row or column.",
            "features": [
                f for kind in PLACES for f in list_features(CARDS // 3, place=kind, sort="place_share", order="desc")
            ],
            "more": {"place": "any", "sort": "place_share"},
            "by_side": False,
        },
        {
            "name": "Behind the flags",
            "help": f"Named most often in the reasons of flagged {'pairs' if store.has_images else 'texts'}.",
            "features": [feature_of[k] for k in ids if k in feature_of][:CARDS],
            "more": None,
            "by_side": False,
        },
    ]


def strip_of_names(store: OpenStore) -> dict[str, Any]:
    """Of a store without images, whose features have no second side: those with the best names."""
    query = FeatureQuery(sort="label_score", order="desc", has_label=True, fold="names", limit=CARDS)
    return {
        "name": "Named best",
        "help": "Features whose names tell their texts best from others.",
        "by_side": False,
        "features": features_api.get_features(store, query).items,
        "more": {"sort": "label_score"},
    }


def label_source(labels: dict[str, Any]) -> str:
    """How the labels were made."""
    if labels.get("method") != "labeller":
        return "keywords from each feature's own examples"
    n_failed = labels.get("n_failed")
    return f"written by {labels.get('labeller') or 'a model'}" + (f", {n_failed} from keywords" if n_failed else "")


def per_modality(value: Any, has_images: bool = True) -> str:
    """A figure of the manifest's `quality` in words: a number, or one per modality; without images that of text."""
    if isinstance(value, dict):
        if not has_images:
            return per_modality(value.get("text"))
        return ", ".join(f"{name} {text}" for name, part in value.items() if (text := per_modality(part)))
    if isinstance(value, int):
        return f"{value:,}"
    return format_significant(value) if isinstance(value, float) else ""
