"""Options of `saevx train`."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from precompute.options.shared import DataFields, ModelLoading, Output, Sinks
from precompute.utils.command_line import Count, Seed, Texts

Architecture = Literal["standard", "topk", "batchtopk", "jumprelu", "matryoshka-batchtopk"]

DEFAULTS: dict[str, Any] = {
    "architecture": "standard", "expansion": 16, "steps": 30_000, "batch_size": 4096, "lr": 3e-4,
    "lr_warm_up": 0.0, "lr_decay": 0.2, "l1": 1.0, "l1_warm_up": 0.05, "k": 100,
    "decoder_bias": "mean",
}  # fmt: skip
"""Values without a preset: SAELens' own defaults where it has any, b_dec apart; the paper's lengths elsewhere."""
PRESETS: dict[str, dict[str, Any]] = {
    # The paper, appendix on training: 30,000 steps, λ reached over 1,500 of them, the rate falling over the last 6,000.
    "sae-v": {"architecture": "standard", "lr": 5e-5, "l1": 5.0},
}


class TrainOptions(DataFields, ModelLoading, Sinks, Output):
    """What a training run depends on."""

    data: CliPositionalArg[str]
    """Pairs or texts, as `saevx precompute` takes them; rows without an image are text alone."""
    model: str
    """Model: a transformers folder or hub id."""
    out: Path
    """SAELens folder to write; it must not exist yet."""
    layer: int = Field(ge=0)
    """Decoder layer L whose output is learnt, counted from 0."""
    modality: Literal["all", "text"] = "all"
    """all: image and text tokens alike, an SAE-V; text: images are left out and the text read alone, an SAE."""
    text_only: bool = False
    """The same as --modality text."""
    preset: Literal["sae-v"] | None = None
    """sae-v: as the paper trains (standard, λ = 5, rate 5e-5); other options on the command line win."""
    architecture: Architecture | None = None
    """SAELens' architecture. Default: standard, that is ReLU and an L1 penalty."""
    expansion: float | None = Field(default=None, gt=0)
    """Features per dimension of the residual stream: F = expansion · d. Default: 16."""
    steps: Count | None = None
    """Training steps. Default: 30000."""
    batch_size: Count | None = None
    """Tokens in a step. Default: 4096."""
    lr: float | None = Field(default=None, gt=0, le=1000)
    """Adam's learning rate. Default: 3e-4; sae-v: 5e-5."""
    lr_warm_up: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps over which the rate rises. Default: 0."""
    lr_decay: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps, the last ones, over which the rate falls to 0. Default: 0.2."""
    l1: float | None = Field(default=None, ge=0)
    """λ, weight of Σ z·‖W_dec‖, added to the squared error (standard). Default: 1; sae-v: 5."""
    l1_warm_up: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which λ (in jumprelu the weight of L0) is reached. Default: 0.05."""
    decoder_bias: Literal["mean", "zero"] | None = None
    """Where b_dec starts: at the mean of the input, over the first filling of the buffer; or at 0, as SAELens has it.
    Default: mean."""
    freeze_decoder: bool = False
    """A control: leave the decoder's directions as they are drawn, and train the encoder and both biases alone."""
    k: Count | None = None
    """Features a token keeps (topk), or keeps on average (batchtopk, matryoshka-batchtopk). Default: 100."""
    widths: list[Count] = Field(default_factory=list)
    """Nested widths of matryoshka-batchtopk, given one by one. Default: F/8, F/4, F/2 and F."""
    sae_option: Texts = Field(default_factory=list)
    """Any other field of SAELens' training configuration, as NAME=VALUE; give it several times."""
    dead_window: Count = 1000
    """A feature that has not fired for so many steps is called dead."""
    buffer_tokens: Count = 262_144
    """Tokens in the shuffle buffer, from which batches are drawn."""
    autocast: bool = False
    """Multiply in bfloat16 where the SAE learns: about twice as fast on devices with such units."""
    batch_tokens: Count = 4096
    """Most tokens in a batch of the model, padding counted."""
    context: int = Field(default=4096, ge=8)
    """Longest sequence in tokens; a text that is longer is cut there."""
    seed: Seed = 0
    """Seed of the weights, the order of the data and the buffer."""
    log_every: Count = 50
    """Steps between two lines of the log."""
    checkpoint_every: Count = 1000
    """Steps between two checkpoints, from which a killed run goes on."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the weights in the finished folder."""

    @model_validator(mode="after")
    def one_modality(self) -> Self:
        if self.text_only:
            self.modality = "text"
        return self

    def with_preset(self) -> dict[str, Any]:
        """Every option that a preset may set: its value on the command line, else the preset's, else the default."""
        preset = PRESETS[self.preset] if self.preset else {}
        own_options = {name: getattr(self, name) for name in DEFAULTS if getattr(self, name) is not None}
        return {**DEFAULTS, **preset, **own_options}
