"""Options of `saevx train` and `saevx evaluate`, and what commands share, apart from what runs them, so that
`--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from precompute.data import Columns, matching
from precompute.utils.command_line import CommandOptions, Count, Seed, SinkMultiple, Texts

Architecture = Literal["standard", "topk", "batchtopk", "jumprelu", "matryoshka-batchtopk"]

SaeFormat = Literal["auto", "sae-lens", "dictionary-learning", "plain"]
SAE_LENS: Final = "sae-lens"
DICTIONARY_LEARNING: Final = "dictionary-learning"
PLAIN_WEIGHTS: Final = "plain"

PLAIN: dict[str, Any] = {
    "architecture": "standard", "expansion": 16, "steps": 30_000, "batch_size": 4096, "lr": 3e-4,
    "lr_warm_up": 0.0, "lr_decay": 0.2, "l1": 1.0, "l1_warm_up": 0.05, "k": 100,
}  # fmt: skip
"""SAELens' own defaults where it has any, the paper's lengths elsewhere."""
PRESETS: dict[str, dict[str, Any]] = {
    # The paper, appendix on training: 30,000 steps, λ reached over 1,500 of them, the rate falling over the last 6,000.
    "sae-v": {"architecture": "standard", "lr": 5e-5, "l1": 5.0},
}


NAMED_COLUMNS = {"image_column", "text_column", "id_column", "text_side", "split"}
"""What a result tells of the fields that were asked for; a folder would be a path of one machine."""


class Fields(CommandOptions):
    """Which fields of a row are what."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    image_column: str | None = None
    """Field with a row's image or images; default: image, images, file_name or the column that holds bytes."""
    text_column: str | None = None
    """Field with a row's text; default: text, a conversation, a preference pair or caption."""
    id_column: str | None = None
    """Field with a row's id; row: the row's number; default: id, else the row's number."""
    text_side: Literal["chosen", "rejected"] = "chosen"
    """Which answer of a preference pair follows its prompt."""
    image_folder: Path | None = None
    """Folder in which image paths start; default: the one that holds the data."""
    split: str = "train"
    """Which split of a data set that has several."""

    @property
    def columns(self) -> Columns:
        return Columns(
            self.image_column, self.text_column, self.id_column, self.text_side, self.image_folder, self.split
        )

    def absolute(self) -> Self:
        """The same with whole paths, as a process elsewhere must have them."""
        changed: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Path):
                changed[name] = value.resolve()
            elif name in ("data", "model", "sae") and value is not None:
                changed[name] = where(value)
        return self.model_copy(update=changed)


class TextOnly(Fields):
    """Fields of rows whose images may be left out."""

    text_only: bool = False
    """Read the text alone and leave the images out, as a model that reads text only must."""

    @property
    def columns(self) -> Columns:
        return super().columns._replace(text_only=self.text_only)


class Spread(CommandOptions):
    """Whether the work is done by several processes."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    ray: str | None = None
    """Run the shards on several workers through Ray: local for processes of this machine, or a cluster's address;
    every machine must see OUT and the data under the same path."""
    workers: Count | None = None
    """With --ray: how many workers, each with the model in it and, where there are GPUs, one GPU."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.ray is None and self.workers is not None:
            raise ValueError("--workers goes with --ray: add --ray local for processes of this machine.")
        if self.ray is not None and self.workers is None:
            raise ValueError("--ray needs --workers: how many processes, on a GPU machine one for each GPU.")
        if self.ray == "":
            raise ValueError("--ray takes local, or the address of a cluster such as 10.0.0.1:6379.")
        return self


class FromStore(Fields):
    """Other data run as a finished store's was: with its model and SAE, on its scale."""

    store: Path
    """Folder of the store whose ω, scale and thresholds are used."""
    batch_tokens: Count | None = None
    """Most tokens in a batch, padding counted; default: as the store was made."""
    model: str | None = None
    """Model folder or hub id; default: the one the store was made with."""
    sae: str | None = None
    """SAE folder; default: the one the store was made with."""
    sae_format: SaeFormat = "auto"
    """How the SAE is stored, as `saevx precompute` takes it; auto: as the store was made, or as its files tell."""
    device: str = "auto"
    """Where to compute: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model; auto is the one the store was made with."""
    device_map: str | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""


class Place(CommandOptions):
    """Where and how a model is run."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    device: str = "auto"
    """Where to compute: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model; auto is bfloat16 on a GPU and float32 elsewhere."""
    device_map: str | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Load the model in 8bit or 4bit (needs bitsandbytes)."""
    geometry: str | None = None
    """How image tokens lie in the picture, for a model family that is not known: square."""


class TrainOptions(Fields, Place):
    """What a training run depends on."""

    data: str
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
    """sae-v: as the paper trains (standard, λ = 5, rate 5e-5); options given beside it win."""
    architecture: Architecture | None = None
    """SAELens' architecture. Default: standard, that is ReLU and an L1 penalty."""
    expansion: float | None = Field(default=None, gt=0)
    """Features per dimension of the residual stream: F = expansion · d. Default: 16."""
    steps: Count | None = None
    """Training steps. Default: 30000."""
    batch_size: Count | None = None
    """Tokens in a step. Default: 4096."""
    lr: float | None = Field(default=None, gt=0)
    """Adam's learning rate. Default: 3e-4; sae-v: 5e-5."""
    lr_warm_up: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps over which the rate rises. Default: 0."""
    lr_decay: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps, the last ones, over which the rate falls to 0. Default: 0.2."""
    l1: float | None = Field(default=None, ge=0)
    """λ, weight of Σ z·‖W_dec‖ beside the squared error (standard). Default: 1; sae-v: 5."""
    l1_warm_up: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which λ (in jumprelu the weight of L0) is reached. Default: 0.05."""
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
    batch_tokens: Count = 4096
    """Most tokens in a batch of the model, padding counted."""
    context: int = Field(default=4096, ge=8)
    """Longest sequence in tokens; a text that is longer is cut there."""
    sinks: SinkMultiple = 4.0
    """Leave out as attention sinks tokens with a norm above this multiple of their modality's median; or keep."""
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

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")

    def settled(self) -> dict[str, Any]:
        """Every option that a preset may set: as given, else as the preset has it, else plain."""
        preset = PRESETS[self.preset] if self.preset else {}
        given = {name: getattr(self, name) for name in PLAIN if getattr(self, name) is not None}
        return {**PLAIN, **preset, **given}


class EvaluateOptions(Fields, Place):
    """What an evaluation depends on."""

    sae: str
    """SAE: a SAELens folder, RELEASE:SAE_ID of SAELens' list, or a hub id."""
    sae_format: SaeFormat = "auto"
    """How the SAE is stored: sae-lens (sparsify's folders too); dictionary-learning (config.json, ae.pt); plain (one
    .safetensors file with W_enc, b_enc, W_dec, b_dec); auto tells them by their files."""
    data: str
    """Pairs or texts, as `saevx precompute` takes them; rows without an image are text alone."""
    model: str
    """Model to put the SAE into; for transfer the text-only model that the other one was made from."""
    layer: int | None = Field(default=None, ge=0)
    """Decoder layer L, counted from 0; default: the one in the SAE's own config."""
    text_alone: bool = False
    """Leave the images out and run the text without them."""
    text_only: bool = False
    """The same as --text-alone."""
    patch_special: bool = False
    """Replace special tokens and attention sinks too; most models fail without their sink, whatever the SAE."""
    sinks: SinkMultiple = 4.0
    """Leave out as attention sinks tokens with a norm above this multiple of their modality's median; or keep."""
    max_samples: Count | None = None
    """Samples to use, those with the smallest SHA-256 of the sample id; default: all."""
    resamples: Count = 1000
    """Bootstrap resamples of the samples, for the 95 % intervals."""
    batch_tokens: Count = 4096
    """Most tokens in a batch, padding counted."""
    seed: Seed = 0
    """Seed of the resamples."""
    out: Path | None = None
    """JSON file to write; default: standard output. The page /sae shows SAE/evaluation.json."""

    @model_validator(mode="after")
    def one_name(self) -> Self:
        if self.text_only:
            self.text_alone = True
        return self


def where(source: str) -> str:
    """The whole path of a file, a folder or a glob of files; a hub id as it is."""
    path = Path(source)
    return str(path.resolve()) if path.exists() or matching(path) else source
