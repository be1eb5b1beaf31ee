"""The form for a pair of one's own, which several pages have, and where it leads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import File, Form, UploadFile
from pydantic import AfterValidator

from backend.api.own.matrix import MAX_OWN, as_parameter, own_pair
from backend.api.own.pairs import MAX_TEXT, plain_text
from backend.links import check_feature, uploaded_image
from backend.live.query import OwnPair
from backend.pages.visit import PageVisit
from backend.schemas.annotations import MAX_MEMBERS

Hidden = list[tuple[str, Any]]


@dataclass(frozen=True)
class OwnForm:
    """A pair with a file, which an address cannot carry, and the page that it is for."""

    text: Annotated[str, Form(max_length=MAX_TEXT), AfterValidator(plain_text)] = ""
    image: Annotated[UploadFile | None, File()] = None
    image_hash: Annotated[str, Form(max_length=64)] = ""
    """Of the image that the server holds already."""
    do: Annotated[str, Form()] = ""
    """`remove`: the server is to forget that image."""
    f: Annotated[str, Form(max_length=200)] = ""
    """Features that are shown."""
    feature: Annotated[int | None, Form()] = None
    """The pair is for the page of this feature."""
    name: Annotated[str, Form(max_length=60)] = ""
    """It is for the page of this list."""
    features: Annotated[str, Form(max_length=60_000)] = ""
    """It is for the page of a basket with these features."""
    sample: Annotated[Sequence[str], Form(max_length=MAX_MEMBERS)] = ()
    """And these samples, as addresses name them."""
    own: Annotated[Sequence[str], Form(max_length=MAX_OWN)] = ()
    """Pairs that this page shows already."""


def held_image(visit: PageVisit, hash: str | None) -> dict[str, Any] | None:
    """An uploaded image, as `links.uploaded_image`; None without one, or where the server no longer holds it."""
    if not hash or not visit.state.uploads.holds(hash):
        return None
    return uploaded_image(visit.request, hash, visit.state.uploads.get(hash).size)


def form_values(visit: PageVisit, pair: OwnPair, fields: Hidden) -> dict[str, Any]:
    """The values of templates/own/form.html; `fields` are further fields (name, value)."""
    return {
        "own": pair,
        "own_image": held_image(visit, pair.image),
        "own_hidden": fields,
        "live": visit.model,
    }


async def take(visit: PageVisit, form: OwnForm) -> OwnPair:
    """The pair of a form, its image held from now on or no longer.

    Raises:
        HTTPException: 413 or 422 for an image that cannot be read, 503 if the model is off.
    """
    image = form.image_hash or None
    if form.do == "remove":
        if image is not None and visit.state.uploads.holds(image):
            visit.state.remove_upload(image)
        return OwnPair(form.text)
    if form.image is not None and form.image.size:
        image = (await visit.hold(form.image)).hash
    return OwnPair(form.text, image)


def address_of(visit: PageVisit, form: OwnForm, pair: OwnPair) -> str:
    """Where the pair is shown. Raises HTTPException: 404 for a feature that the store does not have."""
    links = visit.links
    if form.feature is not None:
        check_feature(visit.store, form.feature)
        return links.page(f"/features/{form.feature}", **pair.params()) + "#try"
    if form.name or form.features:
        all_own = [*form.own, as_parameter(pair)] if any(pair) else [*form.own]
        pairs = [parameter for parameter in dict.fromkeys(all_own) if own_pair(parameter)][-MAX_OWN:]
        if form.name:
            return links.page(f"/lists/{quote(form.name)}", own=pairs) + "#matrix"
        return links.page("/basket", features=form.features, sample=[*form.sample], own=pairs) + "#matrix"
    return links.page("/try", **pair.params(), f=form.f)
