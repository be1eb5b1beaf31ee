"""Session fixtures around tests/helpers/tiny.py, imported by the modules that use them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import Pipeline
from precompute.sae.sae import SaeV
from tests.helpers import tiny


class Tiny(NamedTuple):
    """Folders of a tiny model, SAE-V and data."""

    model: Path
    sae: Path
    data: Path


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tiny")
    return Tiny(tiny.make_llava(root / "model"), tiny.make_sae(root / "sae"), tiny.make_data(root / "data", 40))


@pytest.fixture(scope="session")
def mllm(tiny_files: Tiny) -> Mllm:
    return Mllm.load(tiny_files.model, layer=tiny.LAYER, device="cpu")


@pytest.fixture(scope="session")
def whole(tiny_files: Tiny) -> Mllm:
    """All layers loaded."""
    return Mllm.load(tiny_files.model, layer=tiny.LAYER, full=True, device="cpu")


@pytest.fixture(scope="session")
def saev(tiny_files: Tiny) -> SaeV:
    return SaeV.load(tiny_files.sae)


Maker = Callable[..., PrecomputeOptions]


@pytest.fixture
def options(tiny_files: Tiny, tmp_path: Path) -> Maker:
    """Options of a small run; each call may change some."""

    def make(**changes: Any) -> PrecomputeOptions:
        defaults: dict[str, Any] = {
            "data": str(tiny_files.data), "model": str(tiny_files.model), "sae": str(tiny_files.sae),
            "out": tmp_path / "store", "batch_tokens": 150, "shard_samples": 8, "ds": 10, "device": "cpu",
        }  # fmt: skip
        return PrecomputeOptions(**{**defaults, **changes})

    return make


def collected(options: PrecomputeOptions) -> tuple[Path, dict[str, Any]]:
    """Run `collect` alone: STORE.part and its manifest."""
    return options.part, Pipeline(options).collect()
