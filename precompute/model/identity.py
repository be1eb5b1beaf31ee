"""Which model a store was made with: a fingerprint of its files, and whether a live model is the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from precompute.errors import SaevxError
from precompute.utils.reading import read_json, reading

if TYPE_CHECKING:
    from precompute.model.mllm import Mllm

WHOLE_BYTES, PIECE_BYTES, PIECES = 1 << 16, 1 << 10, 16
"""A tensor up to so large is hashed whole; of a larger one so many pieces of so many bytes."""
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
)
"""Beside the configuration and the weights, the files that decide which tokens and pixels reach the model."""
OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json")
"""Where there is no tokenizer.json."""
_VOLATILE = frozenset({"transformers_version", "_name_or_path", "_commit_hash", "dtype", "torch_dtype"})
"""Fields of a configuration that change no weight: versions, paths, and the number type, which the manifest has."""


def model_sha256(source: str) -> str:
    """SHA-256 of what identifies a model: its configuration, its tokenizer, processor and template, and of its weights
    every tensor's name, number type, shape and bytes – of a large tensor, 16 pieces of 1 KB spread over it.

    It is computed from the files and not from the loaded model. So it is the same whichever layers are loaded, in
    whatever number type, quantisation and device, and however the weights are divided into files. It reads some
    thousand pieces, not 15 GB. A fine-tuned model changes far more than one in a thousand numbers of a matrix, of which
    a piece holds 512 in bfloat16; a change of a single number in a matrix larger than 64 KB may pass.

    Args:
        source: a transformers folder or hub id, loaded before, so that its files are here.

    Raises:
        SaevxError: its files cannot be read.
    """
    with reading(f"The model {source}", source):
        folder = folder_of(source)
        digest = hashlib.sha256()
        for name, content in _configuration(folder):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        for name, meaning, content in sorted(_tensors(folder)):
            digest.update(f"{name} {meaning}\n".encode() + content)
        return digest.hexdigest()


def folder_of(source: str) -> Path:
    """The folder itself, or that of the hub's copy on this machine."""
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils import cached_file

    return Path(str(cached_file(source, "config.json"))).parent


def _configuration(folder: Path) -> Iterator[tuple[str, bytes]]:
    config = _without_volatile(read_json(folder / "config.json"))
    yield "config.json", json.dumps(config, sort_keys=True).encode()
    tokenizers = () if (folder / TEXT_FILES[0]).is_file() else OTHER_TOKENIZERS
    for name in (*TEXT_FILES, *tokenizers):
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_volatile(part) for name, part in value.items() if name not in _VOLATILE}
    return [_without_volatile(part) for part in value] if isinstance(value, list) else value


def _tensors(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name, number type and shape, and SHA-256 of every tensor's bytes or pieces; of weights that are no safetensors,
    of every file."""
    files = _weight_files(folder)
    if not files:
        for path in sorted(folder.glob("pytorch_model*.bin")):
            with path.open("rb") as file:
                yield path.name, str(path.stat().st_size), _digest(file, 0, path.stat().st_size)
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                begin, end = tensor["data_offsets"]
                yield name, f"{tensor['dtype']} {tensor['shape']}", _digest(file, 8 + length + begin, end - begin)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads."""
    if (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    elif (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    else:
        names = []
    adapter = ["adapter_model.safetensors"] if (folder / "adapter_config.json").is_file() else []
    return [folder / name for name in [*names, *adapter] if (folder / name).is_file()]


def _digest(file: BinaryIO, begin: int, n_bytes: int) -> bytes:
    """SHA-256 of a stretch of a file, or of pieces spread over it, its first and last bytes among them."""
    digest = hashlib.sha256()
    if n_bytes <= WHOLE_BYTES:
        file.seek(begin)
        digest.update(file.read(n_bytes))
        return digest.digest()
    for i in range(PIECES):
        file.seek(begin + (n_bytes - PIECE_BYTES) * i // (PIECES - 1))
        digest.update(file.read(PIECE_BYTES))
    return digest.digest()


def check_model(mllm: Mllm, manifest: Mapping[str, Any]) -> None:
    """Hold a model against the one that a store was made with.

    Stores of older versions have no `sha256` of their model: then its family, template and vocabulary are compared.

    Raises:
        SaevxError: it is another one; the sentence names what differs.
    """
    of_store = manifest["model"]
    properties = {"family": mllm.family, "template": mllm.template, "vocab": mllm.n_embeddings}
    names = {"family": "family", "template": "template", "vocab": "size of its vocabulary"}
    for key, value in properties.items():
        if key in of_store and of_store[key] != value:
            raise _other_model_error(mllm, manifest, f"the {names[key]} is {value!r}, the store's {of_store[key]!r}")
    if "sha256" in of_store and of_store["sha256"] != model_sha256(mllm.source):
        raise _other_model_error(mllm, manifest, "its weights, configuration or tokenizer differ")


def _other_model_error(mllm: Mllm, manifest: Mapping[str, Any], why: str) -> SaevxError:
    return SaevxError(
        f"The model at {mllm.source} is not the one of store {manifest['name']} ({why}): "
        "name the right one with --model."
    )
