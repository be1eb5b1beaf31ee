"""Folders of hostile models: each is a change of a folder that is right."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import LlavaConfig, LlavaForConditionalGeneration
class OwnConfig(LlavaConfig): model_type = "own"
class OwnModel(LlavaForConditionalGeneration): pass
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"}
NEVER = "never run here"
ENDLESS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


class ModelCase(NamedTuple):
    """A change of a LLaVA's folder, and words of the sentence that refuses it."""

    name: str
    change: Callable[[Path, Path], object]
    """Called with the folder and with the marker file that its code would write."""
    must: str


def edit_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], None]:
    def edit(folder: Path, marker: Path) -> None:
        (folder / "own.py").write_text(CODE.format(marker=str(marker)))
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def everything(config: dict[str, Any]) -> None:
    """Code of its own, a kernel from the hub and trust in all of it, at every depth."""
    config.update(auto_map=AUTO_MAP, _attn_implementation_internal="owner/kernel")
    config["text_config"].update(trust_remote_code=True, auto_map=AUTO_MAP)


def template(text: str) -> Callable[[Path, Path], object]:
    return lambda folder, marker: (folder / "chat_template.jinja").write_text(text)


class Hostile:
    """Writes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def pickled_weights(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(marker), protocol=2))


CASES = [
    ModelCase("own code that is trusted within", edit_config(everything), NEVER),
    ModelCase("an unknown type with code", edit_config(lambda c: c.update(model_type="own", auto_map=AUTO_MAP)), NEVER),
    ModelCase("a kernel of the hub", edit_config(lambda c: c.update(attn_implementation="owner/kernel")), NEVER),
    ModelCase(
        "a kernel by parts",
        edit_config(lambda c: c.update(_attn_implementation={"text_config": "owner/kernel"})),
        NEVER,
    ),
    ModelCase("experts of the hub", edit_config(lambda c: c.update(experts_implementation="owner/kernel")), NEVER),
    ModelCase("trust in a list", edit_config(lambda c: c.update(parts=[{"trust_remote_code": True}])), NEVER),
    ModelCase("pickled weights", pickled_weights, "cannot be loaded"),
    ModelCase("a template without an end", template(ENDLESS), "does not end within a second"),
    ModelCase("a template of ten gigabytes", template("{{ 'a' * 10**10 }}"), "needs too much memory"),
    ModelCase("a template that reaches out", template("{{ self.__init__.__globals__ }}"), "cannot be loaded"),
]
EVERYWHERE = [case for case in CASES if case.name in ("own code that is trusted within", "a template of ten gigabytes")]
"""Of them, those that are tried with every command."""
