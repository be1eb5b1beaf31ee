"""Query parameters that several endpoints share."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import HTTPException, Query
from fastapi import Path as PathParam
from pydantic import BaseModel, ConfigDict, model_validator

Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=500, pattern=r"^[\w=-]*$", description="`next` of the previous page.")]
FeatureId = Annotated[int, PathParam(ge=0, le=2**31 - 1, description="Feature number.")]
Words = Annotated[str | None, Query(max_length=500)]
Version = Annotated[
    str | None, Query(description="Content id: an address with it may be cached for ever.", max_length=80)
]

CameFrom = Annotated[str | None, Query(alias="from", max_length=300)]
"""Where a visitor comes from in another layer: the store's name, a colon, and numbers of features."""
Missing = Annotated[str | None, Query(max_length=200)]
"""Name of a store of another layer that lacks what the page is about."""


class QueryModel(BaseModel):
    """Query parameters of an endpoint: the docstring below a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class FormQuery(QueryModel):
    """Those of a page with a form: without JavaScript it also sends its empty fields, which are as if left out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value not in ("", [""])}


class FromMap(FormQuery):
    """Those of a list to which the map of features led: how the map was, so that a link leads back to it. The list does
    not depend on them."""

    view: Annotated[str, Query(max_length=100)] = ""
    """x,y,zoom."""
    layout: Annotated[str, Query(max_length=20)] = ""
    colour: Annotated[str, Query(max_length=20)] = ""
    sample: Annotated[str, Query(max_length=20_000)] = ""
    """Of the colour `sample`."""
    hide: Annotated[str, Query(max_length=200)] = ""
    """Verdicts, separated by commas."""
    marked: Annotated[str, Query(max_length=500)] = ""
    """Words that mark features on the map, where the list is not of them."""
    around: Annotated[str, Query(max_length=3000)] = ""
    """The area on the map, where the list is not of it."""
    pinned: Annotated[str, Query(max_length=10, pattern=r"^\d*$")] = ""
    """Number of the feature in the panel beside the map."""

    def of_map(self) -> dict[str, str | None]:
        """The parameters of the map's address."""
        return {OF_MAP.get(name, name): getattr(self, name) or None for name in MAP_STATE}


OF_MAP = {"marked": "q", "around": "area", "pinned": "feature"}
"""Names that these have in the map's address; in a list's they filter it."""
MAP_STATE = ("view", "layout", "colour", "sample", "hide", *OF_MAP)


def split_names(texts: Iterable[str]) -> list[str]:
    """Names from repeated parameters, or separated by commas in one."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def parse_patch(text: str) -> tuple[int, int, int]:
    """`view,row,col` of a patch. Raises HTTP 422."""
    parts = text.split(",")
    if len(parts) != 3 or not all(
        part.strip().isascii() and part.strip().isdigit() and len(part) < 8 for part in parts
    ):
        raise HTTPException(422, f"patch: {text!r} is not view,row,col: give three whole numbers, such as 0,2,3.")
    view, row, col = map(int, parts)
    return view, row, col


def parse_numbers(text: str, name: str, max_length: int = 500) -> list[int]:
    """Whole numbers, separated by commas. Raises HTTP 422."""
    parts = split_names([text])
    if len(parts) > max_length or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise HTTPException(422, f"{name}: give at most {max_length} whole numbers, separated by commas.")
    return [int(part) for part in parts]


def parse_box(text: str) -> tuple[float, float, float, float]:
    """`x0,y0,x1,y1` in pixels, a box that is not empty. Raises HTTP 422."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise HTTPException(422, f"crop: {text!r} is not x0,y0,x1,y1: give four numbers in pixels.") from None
    if not (abs(x0) < 1e7 and abs(y0) < 1e7 and x0 < x1 < 1e7 and y0 < y1 < 1e7):
        raise HTTPException(422, "crop: x0 must be below x1 and y0 below y1, in pixels of the image.")
    return x0, y0, x1, y1
