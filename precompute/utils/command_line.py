"""What every command's options have in common: how their values are read, and what is said of those that are wrong."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, NoDecode, SettingsConfigDict, SettingsError

SOURCES = ("data", "model", "sae")
"""Options that may name a path or something on a hub."""
EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "int_parsing_size": "a whole number below 2⁶³",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number that is at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number that is at most {le}",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "path_type": "a path",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} value",
}
"""What an option takes, by the kind of pydantic's error."""
_URL_PART = re.compile(r"[\w.~%-]+", re.ASCII)
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?")
_QUOTED = re.compile(r"'(-{0,2}[\w.-]+)'")

COMMAND_CONFIG = SettingsConfigDict(
    cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True,
    cli_enforce_required=True, cli_exit_on_error=False, use_attribute_docstrings=True, extra="forbid",
)  # fmt: skip
"""How every command line is read."""

Paths = Annotated[list[Path], NoDecode]
"""Given one by one, each taken as it is."""
Texts = Annotated[list[str], NoDecode]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**53)]
Percent = Annotated[float, Field(gt=0, le=100)]
SinkMultiple = Annotated[float, Field(gt=0)] | Literal["keep"]
"""Multiple of a modality's median norm above which a token is an attention sink; keep: none is."""


def _is_url_path(value: str) -> str:
    parts = value.strip("/").split("/") if value.strip("/") else []
    if value.startswith("//") or any(part in (".", "..") or not _URL_PART.fullmatch(part) for part in parts):
        raise ValueError(f"takes the path of a URL, such as /saevx, not {_shorten(value)}")
    return value


UrlPath = Annotated[str, AfterValidator(_is_url_path)]


def _is_device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"takes auto, cpu, cuda, mps or a GPU's number such as cuda:1, not {_shorten(value)}")
    return value


Device = Annotated[str, AfterValidator(_is_device)]
"""Where torch computes; not all that torch knows, most of which it cannot load a model to."""
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
"""Of accelerate's device maps those that are one word."""


class CommandOptions(BaseModel):
    """Options of a command: numbers are finite, no text is empty, and a path that begins with ~ begins in the home
    folder, also where the shell has left it as it is (`--out=~/store`)."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _expand_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        result = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(result.get(name), str) and NoDecode in field.metadata:
                parts = result[name].split(",")  # as `run_command` has joined them
                result[name] = [unquote(part, errors="surrogatepass") for part in parts]
            _check_text(name, field, result.get(name))
            if name in result and (name in SOURCES or _holds(Path, field.annotation)):
                try:
                    result[name] = expand_path(result[name])
                except ValueError as error:
                    raise ValueError(f"{_option_name(name, field)} {error}.") from None
        return result


def _check_text(name: str, field: FieldInfo, value: Any) -> None:
    """Raises ValueError where a text is empty, as a variable of a script is that was never set, or holds what is no
    valid Unicode, which no result file could hold; `expand_path` says it of paths."""
    if name in SOURCES or not _holds(str, field.annotation):
        return
    for text in value if isinstance(value, list) else [value]:
        if text == "" and field.default != "":
            raise ValueError(f"{_option_name(name, field)} takes a text that is not empty.")
        if isinstance(text, str) and not is_unicode(text):
            raise ValueError(f"{_option_name(name, field)} takes a text that is valid Unicode, not {text!a}.")


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _holds(kind: type, annotation: Any) -> bool:
    """Whether an option's type is, or has in it, this type."""
    return annotation is kind or any(_holds(kind, part) for part in get_args(annotation))


def expand_path(value: Any) -> Any:
    """A path, or several, with ~ or ~USER at the beginning replaced, where there is such a user; what is no path, as it
    is.

    Raises:
        ValueError: it is empty, or no valid Unicode, which no store's manifest could hold.
    """
    if isinstance(value, list | tuple):
        return [expand_path(part) for part in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text:
        raise ValueError("takes a path that is not empty")
    if not is_unicode(text):
        raise ValueError(f"takes a path that is valid Unicode, not {text!a}: rename the folder")
    return type(value)(os.path.expanduser(text)) if text.startswith("~") else value  # noqa: PTH111 (may be no path)


# ---- a command line


def run_command(app: type[BaseSettings], arguments: Sequence[str]) -> None:
    """Read a command line and do what it asks.

    Raises:
        WrongUsage: with the sentence that says what is wrong.
    """
    try:
        source = CliSettingsSource[Any](app)
        namespace: Namespace = source.root_parser.parse_args(list(arguments))
        for name, value in vars(namespace).items():
            if isinstance(value, list) and _is_taken_whole(name.split("."), app):
                # The library would split what it is given at commas and read brackets and quotes as JSON.
                setattr(namespace, name, [quote(part, safe="", errors="surrogatepass") for part in value])
        CliApp.run(app, cli_args=namespace, cli_settings_source=source)
    except ValidationError as error:
        if error.title != app.__name__:  # not the command line's
            raise
        raise WrongUsage(usage_message(error, app)) from error
    except SettingsError as error:
        raise WrongUsage(parser_message(error, arguments)) from error


class WrongUsage(Exception):  # noqa: N818 - of the command, not of the program
    """A command line that cannot be read."""


S = TypeVar("S", bound=BaseSettings)


def from_environment(settings: type[S], **values: Any) -> S:
    """Settings of these values, the others from variables of the environment.

    Raises:
        WrongUsage: a variable holds something wrong.
    """
    prefix = settings.model_config.get("env_prefix", "")
    try:
        return settings(**values)
    except ValidationError as error:
        option, _, message = usage_message(error, settings).partition(" ")
        raise WrongUsage(f"{prefix}{option.strip('-').replace('-', '_').upper()} {message}") from error
    except SettingsError as error:
        name = re.search(r'field "(\w+)"', str(error))
        variable = f"{prefix}{name[1].upper()}" if name else "A variable of the environment"
        raise WrongUsage(f"{variable} cannot be read: give its value as JSON.") from error


def _is_taken_whole(place: Sequence[str], app: type[BaseModel]) -> bool:
    fields = [field for _, field in _walk(place, app)]
    return bool(fields) and NoDecode in fields[-1].metadata


# ---- what is wrong


def usage_message(error: ValidationError, app: type[BaseModel]) -> str:
    """The first thing that is wrong with a command line, under the option's own name."""
    errors = error.errors()
    first = _field(errors[0]["loc"], app)
    field_errors = [e for e in errors if _field(e["loc"], app) == first]
    messages = [str(e["ctx"]["error"]) for e in field_errors if e["type"] == "value_error"]
    if first is None:
        return messages[0] if messages else errors[0]["msg"]
    if messages:
        return f"{first} {messages[0]}."
    if field_errors[0]["type"] == "missing":
        return f"{first} is missing: give a value."
    expectations = dict.fromkeys(_expectation(e) for e in field_errors)
    return f"{first} takes {' or '.join(expectations)}, not {_shorten(field_errors[0]['input'])}."


def _expectation(error: ErrorDetails) -> str:
    pattern = EXPECTED.get(error["type"])
    if pattern is None:
        return error["msg"]
    context = error.get("ctx", {})
    readable = {name: _number(value) for name, value in context.items()}
    return _QUOTED.sub(r"\1", pattern.format(**readable))


def _number(value: Any) -> Any:
    if value in (2**53, 2**63):
        return "2⁵³" if value == 2**53 else "2⁶³"
    return f"{value:g}" if isinstance(value, float) else value


def _shorten(value: Any) -> str:
    text = str(value)
    text = text if re.fullmatch(r"[\w.,+-]+", text) else repr(text)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _field(place: Sequence[str | int], app: type[BaseModel]) -> str | None:
    """`--batch-tokens` of ('precompute', 'batch_tokens', …), DATA of a positional argument; None where it is the
    command as a whole."""
    option = None
    for name, field in _walk(place, app):
        command = next(_models(field.annotation), None) is not None
        option = None if command else _option_name(name, field)
    return option


def _option_name(name: str, field: FieldInfo) -> str:
    positional = any("Positional" in str(item) for item in field.metadata)
    dashes = "--" if len(name) > 1 else "-"
    return name.upper() if positional else f"{dashes}{name.replace('_', '-')}"


def _walk(place: Sequence[str | int], app: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The commands and the option that a place names, with their fields."""
    model: type[BaseModel] | None = app
    for part in place:
        field = model.model_fields.get(part) if model is not None and isinstance(part, str) else None
        if field is None:
            return
        yield str(part), field
        model = next(_models(field.annotation), None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def options_of(app: type[BaseModel], arguments: Sequence[str]) -> set[str]:
    """Names of the options of the command that the arguments name."""
    commands = [model for _, field in _walk(arguments, app) for model in _models(field.annotation)]
    return set(commands[-1].model_fields) if commands else set()


def parser_message(error: SettingsError, arguments: Sequence[str]) -> str:
    """The library's words for a command line that it cannot read, as a sentence that says what to do."""
    text = str(error).removeprefix("error parsing CLI: ")
    command = next((word for word in arguments if not word.startswith("-")), "")
    see = f"see `saevx {command + ' ' if command else ''}--help`"
    if isinstance(error.__cause__, json.JSONDecodeError):  # a list of numbers
        items = error.__cause__.doc.strip("[]")
        options = [o for o, value in zip(arguments, [*arguments[1:], ""], strict=True) if value.strip("[]") == items]
        return f"{options[0] if options else 'A list'} takes finite numbers, not {items}: {see}."
    if match := re.match(r"unrecognized arguments: (.*)", text, re.DOTALL):
        return f"There is no option or argument {match[1]} here: {see}."
    if match := re.match(r"the following arguments are required: (.*)", text):
        names = match[1].split(", ")
        return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} missing: {see}."
    if match := re.match(r"argument \{.*?\}: invalid choice: (.*) \(choose from (.*)\)", text, re.DOTALL):
        return f"There is no command {match[1]}: choose one of {_QUOTED.sub(chr(92) + '1', match[2])}."
    if match := re.match(r"Error: CLI subcommand is required \{(.*?)\}", text):
        return f"Choose one of {match[1].replace(',', ', ')}: {see}."
    if match := re.match(r"argument (\S+): (expected .*)", text):
        return f"{match[1].partition('/')[0]} needs a value ({match[2]}): {see}."
    if match := re.match(r"argument (\S+): ignored explicit argument (.*)", text):
        return f"{match[1].replace('/', ' or ')} takes no value, so leave out {match[2]}."
    return f"{text.strip().rstrip('.')}: {see}."
