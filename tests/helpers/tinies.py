"""Session fixtures around tests/helpers/tiny.py, imported by the modules that use them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import Pipeline, precompute
from precompute.sae.sae import SaeV
from tests.helpers import tiny


class Tiny(NamedTuple):
    """Folders of a tiny model, SAE-V and data."""

    model: Path
    sae: Path
    data: Path

    @property
    def root(self) -> Path:
        """The folder that holds them."""
        return self.model.parent


def pass_options(root: Path, **changes: Any) -> PrecomputeOptions:
    """Of a pass on a CPU over ROOT/data with ROOT/model and ROOT/sae into ROOT/store."""
    files = {name: str(root / name) for name in ("data", "model", "sae")}
    return PrecomputeOptions(**{**files, "out": root / "store", "device": "cpu", **changes})


def make_tiny_store(root: Path, n_pairs: int = 40, **changes: Any) -> Path:
    """The store of `pass_options`; the tiny model, SAE and pairs are made where they are not there."""
    torch.set_num_threads(1)
    makers = {"model": tiny.make_llava, "sae": tiny.make_sae, "data": partial(tiny.make_data, n=n_pairs)}
    for name, make in makers.items():
        if name not in changes and not (root / name).exists():
            make(root / name)
    return precompute(pass_options(root, **changes))


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
        run_options: dict[str, Any] = {"out": tmp_path / "store", "batch_tokens": 150, "shard_samples": 8, "ds": 10}
        return pass_options(tiny_files.root, **{**run_options, **changes})

    return make


def collected(options: PrecomputeOptions) -> tuple[Path, dict[str, Any]]:
    """Run `collect` alone: STORE.part and its manifest."""
    return options.part, Pipeline(options).collect()
