"""A transformers model from a folder or the hub, with the layers that are needed, on the device that is named."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    dynamic_module_utils,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import logging as transformers_logging

from precompute.errors import SaevxError, first_line
from precompute.geometry import Geometry, find
from precompute.model.patterns import check_patterns
from precompute.model.processor import load_processor
from precompute.options.shared import Quantize
from precompute.products.rounding import quickest_dtype
from precompute.utils.progress import say
from precompute.utils.reading import reading, refuse_pointers
from precompute.utils.types import check_keywords

# Where transformers does not pass `trust_remote_code` on to a part of a processor, it would ask on standard input
# whether to run code from the model's folder, for so many seconds: with none it refuses.
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0

KERNELS = ("attn_implementation", "experts_implementation")
"""Beginnings of fields that choose a function of transformers, or kernels from the hub."""
MOST_IN_A_NUMBER = 16
"""Weights in one stored number: more than any quantization packs."""
ADVICE = "give a transformers folder or hub id"


class Loading(TypedDict, total=False):
    """Where and in which numbers a model is loaded; each may be left out. `saevx precompute` has them as options."""

    device: str
    """"auto" is CUDA where there is any, else the CPU."""
    dtype: str
    """"auto" is bfloat16 on a GPU and float32 elsewhere."""
    device_map: str | None
    """Accelerate's, to spread the model over several devices."""
    quantize: Quantize | None
    geometry: str | None
    """How image tokens lie in the image, for a family that is not known."""


class Parts(NamedTuple):
    """What a model is made of."""

    model: Any
    processor: Any
    """Of a text-only model its tokenizer."""
    multimodal: bool
    family: str
    """Name of the geometry."""
    geometry: Geometry
    image_token_id: int | None


def load_parts(source: str, *, layer: int, full: bool, **loading: Unpack[Loading]) -> Parts:
    """As `Mllm.load`, which says what the arguments are.

    Raises:
        SaevxError: as there.
    """
    check_keywords(loading, Loading)
    device_map, quantize = loading.get("device_map"), loading.get("quantize")
    with silence_warnings(), reading(f"The model {source}", source, ADVICE):
        refuse_code_from_elsewhere(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        multimodal = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        family, shape = find(config.model_type, multimodal=multimodal, setting=loading.get("geometry"))
        text_config = config.get_text_config()
        n_layers = int(text_config.num_hidden_layers)
        if not 0 <= layer < n_layers:
            raise SaevxError(f"The model has layers 0 to {n_layers - 1}, not {layer}: check --layer and the SAE.")
        if not full and not needs_all_layers(text_config):
            truncate_layers(text_config, layer + 1)
        target = pick_device(loading.get("device", "auto"))
        options: dict[str, Any] = {"config": config, "dtype": pick_dtype(loading.get("dtype", "auto"), target)}
        if quantize is not None:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=quantize == "8bit", load_in_4bit=quantize == "4bit"
            )
        if device_map is not None or quantize is not None:
            options["device_map"] = device_map or {"": target}
        auto = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        refuse_larger(source, auto, config)
        model, report = auto.from_pretrained(source, trust_remote_code=False, output_loading_info=True, **options)
        check_complete(source, report, full=full)
        refuse_left_out(source, model, report, None if full else "layers")
        if "device_map" not in options:
            model = model.to(target)
        processor = (
            load_processor(source, config)
            if multimodal
            else AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        )
        check_patterns(source, processor.tokenizer if multimodal else processor)
    if not full:  # a model that had to be loaded with all layers loses them now
        decoder = model.get_decoder()
        decoder.layers = decoder.layers[: layer + 1]
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    image_token_id = int(token) if multimodal and token is not None else None
    return Parts(model.eval(), processor, multimodal, family, shape, image_token_id)


def check_place(source: str) -> None:
    """Raises SaevxError where a name can be no model: a path with nothing there, a folder without a configuration, or
    one whose template or vocabulary is a pointer, of which transformers would take the words themselves."""
    folder = Path(source)
    if not folder.is_dir():
        if source.count("/") > 1 or source.startswith((".", "/", "~")) or folder.exists():
            raise SaevxError(f"The model {source} cannot be read (there is no such folder): {ADVICE}.")
        return  # a name of the hub
    if not (folder / "config.json").is_file():
        raise SaevxError(f"The folder {source} holds no config.json: {ADVICE}.")
    refuse_pointers([*folder.glob("*.jinja"), *folder.glob("*.txt")])


def refuse_larger(source: str, auto: Any, config: Any) -> None:
    """Raises SaevxError where a configuration describes a model that the weights in its folder cannot be, as one does
    that has lost a part: transformers would fill what is missing by chance before it says so, and take all memory.

    Args:
        auto: the class of transformers that makes the model.
    """
    n_stored = 0
    for path in Path(source).glob("model*.safetensors"):  # others, such as an adapter's, are not the model's own
        with safe_open(path, "pt") as file:
            n_stored += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict
    if not n_stored:
        return  # a name of the hub, or a folder of which transformers says what it lacks
    with torch.device("meta"):
        n_weights = sum(weight.numel() for weight in auto.from_config(config, trust_remote_code=False).parameters())
    if n_weights > MOST_IN_A_NUMBER * n_stored:
        raise SaevxError(
            f"The model {source} cannot be loaded: its config.json describes {n_weights:,} weights, and its files hold "
            f"{n_stored:,}: copy its config.json again."
        )


def refuse_code_from_elsewhere(source: str) -> None:
    """Raises SaevxError where the configuration asks for code from elsewhere: by trusting it, at any depth, or by
    naming a repository of the hub whose kernels compute the attention."""
    config, _ = PreTrainedConfig.get_config_dict(source)
    if (field := field_of_code(config)) is not None:
        raise SaevxError(
            f"The model {source} cannot be loaded: its config.json asks for code from elsewhere ({field[:120]}), "
            "which is never run here: remove the field, or choose a model that transformers itself knows."
        )


def field_of_code(value: Any, name: str = "") -> str | None:
    """The first field that asks for code, with the fields that it lies in; None where none does."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, dict) else ():
        inner_name = f"{name}.{key}".lstrip(".")
        if (key == "trust_remote_code" and item) or (str(key).strip("_").startswith(KERNELS) and "/" in str(item)):
            return inner_name
        if (field := field_of_code(item, inner_name)) is not None:
            return field
    return None


def check_complete(source: str, report: dict[str, Any], *, full: bool) -> None:
    """Raises SaevxError where the files lack weights, which transformers would fill by chance. Of heads, which an h
    does not depend on, a line is said; where the whole model is wanted, its own must be there.

    Args:
        report: what `from_pretrained` returns as its loading info.
    """
    absent = sorted(report.get("missing_keys") or ())
    heads = {name for name in absent if _is_of_head(name) and not (full and "lm_head" in name)}
    needed_names = [name for name in absent if name not in heads]
    names = ", ".join((needed_names or absent)[:3]) + (" …" if len(needed_names or absent) > 3 else "")
    if needed_names:
        raise SaevxError(
            f"The files of the model {source} lack {len(needed_names)} of its weights ({names}): download it again, "
            "with all its files."
        )
    if absent:
        say(f"The files of the model {source} lack {names}, set by chance: what is read from them means nothing.")


def _is_of_head(name: str) -> bool:
    """Whether a weight belongs to an output head or to what pools for one; that of a multi-head attention does not."""
    return any(part in ("head", "pooler") or part.endswith("_head") for part in name.split("."))


def refuse_left_out(source: str, model: Any, report: dict[str, Any], truncated: str | None) -> None:
    """Raises SaevxError where the files hold weights of parts that the configuration has fewer or none of: layers
    beyond its number, or biases. Transformers leaves them out without a word, and the model computes something else.

    Args:
        truncated: name of the list of the decoder's layers, where they were left out on purpose.
    """
    decoder = model.get_decoder()
    parts: dict[str, Any] = dict(model.named_modules())
    for name in sorted(report.get("unexpected_keys") or ()):
        words = name.split(".")
        for i, word in enumerate(words):
            part = parts.get(".".join(words[:i]))
            layers = isinstance(part, torch.nn.ModuleList) and word.isdecimal() and int(word) >= len(part)
            on_purpose = truncated is not None and part is getattr(decoder, truncated, None)
            bias = part is not None and i == len(words) - 1 and word in part._parameters
            if (layers and not on_purpose) or bias:
                raise SaevxError(
                    f"The model {source} cannot be loaded: its files hold {name}, for which its config.json has no "
                    "place: copy its config.json again."
                )


def needs_all_layers(text_config: Any) -> bool:
    """Whether the lower layers' weights or wiring depend on how many there are above them, so that a shorter
    model cannot be built: inputs of its own for each layer in one table, shared keys and values (Gemma 3n and 4)."""
    return any(
        getattr(text_config, name, None)
        for name in ("num_kv_shared_layers", "hidden_size_per_layer_input", "per_layer_config")
    )


def truncate_layers(text_config: Any, n_layers: int) -> None:
    """Leave only the first layers in a config; lists that name a kind per layer are cut with it."""
    n_before = int(text_config.num_hidden_layers)
    text_config.num_hidden_layers = n_layers
    for name, value in list(vars(text_config).items()):
        if "layer" in name and isinstance(value, list) and len(value) == n_before:
            setattr(text_config, name, value[:n_layers])


def pick_device(device: str) -> str:
    """The device that is named; "auto" is a CUDA GPU if there is one, else the CPU. An Apple GPU must be named: the
    pass was never tried on one."""
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise SaevxError(
                f"Device {device!r} cannot be used here ({first_line(error)}): choose cpu or auto."
            ) from error
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    torch_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if torch_dtype is None:
        raise SaevxError(f"--dtype {dtype!r} is not known: choose auto, float32, bfloat16 or float16.")
    if dtype == "bfloat16" != quickest_dtype(device):
        say("This processor has no units for bfloat16: --dtype float32 would be several times as fast.")
    return torch_dtype


@contextmanager
def silence_warnings() -> Iterator[None]:
    """Silences what transformers would warn of: the layers above L are left out on purpose."""
    verbosity: Callable[[], int] | int = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
