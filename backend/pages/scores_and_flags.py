"""The scores and flags that samples of a store can have, for the pages that list, filter or colour by them."""

from typing import Literal

from backend.schemas.samples import Flag, Score
from backend.stores import OpenStore
from precompute.store.schema import FLAGS, OF_IMAGES


def list_flags(open_store: OpenStore) -> list[Flag]:
    """The flags that samples of the store can have, with thresholds and counts."""
    flags = open_store.reader.quality.flags
    return [Flag.model_validate(flag) for flag in flags if is_possible(open_store, flag["name"])]


def is_possible(open_store: OpenStore, name: str) -> bool:
    """Whether samples of the store can have this score or flag."""
    return open_store.has_images or name not in OF_IMAGES


def worse_end(name: str) -> Literal["low", "high"] | None:
    """Which values of a score or a flag are those of worse samples; None where neither are."""
    return "high" if name in FLAGS else None if name == "random" else "low"


def colour_help(open_store: OpenStore) -> dict[str, tuple[str, str]]:
    """By score and flag: what it is and which end is worse, in words; and the order of a list that begins there."""
    words = {"low": "Low values are worse", "high": "High values are worse", None: "No value is worse than another"}
    order = {"low": "asc", "high": "desc", None: "asc"}
    texts = {flag.name: flag.description for flag in list_flags(open_store)}
    texts |= {flag.name: flag.description for flag in list_scores(open_store)}
    return {name: (f"{text}. {words[end]}.", order[end]) for name, text in texts.items() for end in [worse_end(name)]}


def list_scores(open_store: OpenStore) -> list[Score]:
    """The scores that samples of the store can have, with their distributions."""
    scores = open_store.reader.quality.scores
    return [Score.model_validate(score) for score in scores if is_possible(open_store, score["name"])]
