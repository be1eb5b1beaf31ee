"""The offline stage of SAE-V Explorer, and all that it shares with the server.

Importing it teaches transformers' Auto classes the demo's vision tower, at the moment they are themselves
imported: torch and transformers take seconds, which `saevx --help` should not.
"""

from types import ModuleType

import wrapt


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _register_config(module: ModuleType) -> None:
    from precompute.demo.tower_config import LiteVisionConfig

    module.AutoConfig.register(LiteVisionConfig.model_type, LiteVisionConfig, exist_ok=True)


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _register_model(module: ModuleType) -> None:
    from precompute.demo.tower import LiteVisionModel
    from precompute.demo.tower_config import LiteVisionConfig

    module.AutoModel.register(LiteVisionConfig, LiteVisionModel, exist_ok=True)
