"""Every message that a person may get is a sentence or two that say what is wrong and what to do.

Read from the source, so that a new message is looked at before anybody gets it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
ERRORS = {"SaevxError", "PlaceError", "EventsNotStored"}
MADE_ELSEWHERE = {
    ("precompute/utils/files.py", "text"),
    ("precompute/utils/files.py", "full"),  # disk_sentence: test_migrate.py
    ("precompute/utils/ownership.py", "text"),
    ("precompute/utils/files.py", "sentence(error, path)"),  # failures.py, tested there
    ("precompute/utils/processes/ray_pool.py", "str(cause)"),  # another process's SaevxError
    ("precompute/store/making/verify_examples.py", "message"),  # caught, and shown behind its check's name
    ("precompute/data/json_files.py", "{self.path} is {file_format}."),  # signatures.py ends each with what to do
    ("precompute/data/table_files.py", "{file} is {file_format}."),
    ("precompute/data/table_files.py", "fault"),  # of table_faults.py: test_tables.py
    ("precompute/data/table_files.py", "difference_of(files[0], header, file, columns)"),
    ("precompute/utils/reading.py", "sentence(error, path)"),  # failures.py
    ("backend/api/annotations/command.py", "full"),  # disk_sentence: test_failures.py
    ("precompute/sae/formats.py", "NOT_LEARNT"),  # of sae/config.py, and checked there
    ("precompute/live/steer.py", "sentence"),  # why_not_frozen: test_frozen_attention.py
    ("backend/workers/supervisor.py", "reason"),  # a worker's SaevxError: test_workers.py
    ("precompute/live/intervention.py", "reason"),  # test_sae.py: a feature without a direction
    ("precompute/store/mapfile.py", "absent"),  # of KINDS: test_a_map_that_is_absent_says_how_to_make_it
    ("precompute/store/events.py", "row"),  # EventsNotStored's own sentence
    ("backend/api/annotations/command.py", "{options.file}: {error.detail}"),  # the sentence of the API
    ("backend/api/annotations/command.py", "store.annotations.problem"),  # the sentence that the pages show
    ("backend/commands.py", "checkout_only('saevx experiment')"),  # test_wheel.py
    ("backend/commands.py", "checkout_only('saevx bench')"),
    ("backend/stores.py", "' '.join((str(slot.reason) for slot in slots))"),  # one sentence a store
}
MAKERS = {
    "all_rejected_message": "test_rejections.py",
    "no_finite": "test_sae_values.py",
    "_bad_id_message": "test_filter.py",
    "_wrong_address": "test_book.py",
}
"""Functions that make a sentence, and where it is tested."""
REASONS = {"precompute/live/originals.py"}
"""Modules whose errors are clauses of a sentence that their callers make."""
TELLS = re.compile(
    r"\b(add|allow|choose|clone|delete|end|give|install|leave|lower|make|move|name|open|put|raise|remove|rename|repeat|"
    r"restart|run|say|see|set|start|stop|take|try|unpack|use|wait|write)\b",
    re.IGNORECASE,
)


class Message(NamedTuple):
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def constants(tree: ast.Module) -> dict[str, str]:
    """Texts that a module has a name for."""
    return {
        target.id: text_of(node.value, {})
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr | ast.BinOp)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def text_of(node: ast.expr, known: dict[str, str]) -> str:
    """The text, what is filled in as {expression}; of anything else its source in < >."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, known) for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)) if name in known:
            return known[name]
        case ast.FormattedValue(value=value, conversion=conversion):
            return "{" + ast.unparse(value) + (f"!{chr(conversion)}" if conversion > 0 else "") + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, known) + text_of(right, known)
        case ast.BoolOp(op=ast.Or(), values=[first, *_]):
            return text_of(first, known)
        case ast.Name(id=name) if name in known:
            return known[name]
    return f"<{ast.unparse(node)}>"


def messages() -> Iterator[Message]:
    for path in sorted([*(ROOT / "precompute").rglob("*.py"), *(ROOT / "backend").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                name = path.relative_to(ROOT).as_posix()
                assert node.args, f"{name}:{node.lineno} says nothing"
                text = text_of(node.args[0], known)
                made = re.match(r"<(\w+)\(", text)
                if made is not None and made[1] in MAKERS:
                    continue
                if name not in REASONS and (name, text.strip("<>")) not in MADE_ELSEWHERE:
                    yield Message(name, node.lineno, text)


MESSAGES = list(messages())
AREAS = sorted({message.path for message in MESSAGES})


@pytest.mark.parametrize("area", AREAS)
def test_every_message_is_a_sentence_that_says_what_to_do(area: str) -> None:
    for message in (one for one in MESSAGES if one.path == area):
        text = message.text
        assert not text.startswith("<"), f"{message} is made elsewhere: list it in MADE_ELSEWHERE, with its test"
        assert "\n" not in text, f"{message}: one line"
        assert re.match(r"[A-ZΑ-Ω{`]|--?[a-z{]", text), f"{message}: begins with a capital, a placeholder or an option"
        assert text.rstrip("}").endswith((".", "advice", "way")), f"{message}: ends with a full stop"
        # A second sentence may say what to do; a full stop inside a name or a number ends none.
        assert len(re.findall(r"[.!?](?=\s+[A-Z])", text)) <= 2, f"{message}: one sentence, or two"
        assert not re.search(r"traceback|\bException\b|\bErrno\b", text, re.IGNORECASE), f"{message}: plain words"
        assert not re.search(r"\{(error|exc|e|cause)(!r)\}|__class__", text), f"{message}: no class's name"
        assert ":" in text or TELLS.search(text), f"{message}: says what to do"


def test_messages_are_found_at_all() -> None:
    assert len(MESSAGES) > 120 and {"precompute/utils/files.py", "backend/demo.py"} <= set(AREAS)
