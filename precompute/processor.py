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
    """`AutoProcessor`; where its video part cannot be made, which needs torchvision, the family's own class
    without it: pairs hold pictures and text only.

    Raises:
        ImportError: something else is missing.
    """
    try:
        return AutoProcessor.from_pretrained(source)
    except ImportError:
        own = PROCESSOR_MAPPING.get(type(config), None)
        if own is None or "video_processor" not in own.get_attributes():
            raise
    args = [
        PARTS[name].from_pretrained(source) if name in PARTS else None for name in own.get_attributes()
    ]
    settings, _ = own.get_processor_dict(source)
    return without_video(own).from_args_and_dict(args, settings)


def without_video(own: Any) -> Any:
    """The processor class, content with None for its video part."""

    class Pictures(own):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument is None and argument_name == "video_processor":
                return type(None)
            return super().check_argument_for_proper_class(argument_name, argument)

    Pictures.__name__ = Pictures.__qualname__ = own.__name__
    return Pictures
