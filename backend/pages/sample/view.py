"""What the pages of a sample and of one's own pair draw alike: image and caption with what fires where, the features in
three groups, scores and flags."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from backend.drawing.heat import SideScale, patch_path, tops
from backend.drawing.text import visible
from backend.pages.sample.marks import MAX_CHOSEN, ImageMarks, Tops, caption_tokens, image_marks, short_name
from backend.pages.sample.panels import score_rows
from backend.params import CameFrom, FormQuery, Missing, parse_numbers
from backend.schemas.common import Patch, ScoreName
from backend.schemas.live import TriedPair
from backend.schemas.samples import PairActivations, PairFeaturesHere, SampleDetail
from backend.stores import OpenStore

GROUPS = {"both": "In image and caption", "image_only": "In the image only", "text_only": "In the caption only"}


class SampleView(FormQuery):
    """What the page of a sample shows: features, and a token or a patch."""

    f: str | None = None
    """Features, separated by commas, each drawn in its own hue."""
    feature: int | None = None
    """One feature; as `f` with one number."""
    position: int | None = None
    view: int | None = None
    row: int | None = None
    col: int | None = None
    scale: SideScale | None = None
    why: ScoreName | None = None
    """Score whose features are listed."""
    from_: CameFrom = None
    missing: Missing = None
    """Name of a store of another layer that does not hold the sample."""
    near: Literal["text", "image"] | None = None
    """What the nearest samples are near by."""

    def chosen(self) -> list[int]:
        """The numbers of the features in the order of their hues."""
        numbers = parse_numbers(self.f, "f", MAX_CHOSEN) if self.f else []
        if self.feature is not None and not numbers:
            numbers = [self.feature]
        return list(dict.fromkeys(numbers))


class PairView(NamedTuple):
    """A pair, and what its page shows of it."""

    detail: SampleDetail | TriedPair
    active: PairActivations
    """Of the chosen features."""
    here: PairFeaturesHere | None
    """What fires at the chosen place."""
    query: SampleView


def pair_values(
    open_store: OpenStore, view: PairView, features: list[int], reason: str | None = None, unread: int | None = None
) -> dict[str, Any]:
    """The values of templates/pair/.

    Args:
        features: numbers of the features.
        reason: why the activations are not available.
        unread: position of a word that is drawn though it is not read.
    """
    detail, activations, place_features, query = view
    scales = [tops(feature, query.scale) for feature in activations.features]
    return {
        "s": detail,
        "views": [image_view.model_dump() for image_view in detail.views],
        "chosen": activations.features,
        "toggled": partial(toggle, features),
        "unchosen": None,
        "silent": silent(activations) if reason is None else [],
        "images": stage(detail, activations, scales, place_features.patch if place_features else None),
        "tokens": caption_tokens(activations, scales, failing_words(detail), unread),
        "position": query.position,
        "at": {"view": query.view or 0, "row": query.row or 0, "col": query.col or 0} if detail.views else None,
        "here": place_features,
        "here_title": here_title(place_features) if place_features else "",
        "reason": reason,
        "recomputed": False,
        "groups": pair_groups(detail),
        "scale": query.scale,
        "tops": scales[0] if len(scales) == 1 else None,
        "scores": score_rows(open_store, detail),
        "flagged": detail.flags,
        "fitting": None,
        "carried": [],
    }


def pair_groups(detail: SampleDetail | TriedPair) -> list[tuple[str, str, list[Any]]]:
    """(name, title, features) of each group; of a text without an image its own alone, as the two others are empty."""
    if not detail.images:
        return [("text_only", "In the text", detail.groups.text_only)]
    return [(name, title, getattr(detail.groups, name)) for name, title in GROUPS.items()]


def place_of(query: SampleView, views: Sequence[Any]) -> dict[str, Any]:
    """The place whose features are listed, as the parameters of the API; empty without one."""
    if query.position is not None:
        return {"position": query.position}
    if views and query.row is not None and query.col is not None:
        return {"patch": f"{query.view or 0},{query.row},{query.col}"}
    return {}


def toggle(features: Sequence[int], feature: int) -> str | None:
    """The value of `f` with one more feature, or without it if it is chosen; the oldest makes room for a sixth."""
    other_features = [number for number in features if number != feature]
    numbers = other_features if feature in features else [*other_features[1 - MAX_CHOSEN :], feature]
    return ",".join(map(str, numbers)) or None


def silent(activations: PairActivations) -> list[str]:
    """The names of chosen features that are active nowhere in the sample."""
    return [
        short_name(feature)
        for i, feature in enumerate(activations.features)
        if not any(token.values and token.values[i] for token in activations.tokens)
    ]


def failing_words(detail: SampleDetail | TriedPair) -> list[str]:
    """Texts of the tokens that the reasons of the sample's flags name."""
    return [token for flag in detail.flags if flag.reason for token in flag.reason.tokens]


def here_title(place: PairFeaturesHere) -> str:
    """Where the listed features fire."""
    at = place.patch
    return f"Here: row {at.row}, column {at.col}" if at else f"Here: “{visible(place.token)}”"


def stage(
    detail: SampleDetail | TriedPair, activations: PairActivations, scales: Tops, mark: Patch | None
) -> list[dict[str, Any]]:
    """The sample's images, each with the activations of the chosen features over it and the chosen patch outlined."""
    images = []
    for index, image in enumerate(detail.images):
        marks = ImageMarks([], [])
        if scales:
            marks = image_marks([g for g in activations.grids if g.image == index], scales)
        outline = patch_path(detail.views[mark.view], mark.row, mark.col) if mark and mark.image == index else None
        images.append({**image.model_dump(), "marks": marks, "outline": outline})
    return images
