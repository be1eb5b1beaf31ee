"""The vision tower: folding the batch norms changes nothing, and every patch knows its place."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, relu6

from precompute.demo.assemble import ENCODER, make_tower, package_file
from precompute.demo.tower import BN_EPS, STAGES, TAPS, LiteVisionModel
from precompute.demo.tower_config import LiteVisionConfig


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tower() -> LiteVisionModel:
    return make_tower()


def unfolded(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 with its batch norms as they are: (B, 1456, 7, 7), taps and head."""

    def layer(name: str, norm: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        w = state[f"{name}.weight"]
        y = conv2d(x, w, stride=stride, padding=(w.shape[-1] - 1) // 2, groups=groups)
        statistics = (state[f"{norm}.running_mean"], state[f"{norm}.running_var"])
        return batch_norm(y, *statistics, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=BN_EPS)

    x = relu6(layer("_conv_stem", "_bn0", x, 2))
    taps, i = [], 0
    for repeats, _, first_stride, expansion, n_in, n_out in STAGES:
        for r in range(repeats):
            name, y = f"_blocks.{i}", x
            if expansion > 1:
                y = relu6(layer(f"{name}._expand_conv", f"{name}._bn0", y))
            stride = first_stride if r == 0 else 1
            y = relu6(layer(f"{name}._depthwise_conv", f"{name}._bn1", y, stride, y.shape[1]))
            y = layer(f"{name}._project_conv", f"{name}._bn2", y)
            x = x + y if stride == 1 and (n_in == n_out or r > 0) else y
            if i in TAPS:
                taps.append(adaptive_avg_pool2d(x, 7))
            i += 1
    return torch.cat([*taps, relu6(layer("_conv_head", "_bn1", x))], 1)


@torch.inference_mode()
def test_folding_the_batch_norms_is_exact(tower: LiteVisionModel) -> None:
    state = torch.load(package_file(ENCODER), map_location="cpu", weights_only=True)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = unfolded(state, pixels).flatten(2).transpose(1, 2)
    result = tower(pixels).last_hidden_state[..., :-14]
    assert expected.std() > 0.01
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@torch.inference_mode()
def test_each_patch_carries_its_row_and_column(tower: LiteVisionModel) -> None:
    places = tower(torch.zeros(1, 3, 224, 224)).last_hidden_state[0, :, -14:]
    for p in range(49):
        assert places[p].nonzero()[:, 0].tolist() == [p // 7, 7 + p % 7]


@torch.inference_mode()
def test_patches_are_row_major(tower: LiteVisionModel) -> None:
    """A spot in the upper right changes patch 6 most."""
    plain = torch.zeros(1, 3, 224, 224)
    spot = plain.clone()
    spot[:, :, :32, 192:] = 3.0
    change = (tower(spot).last_hidden_state - tower(plain).last_hidden_state)[0, :, :64].norm(dim=1)
    assert int(change.argmax()) == 6


def test_what_the_projector_reads_is_as_wide_as_the_config_says(tower: LiteVisionModel) -> None:
    assert tower(torch.zeros(1, 3, 224, 224)).last_hidden_state.shape == (1, 49, LiteVisionConfig().hidden_size)
