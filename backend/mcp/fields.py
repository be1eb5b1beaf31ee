"""The arguments of the tools, each described, and what is left of the API's replies: an agent reads every word."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from backend.schemas.common import FlagName
from backend.schemas.common import Verdict as VerdictName

FEATURE = ("id", "label", "label_score", "description", "own_label", "tags", "verdict", "agreement", "pair_lift",
           "omega", "evidence", "density_text", "density_image", "n_samples", "max_activation", "p999")  # fmt: skip
EXAMPLE = ("sample_id", "text", "activation", "token", "patch", "n_same")
SAMPLE = ("sample_id", "text", "flags", "scores", "own_label", "tags")
NEIGHBOUR = ("id", "label", "label_score", "description", "cosine", "lift", "npmi", "support")

Feature = Annotated[int, Field(ge=0, description="Number of a feature, such as the `id` in a list.", examples=[12])]
Words = Annotated[
    str | None, Field(max_length=500, description="Words; all must be there. Whole words, the last may be a beginning.",
                      examples=["dog"])
]  # fmt: skip
MaybeFeature = Annotated[
    int | None, Field(ge=0, description="Number of a feature: only what has to do with it.", examples=[12])
]
SearchedWords = Annotated[
    str, Field(min_length=1, max_length=500, description="Words; all must be there.", examples=["red dog"])
]
Limit = Annotated[int, Field(ge=1, le=100, description="Number of items in the reply.", examples=[10])]
Cursor = Annotated[str | None, Field(description="`next` of the page before, with the same filters and order.")]
SampleId = Annotated[str, Field(min_length=1, description="Id of a sample, unchanged.", examples=["scene-00012"])]
MaybeSample = Annotated[str | None, Field(description="Id of a sample whose image is used.", examples=["scene-00012"])]
ImageData = Annotated[str | None, Field(description="An image file (PNG, JPEG, WebP) as base64.")]
Verdict = Annotated[
    VerdictName | None,
    Field(
        description="What its text and image sides have to do with each other: cross-modal features fire on both "
        "sides of the same pairs.",
        examples=["cross-modal"],
    ),
]
FeatureSort = Annotated[
    Literal["match", "evidence", "agreement", "label_score", "pair_lift", "omega", "density_text", "density_image",
            "n_samples", "max_activation", "id"],
    Field(description="Figure to sort by; evidence is agreement × name score; match: the best match of the words, then "
                      "evidence.", examples=["match"]),
]  # fmt: skip
Order = Annotated[Literal["asc", "desc"], Field(description="Rising or falling.", examples=["desc"])]
Side = Annotated[Literal["image", "text"], Field(description="Where it fires.", examples=["image"])]
Band = Annotated[
    Literal["-1", "0", "1", "2", "3", "counter"],
    Field(
        description="-1: the strongest; 0 to 3: random ones of each octave below the maximum, 3 the weakest; "
        "counter: where the feature and its name part ways.",
        examples=["-1"],
    ),
]
Flag = Annotated[FlagName | None, Field(description="Only samples with this quality flag.", examples=["mismatch"])]
Strength = Annotated[
    float | None,
    Field(ge=-100, le=100, description="In units of the feature's own 99.9th percentile; 0 adds nothing, negative "
                                       "takes away. Null: below the cap, where a change is as long as h, and only at "
                                       "image and prompt.",
          examples=[4.0])
]  # fmt: skip
Mode = Annotated[
    Literal["add", "set", "ablate"], Field(description="Add to the activation, set it, or remove it.", examples=["add"])
]
Prompt = Annotated[str, Field(max_length=4000, description="What the model is asked.", examples=["What is this?"])]
MaxTokens = Annotated[int, Field(ge=1, le=512, description="Tokens to generate at most.", examples=[24])]
Attention = Annotated[
    Literal["free", "frozen"],
    Field(
        description="frozen: above the steered layer each token attends as without steering, so that only the values "
        "that attention moves can change.",
        examples=["frozen"],
    ),
]
Kind = Annotated[
    Literal["text-image", "text-text", "image-image"],
    Field(description="Sides of the two features.", examples=["text-image"]),
]


@dataclass(frozen=True, kw_only=True)
class Steering:
    """The arguments of the tool `steer`."""

    feature: Feature
    strength: Strength = None
    mode: Mode = "add"
    prompt: Prompt = ""
    sample_id: MaybeSample = None
    max_tokens: MaxTokens = 24
    attention: Attention = "free"


T = TypeVar("T", bound=Callable[..., Any])


def takes(arguments: type[Steering]) -> Callable[[T], T]:
    """Let a method that takes keywords show an agent the fields of a dataclass as its arguments."""

    def with_signature(tool: T) -> T:
        signature = inspect.signature(tool, eval_str=True)
        fields = inspect.signature(arguments).parameters.values()
        parameters = [signature.parameters["self"], *fields]
        tool.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return tool

    return with_signature


def pick(item: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an item that have a value, numbers shortened to four digits."""
    values = {name: shorten(item.get(name)) for name in names}
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def shorten(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: shorten(part) for name, part in value.items() if part is not None}
    return [shorten(part) for part in value] if isinstance(value, list) else value
