"""Live steering."""

import re
from math import nan
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from backend.api import features as features_api
from backend.api.features import FeatureQuery
from backend.drawing.text import visible
from backend.links import uploaded_image
from backend.live.steer_start import MAX_STRENGTH, cap_of, first_scope, start_of
from backend.pages.visit import PageDep, PageVisit
from backend.params import QueryModel
from backend.schemas.features import Feature
from backend.stores import OpenStore
from backend.templating import MaybeStr

router = APIRouter(default_response_class=HTMLResponse)

QUESTION = "What is in the image?"
N_WORDS = 8
"""Words of a text to begin with, where there is no image to ask about."""
SUGGESTIONS = 4
SCOPES = ("image", "prompt", "generated")
NO_SAMPLE = "none"
MODES = ("add", "set", "ablate")
MANY = ("strengths", "features", "seeds")
"""Several runs of one prompt: at several strengths, each feature alone, with several seeds."""


class SteerQuery(QueryModel):
    """With what the form of the page begins."""

    sample: MaybeStr = None
    """Id of a sample, or `none`; without it a sample in which the first feature is off."""
    image: str = ""
    """Hash of an uploaded image, instead of `sample`."""
    prompt: str | None = None
    """Without it QUESTION, or the first words of a store of texts."""
    feature: list[str] = Field(default_factory=list)
    """id:mode:strength, may be repeated; without strength that of `start_of`. `:family` behind it: with its family."""
    target: str = ""
    """Word whose probability is shown."""
    scope: str | None = None
    """Commas between, or `none`; without it where a first run steers."""
    attention: Literal["free", "frozen"] = "free"
    mask: str = ""
    """Patches to which the image is narrowed: view:row:first-last, commas between."""
    many: str = ""
    """What of `MANY` runs at once."""
    max_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0


@router.get("/steer")
def steer(visit: PageDep, query: Annotated[SteerQuery, Query()]) -> HTMLResponse:
    """The form, as the address fills it."""
    features, faults = read_features(visit.store, query.feature)
    image, note = held_image(visit, query.image)
    images = visit.store.has_images
    start: dict[str, Any] = {
        **query.model_dump(include={"target", "attention", "mask", "max_tokens", "temperature", "seed"}),
        "prompt": start_prompt(visit) if query.prompt is None else query.prompt,
        "many": query.many if query.many in MANY else "",
        "sample": None if query.image else start_sample(visit, query.sample, features),
        "image": image,
        "note": note,
        "features": features,
        "faulty": bool(faults),
        "layer": visit.store.manifest["model"]["layer"],
        "images": images,
        "scope": first_scope(visit.store)
        if query.scope is None
        else [name for name in query.scope.split(",") if name in (SCOPES if images else SCOPES[1:])],
    }
    return visit.render(
        "steer.html",
        section="/steer",
        live=visit.model,
        start=start,
        faults=faults,
        suggestions=[] if features else suggestions(visit.store),
    )


def suggestions(open_store: OpenStore) -> list[Feature]:
    """Features to begin with: of different names, those whose words and images agree best."""
    query = FeatureQuery(verdict=["cross-modal"], sort="evidence", order="desc", fold="names", limit=SUGGESTIONS)
    return [feature for feature in features_api.get_features(open_store, query).items if feature.evidence]


def held_image(visit: PageVisit, hash: str) -> tuple[dict[str, Any] | None, str | None]:
    """The uploaded image of the address as the API has it, and a sentence if the server no longer holds it."""
    if not hash:
        return None, None
    try:
        return uploaded_image(visit.request, hash, visit.state.uploads.get(hash).size), None
    except HTTPException as error:
        return None, str(error.detail)


def start_prompt(visit: PageVisit) -> str:
    """The usual question of an image; in a store of texts, words for the model to go on with."""
    if visit.store.has_images:
        return QUESTION
    items = visit.reader.samples.list(limit=1).items
    return " ".join(items[0]["text"].split()[:N_WORDS]) if items else ""


def start_sample(visit: PageVisit, sample: str | None, features: list[dict[str, Any]]) -> str | None:
    """The sample of the address; without one, a sample in which the first feature is off, or the store's first. None
    in a store of texts: the model reads a sample's image alone."""
    if not visit.store.has_images:
        return None
    if sample is not None:
        return None if sample == NO_SAMPLE else sample
    if features:
        return start_of(visit.store, features[0]["id"]).sample_id
    return visit.reader.samples.sample_id(0) if visit.reader.n_samples else None


def read_features(open_store: OpenStore, texts: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The features of the address with their labels, and a sentence for each that is left out."""
    features, faults = [], []
    for text in texts:
        try:
            features.append(parse_feature(open_store, text, len(texts)))
        except HTTPException as fault:
            faults.append(str(fault.detail))
    return features, faults


def parse_feature(open_store: OpenStore, text: str, n_features: int) -> dict[str, Any]:
    """One of the `n_features` of the address, with its label. Raises HTTPException: 404 or 422 if it cannot be used."""
    number, mode, strength, family = (*text.split(":", 3), "", "", "")[:4]
    field = f"feature={visible(text[:60])}"
    if not re.fullmatch(r"-?[0-9]{1,18}", number.strip()):
        raise HTTPException(422, f"{field} does not begin with a feature's number: write id:mode:strength, as 3:add:2.")
    detail = features_api.get_feature(open_store, int(number))
    if mode not in ("", *MODES):
        raise HTTPException(422, f"{field} has no such mode: choose add, set or ablate.")
    if family not in ("", "family"):
        raise HTTPException(422, f"{field} ends in something unknown: write id:mode:strength, or :family behind it.")
    try:
        value = float(strength) if strength else start_of(open_store, detail.id, n_features).strength
    except ValueError:
        value = nan
    if not abs(value) <= MAX_STRENGTH:
        strength_range = f"from −{MAX_STRENGTH:.0f} to {MAX_STRENGTH:.0f}"
        raise HTTPException(422, f"{field} has no such strength: give a number {strength_range}.")
    return {
        "id": detail.id,
        **{name: getattr(detail, name) for name in ("own_label", "label", "label_score", "description", "n_members")},
        "mode": mode or "add",
        "strength": value,
        "family": family == "family",
        "cap": cap_of(open_store, detail.id),
    }
