"""The model's own processor, where need be without its part for videos."""

from __future__ import annotations

from typing import Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

PARTS = {
    "image_processor": AutoImageProcessor,
    "tokenizer": AutoTokenizer,
    "feature_extractor": AutoFeatureExtractor,
}


def load_processor(source: str, config: Any) -> Any:
    """`AutoProcessor`; where its video part cannot be made (it needs torchvision, and a file of its own), the
    family's own class without it: pairs hold pictures and text only.

    Raises:
        ImportError, OSError: something else is missing.
    """
    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except (ImportError, OSError):
        own = PROCESSOR_MAPPING.get(type(config), None)
        if own is None or "video_processor" not in own.get_attributes():
            raise
    args = [
        PARTS[name].from_pretrained(source, trust_remote_code=False) if name in PARTS else NoVideo()
        for name in own.get_attributes()
    ]
    settings, _ = own.get_processor_dict(source)
    return without_video(own).from_args_and_dict(args, settings)


class NoVideo(dict[str, Any]):
    """Stands in the place of a processor's video part, which no pair ever reaches. A dict, so that the processor
    can still be printed."""

    num_frames = fps = None


def without_video(own: Any) -> Any:
    """The processor class, content with `NoVideo`."""

    class Pictures(own):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, NoVideo):
                return NoVideo
            return super().check_argument_for_proper_class(argument_name, argument)

    Pictures.__name__ = Pictures.__qualname__ = own.__name__
    return Pictures
