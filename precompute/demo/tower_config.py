"""Configuration of the demo's vision tower."""

from transformers.configuration_utils import PretrainedConfig


class LiteVisionConfig(PretrainedConfig):
    """EfficientNet-Lite0 as a patch encoder: `image_size` / `patch_size` patches a side, row-major, each with
    the taps of four depths and its one-hot row and column. `hidden_size` is what the projector reads."""

    model_type = "saevx_lite_vision"

    def __init__(self, image_size: int = 224, patch_size: int = 32, hidden_size: int = 1470, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_size = hidden_size
