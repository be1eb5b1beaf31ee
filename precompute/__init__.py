"""The offline stage of SAE-V Explorer, and all that it shares with the server.

Importing it teaches transformers' Auto classes the demo's vision tower, at the moment they are themselves
imported: torch and transformers take seconds, which `saevx --help` should not.
"""

import os
from types import ModuleType

import wrapt

# Linux hands out a large tensor's memory in pages of 4 KB, which on a CPU costs a tenth of a forward pass; told so
# before its first tensor, torch asks for pages of 2 MB.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Where other programs use the same cores, torch's threads wait for each other most of the time. While they wait, each
# would keep a core busy for milliseconds, and passes beside each other would take several times as long. So few rounds
# of waiting cost no time where nothing else runs.
if os.environ.keys().isdisjoint({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}):
    os.environ["GOMP_SPINCOUNT"] = "3000"


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _register_config(module: ModuleType) -> None:
    from precompute.demo.tower_config import LiteVisionConfig

    module.AutoConfig.register(LiteVisionConfig.model_type, LiteVisionConfig, exist_ok=True)


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _register_model(module: ModuleType) -> None:
    from precompute.demo.tower import LiteVisionModel
    from precompute.demo.tower_config import LiteVisionConfig

    module.AutoModel.register(LiteVisionConfig, LiteVisionModel, exist_ok=True)
