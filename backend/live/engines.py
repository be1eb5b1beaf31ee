"""The model and the SAE of a store, loaded from where the options or the store say."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backend.settings import Settings
from precompute.store.opening import source_of

if TYPE_CHECKING:
    from precompute.live.engine import Mllm, SaeV


class ModelStore(Protocol):
    """What this module needs of an open store."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Engine:
    """The model with all its layers, and the SAE, of one store."""

    mllm: Mllm
    sae: SaeV


def load_engine(settings: Settings, store: ModelStore, engines: list[Engine]) -> Engine:
    """The store's model with all its layers, and its SAE, from where the options or the store say.

    Args:
        engines: engines already loaded; an engine of the same model shares its weights.

    Raises:
        SaevxError: model or SAE cannot be found or does not belong to the store.
    """
    from precompute.live.engine import Mllm, check_model, load_sae

    manifest = store.manifest
    model_source = settings.model or source_of(store.path, manifest, "model")
    layer = int(manifest["model"]["layer"])
    sae = load_sae(store.path, manifest, settings.sae, settings.device, settings.sae_format)
    for engine in engines:
        if engine.mllm.source == model_source:
            shared_mllm = copy.copy(engine.mllm)  # the same weights, read at another layer
            shared_mllm.layer = layer
            check_model(shared_mllm, manifest)
            return Engine(shared_mllm, sae)
    mllm = Mllm.load(
        model_source,
        layer=layer,
        full=True,
        device=settings.device,
        dtype=settings.dtype,
        device_map=settings.device_map,
        quantize=settings.quantize,
        geometry=(manifest.get("options") or {}).get("geometry"),
    )
    sae.check(mllm.d_model)
    check_model(mllm, manifest)
    return Engine(mllm, sae)
