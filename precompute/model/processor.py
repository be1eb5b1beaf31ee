"""The model's own processor, where need be without its part for videos."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from precompute.errors import PairError, SaevxError, first_line
from precompute.model.batch import Pair
from precompute.model.patterns import no_panic

TRIAL_SIDE = 336
"""Pixels of a square image that every processor takes."""
PARTS = {
    "image_processor": AutoImageProcessor,
    "tokenizer": AutoTokenizer,
    "feature_extractor": AutoFeatureExtractor,
}


def load_processor(source: str, config: Any) -> Any:
    """`AutoProcessor`; where its video part cannot be made (it needs torchvision, and a file of its own), the
    family's own class without it: pairs hold images and text only.

    Raises:
        ImportError, OSError: something else is missing.
    """
    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except (ImportError, OSError):
        processor_class = PROCESSOR_MAPPING.get(type(config), None)
        if processor_class is None or "video_processor" not in processor_class.get_attributes():
            raise
    args = [
        PARTS[name].from_pretrained(source, trust_remote_code=False) if name in PARTS else NoVideo()
        for name in processor_class.get_attributes()
    ]
    settings, _ = processor_class.get_processor_dict(source)
    return without_video(processor_class).from_args_and_dict(args, settings)


def check_processor(mllm: Any) -> None:
    """Raises SaevxError where the processor of an `Mllm`, or the geometry with its settings, refuses any image: else
    every row of the data would be rejected for its image."""
    if not mllm.multimodal or mllm.family == "square":  # that takes images of some sizes alone
        return
    try:
        mllm.prepare([Pair("", [Image.new("RGB", (TRIAL_SIDE, TRIAL_SIDE))])])
    except PairError as error:
        if error.__cause__ is not None:  # not for its length
            raise SaevxError(
                f"The model {mllm.source} cannot be loaded: {error.reason}, and any other image. Its config.json and "
                "processor files do not belong together or are damaged, so download all of its folder again."
            ) from error


def mean_colour(processor: Any) -> tuple[int, int, int]:
    """RGB, 0 to 255: the colour that the image processor takes for the mean of all images and turns into 0. Mid-grey
    where it names none."""
    mean = getattr(getattr(processor, "image_processor", None), "image_mean", None)
    if not isinstance(mean, list | tuple) or len(mean) != 3:
        mean = (0.5, 0.5, 0.5)
    red, green, blue = (round(255 * float(value)) for value in mean)
    return red, green, blue


class NoVideo(dict[str, Any]):
    """Stands in the place of a processor's video part, which no pair ever reaches. A dict, so that the processor
    can still be printed."""

    num_frames = fps = None


def without_video(base: Any) -> Any:
    """The processor class, content with `NoVideo`."""

    class ImagesOnly(base):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, NoVideo):
                return NoVideo
            return super().check_argument_for_proper_class(argument_name, argument)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = base.__name__
    return ImagesOnly


def process(
    processor: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    texts: list[str],
    *,
    multimodal: bool,
    add_special_tokens: bool,
) -> tuple[dict[str, Any], list[int]]:
    """The processor's tensors [b, …] on the CPU; and of each pair, by how many characters the template before its own
    text has become longer, since the processor writes a mark for each image token in place of one for each image.

    Args:
        texts: each pair in the template.

    Raises:
        PairError: the processor fails on them, in whatever way.
    """
    options: dict[str, Any] = {
        "padding": True,
        "padding_side": "right",
        "return_tensors": "pt",
        "return_offsets_mapping": True,
        "add_special_tokens": add_special_tokens,
    }
    if not any(pair.images for pair in pairs):
        call = partial(processor, text=texts) if multimodal else partial(tokenizer, texts)
        return _pair_errors(call, **options), [0] * len(pairs)
    # Some processors fail where the first pair has no image and a later one has.
    order = sorted(range(len(pairs)), key=lambda i: not pairs[i].images)
    inputs = _pair_errors(
        processor,
        text=[texts[i] for i in order],
        # A list a pair: some families treat several images of one pair otherwise than one each.
        images=[pairs[i].images for i in order],
        return_text_replacement_offsets=True,
        **options,
    )
    parts = list(inputs.pop("text_replacement_offsets"))
    inverse = np.argsort(order).tolist()
    for name in ("input_ids", "attention_mask", "offset_mapping", "token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = inputs[name][inverse]
    n_added = [sum(len(part["replacement"]) - len(part["text"]) for part in of_pair) for of_pair in parts]
    return inputs, [n_added[i] for i in inverse]


def _pair_errors(call: Callable[..., Any], **options: Any) -> dict[str, Any]:
    try:
        with no_panic():
            return dict(call(**options))
    except PairError:
        raise
    except Exception as error:
        raise PairError(f"the model's processor refuses it ({first_line(error)})") from error


def media_marks(processor: Any, image_token_id: int | None) -> dict[str, str]:
    """Texts of the tokens that stand for images, videos and sound, with what each stands for."""
    token = None if image_token_id is None else processor.tokenizer.convert_ids_to_tokens(image_token_id)
    marks = {*getattr(processor, "all_special_multimodal_tokens", [processor.image_token]), *([token] if token else [])}
    name_of_mark = {getattr(processor, f"{name}_token", None): name for name in ("video", "audio")}
    medium = {"video": "a video", "audio": "sound"}
    return {mark: medium.get(name_of_mark.get(mark, ""), "an image") for mark in sorted(marks)}
