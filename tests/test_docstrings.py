"""Docstrings name what is there: parameters under *Args*, and in backticks names that stand somewhere in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.architecture import ROOT

CODE = sorted(path for room in ("precompute", "backend") for path in (ROOT / room).rglob("*.py"))
ARGUMENTS = re.compile(r"^Args:(.*?)(?=^\w+:|\Z)", re.M | re.S)
ARGUMENT = re.compile(r"(?:^ {4}|(?<=\. ))([a-z_]\w*(?:, [a-z_]\w*)*): ", re.M)
"""Names at the beginning of a line, or after the sentence of another one, with a colon."""
TICKED = re.compile(r"`([a-z_][a-z0-9_]*)`")
OF_OTHERS = {"apply_chat_template", "exec", "f12", "normalize_decoder", "reliability", "score_sf", "set_client_factory"}
"""Names of libraries, of a benchmark, and examples."""
PUT_TOGETHER = {"sample_text", "top_position"}
"""Names that the code makes of two words."""

Described = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parameters(node: ast.AST) -> set[str]:
    """Parameters of a function; fields of a class and the parameters of its methods that take its arguments."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        a = node.args
        return {arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg is not None}
    names: set[str] = set()
    for child in getattr(node, "body", ()):
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            names.add(child.target.id)
        elif isinstance(child, ast.FunctionDef) and child.name in ("__init__", "__call__", "begin"):
            names |= parameters(child)
    return names


def missing_arguments(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of what stands under *Args* and is no parameter."""
    for node in ast.walk(tree):
        section = ARGUMENTS.search(ast.get_docstring(node) or "") if isinstance(node, Described) else None
        if section is not None and isinstance(node, Described):
            names = [name for group in ARGUMENT.findall(section[1]) for name in group.split(", ")]
            yield from ((node.lineno, name) for name in names if name not in parameters(node))


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Docstrings, and the texts below fields and constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else ():
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                yield child.value


def words_of_code(source: str, tree: ast.Module) -> set[str]:
    """Every word of a module outside docstrings and comments: names, and what its strings hold."""
    lines = source.splitlines()
    for text in docstrings(tree):
        lines[text.lineno - 1 : text.end_lineno] = [""] * ((text.end_lineno or text.lineno) - text.lineno + 1)
    return set(re.findall(r"\w+", re.sub(r"(?:^|  )# .*", "", "\n".join(lines), flags=re.M)))


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in CODE}


def test_what_stands_under_args_is_a_parameter(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name} is no parameter"
        for path, tree in trees.items()
        for line, name in missing_arguments(tree)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_names_in_backticks_stand_in_the_code(trees: dict[Path, ast.Module]) -> None:
    words = (words_of_code(path.read_text(encoding="utf-8"), tree) for path, tree in trees.items())
    known = set().union(*words) | OF_OTHERS | PUT_TOGETHER
    wrong = [
        f"{path.relative_to(ROOT)}:{text.lineno}: `{name}` stands nowhere in the code"
        for path, tree in trees.items()
        for text in docstrings(tree)
        for name in TICKED.findall(str(text.value))
        if name not in known
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_names_that_are_gone_are_noticed() -> None:
    source = '''
class Table:
    """Values.

    Args:
        raw: uint8. rows: int64 [n], of `gone`.
    """

    def __init__(self, rows: Array) -> None: ...

def f(a: int, *, b: int, **more: int) -> int:
    """A sum.

    Args:
        a, b: as of `Table`: int64.
        c: what is added; note: no parameter. more: others.

    Returns:
        d: nothing.
    """
    return a + b  # of `gone`
'''
    tree = ast.parse(source)
    assert list(missing_arguments(tree)) == [(2, "raw"), (11, "c")]
    names = {name for text in docstrings(tree) for name in TICKED.findall(str(text.value))}
    assert names == {"gone"} and not names & words_of_code(source, tree)
