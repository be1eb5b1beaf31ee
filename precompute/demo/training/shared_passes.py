"""A model that runs no batch twice, for trainings that read the same data."""

import hashlib
from functools import cached_property

from torch import Tensor

from precompute.model.batch import Batch
from precompute.model.mllm import Mllm


class Remembering(Mllm):
    """Several trainings on the same data read the same batches, each in an order of its own."""

    @cached_property
    def hidden_of(self) -> dict[bytes, Tensor]:
        """Residual streams [b, s, d] by the SHA-256 of the inputs."""
        return {}

    def hidden(self, batch: Batch) -> Tensor:
        """As `Mllm.hidden`, [b, s, d]."""
        digest = hashlib.sha256()
        for name in sorted(batch.inputs):
            digest.update(batch.inputs[name].cpu().numpy().tobytes())
        key = digest.digest()
        if key not in self.hidden_of:
            self.hidden_of[key] = super().hidden(batch)
        return self.hidden_of[key]
