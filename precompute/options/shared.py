"""What the offline commands' options share: one class per concern, to inherit from, and each list of choices once.

Nothing here imports what runs a command, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import model_validator

from precompute.utils.command_line import CommandOptions, Count, Device, DeviceMap, SinkMultiple

if TYPE_CHECKING:
    from precompute.data.records import Columns

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["8bit", "4bit"]
SaeFormat = Literal["auto", "sae-lens", "dictionary-learning", "plain"]
SAE_LENS: Final = "sae-lens"
DICTIONARY_LEARNING: Final = "dictionary-learning"
PLAIN_WEIGHTS: Final = "plain"
NAMED_COLUMNS = {"image_column", "text_column", "id_column", "text_side", "split"}
"""Options of `DataFields` that results repeat. Not the image folder: it is a path of one machine."""


class DataFields(CommandOptions):
    """Which fields of a row are what."""

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
    allow_outside: bool = False
    """Also read images that rows name outside the image folder (by .., an absolute path or a link): only for data that
    you trust, as the store shows them."""
    split: str = "train"
    """Which split of a data set that has several."""

    @property
    def columns(self) -> Columns:
        from precompute.data.records import Columns

        return Columns(
            self.image_column,
            self.text_column,
            self.id_column,
            self.text_side,
            self.image_folder,
            self.split,
            anywhere=self.allow_outside,
        )

    def absolute(self) -> Self:
        """The same options with absolute paths, for processes on other machines."""
        absolute_paths: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Path):
                absolute_paths[name] = value.resolve()
            elif name in ("data", "model", "sae") and value is not None:
                absolute_paths[name] = absolute_path(value)
        return self.model_copy(update=absolute_paths)


class TextOnly(DataFields):
    """Fields of rows whose images may be left out."""

    text_only: bool = False
    """Read the text alone and leave the images out, as a model that reads text only must."""

    @property
    def columns(self) -> Columns:
        return super().columns._replace(text_only=self.text_only)


class RayWorkers(CommandOptions):
    """Whether the work is done by several processes."""

    ray: str | None = None
    """Run the shards on several workers through Ray: local for processes of this machine, or a cluster's address;
    every machine must see OUT and the data under the same path."""
    workers: Count | None = None
    """With --ray: how many workers, each with the model in it and, where there are GPUs, one GPU."""

    @model_validator(mode="after")
    def _check_ray(self) -> Self:
        if self.ray is None and self.workers is not None:
            raise ValueError("--workers goes with --ray: add --ray local for processes of this machine.")
        if self.ray is not None and self.workers is None:
            raise ValueError("--ray needs --workers: how many processes, on a GPU machine one for each GPU.")
        return self


class Compute(CommandOptions):
    """Where and in which numbers a model is computed."""

    device: Device = "auto"
    """Where to compute: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    dtype: Dtype = "auto"
    """Number type of the model; auto is bfloat16 on a GPU and float32 elsewhere."""
    device_map: DeviceMap | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""


class ModelLoading(Compute):
    """How a model is loaded that no store describes yet."""

    quantize: Quantize | None = None
    """Load the model in 8bit or 4bit (needs bitsandbytes)."""
    geometry: str | None = None
    """How image tokens lie in the image, for a model family that is not known: square."""


class SaeFile(CommandOptions):
    """How an SAE is stored."""

    sae_format: SaeFormat = "auto"
    """How the SAE is stored: sae-lens (sparsify's folders too); dictionary-learning (config.json, ae.pt); plain (one
    .safetensors file with W_enc, b_enc, W_dec, b_dec); auto tells them by their files."""


class Sinks(CommandOptions):
    """Which tokens count as attention sinks."""

    sinks: SinkMultiple = 4.0
    """Leave out as attention sinks tokens with a norm above this multiple of their modality's median; or keep."""

    @property
    def sink_multiple(self) -> float | None:
        """None where no token is a sink."""
        return None if self.sinks == "keep" else float(self.sinks)


class Output(CommandOptions):
    """A result that grows in OUT.part and is renamed when it is complete."""

    if TYPE_CHECKING:  # each command declares it, with its own help
        out: Path

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")


class Scoring(CommandOptions):
    """What `saevx precompute` and `saevx score` both measure and write."""

    nll: bool = False
    """Also measure each caption's cross-entropy with its image and without (scores caption-nll and image-gain); runs
    the whole model."""
    shard_samples: Count = 1024
    """Rows in a shard, after which a killed run can go on."""


class StoreModel(Compute):
    """The model and the SAE of a finished store, loaded again."""

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
    dtype: Dtype = "auto"
    """Number type of the model; auto is the one the store was made with."""


class FromStore(DataFields, StoreModel):
    """Options to run other data as a finished store's data were run: with its model and SAE, on its scale."""


def absolute_path(source: str) -> str:
    """The absolute path of a file, a folder or a glob of files; a hub id as it is."""
    from precompute.data.sources import matching_paths

    path = Path(source)
    return str(path.resolve()) if path.exists() or matching_paths(path) else source
