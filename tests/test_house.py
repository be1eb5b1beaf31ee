"""The rules of the code's layout, read from its source: what may import what, how long a module may be, which words are
not used as names. A violation is printed as one line, `file:line: what is wrong`."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.architecture import ROOT, floor_of, imports, modules, nodes
from tests.helpers.names import FUNCTION_NAMES, NO_NAMES, function_names, local_names

MAX_MODULE_LINES = 330
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6
MAX_MODULES_IN_A_FOLDER = 16
MAX_MODULES_BESIDE_ROOMS = 6
WORDS = {"found", "told", "said", "asked", "some", "kept", "settle", "beside", "anew"}
SCRIPT_WORDS = {"here", "mine", "fresh", "whole", "wanted", "measured", "latest", "hovered"}
ARRAYS = {"Array", "Tensor", "NDArray", "ndarray", "csr_matrix"}
ONLY_OFFLINE = ("collect", "training", "patches", "steps", "estimate", "pipeline", "demo", "experiments", "cli")

CODE = sorted(path for room in ("precompute", "backend") for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
HELPERS = sorted((ROOT / "tests" / "helpers").rglob("*.py"))
SCRIPTS = sorted((ROOT / "frontend" / "static" / "js").rglob("*.js"))


@pytest.fixture(scope="module", autouse=True)
def syntax_trees() -> Iterator[None]:
    yield
    nodes.cache_clear()


def none(violations: list[str]) -> None:
    """Fails with one line per violation."""
    assert not violations, "\n" + "\n".join(violations)


def at(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


def test_no_test_imports_a_test() -> None:
    """What tests share lies in tests/helpers or is a fixture of a conftest.py."""
    none([
        f"{at(path, line)}: imports {name}" for path in TESTS for line, name in imports(path)
        if name.startswith("tests.") and any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    ])  # fmt: skip


def test_quick_tests_cover_every_room() -> None:
    """`make check` runs some tests of each folder of tests."""
    lines = (ROOT / "tests" / "quick.txt").read_text().split()
    quick = [line.removeprefix("--deselect=") for line in lines]
    files = [ROOT / name.partition("::")[0] for name in quick]
    rooms = {path.parent for path in TESTS if path.name.startswith("test_")}
    rooms -= {ROOT / "tests" / "e2e", ROOT / "tests" / "bench"}
    covered = {parent for file in files for parent in (file, *file.parents)}
    wrong = [f"tests/quick.txt: {at(file)} does not exist" for file in files if not file.exists()]
    for name, _, test in (entry.partition("::") for entry in quick if "::" in entry):
        if f"def {test}(" not in (ROOT / name).read_text():
            wrong.append(f"tests/quick.txt: {name} has no {test}")
    none([*wrong, *(f"tests/quick.txt: no test of {at(room)}" for room in sorted(rooms - covered))])


def test_the_files_that_come_first_or_last_exist() -> None:
    names = [name for one in ("slow", "late") for name in (ROOT / "tests" / f"{one}.txt").read_text().split()]
    none([f"tests/slow.txt or late.txt: {name} does not exist" for name in names if not (ROOT / name).is_file()])


# ---- imports


def edges() -> Iterator[tuple[str, str, Path, int]]:
    """(module, imported module, file, line), imports inside functions and under TYPE_CHECKING included.

    The packages' own `__init__` modules are left out on the importing side of `precompute` alone: it only registers
    the demo's vision tower with transformers, when transformers itself is imported.
    """
    known = modules()
    for module, path in known.items():
        for line, name in imports(path):
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != "precompute" and module not in ("precompute", target):
                yield module, target, path, line


def test_every_module_stands_on_a_floor() -> None:
    none([f"{at(path)}: no floor in tests/helpers/architecture.py" for module, path in modules().items()
          if module != "precompute" and floor_of(module) is None])  # fmt: skip


def test_no_import_of_a_floor_above() -> None:
    wrong = []
    for module, target, path, line in edges():
        low, high = floor_of(module), floor_of(target)
        if low is not None and high is not None and high > low:
            wrong.append(f"{at(path, line)}: imports {target}, a floor above")
    none(wrong)


def test_the_server_imports_nothing_that_only_makes_stores() -> None:
    """Its commands do: they run the offline stage."""
    none([
        f"{at(path, line)}: imports {target}, which a server does not need"
        for module, target, path, line in edges()
        if module.startswith("backend.") and module not in ("backend.cli", "backend.commands", "backend.demo")
        and target.startswith(tuple(f"precompute.{room}" for room in ONLY_OFFLINE))
    ])  # fmt: skip


def test_what_pages_are_drawn_with_imports_no_page() -> None:
    below = ("backend.drawing", "backend.links", "backend.schemas", "precompute.")
    none(
        [
            f"{at(path, line)}: imports {target}"
            for module, target, path, line in edges()
            if module.startswith("backend.drawing") and not target.startswith(below)
        ]
    )


def test_no_circle_of_imports() -> None:
    graph: dict[str, set[str]] = {}
    for module, target, _, _ in edges():
        graph.setdefault(module, set()).add(target)
    none([" → ".join([*circle, circle[0]]) for circle in circles(graph)])


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One circle through each module that lies on one, none twice."""
    seen: dict[frozenset[str], list[str]] = {}
    for start in sorted(graph):
        before: dict[str, str] = {}
        queue = [start]
        for node in queue:
            for target in sorted(graph.get(node, ())):
                if target == start:
                    way = [node]
                    while way[-1] != start:
                        way.append(before[way[-1]])
                    seen.setdefault(frozenset(way), way[::-1])
                    queue.clear()
                    break
                if target not in before:
                    before[target] = node
                    queue.append(target)
    return list(seen.values())


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_import_by_string() -> None:
    none(
        [
            f"{at(path, node.lineno)}: {ast.unparse(node.func)}"
            for path in CODE
            for node in nodes(path)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module", "import_string")
        ]
    )


# ---- sizes


def test_no_module_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in [*CODE, *TESTS, *SCRIPTS]}
    none([f"{at(path)}: {length} lines, at most {MAX_MODULE_LINES}" for path, length in lengths.items()
          if length > MAX_MODULE_LINES])  # fmt: skip


def test_no_function_is_too_long() -> None:
    none(
        [
            f"{at(path, line)}: {name} has {length} lines, at most {MAX_FUNCTION_LINES}"
            for path in [*CODE, *TESTS, *SCRIPTS]
            for line, name, length in (functions if path.suffix == ".py" else script_functions)(path)
            if length > MAX_FUNCTION_LINES
        ]
    )


def test_no_function_has_too_many_parameters() -> None:
    """More become one object of options: a class, or a TypedDict of keywords."""
    none([f"{at(path, node.lineno)}: {node.name} has {len(names)} parameters, at most {MAX_PARAMETERS}"
          for path in CODE for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
          for arguments in [node.args]
          for names in [{a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}]
          if len(names - {"self", "cls"}) > MAX_PARAMETERS])  # fmt: skip


def functions(path: Path) -> Iterator[tuple[int, str, int]]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def script_functions(path: Path) -> Iterator[tuple[int, str, int]]:
    """Functions of a JavaScript module that begin, and end with a brace, in the first column."""
    start, name = 0, ""
    for number, text in enumerate(path.read_text().splitlines(), 1):
        begin = re.match(r"(?:export )?(?:async )?(?:function\*? |const )(\w+)\b.*\{$", text)
        if begin:
            start, name = number, begin[1]
        elif text.startswith("}") and start:
            yield start, name, number - start + 1
            start = 0


def test_no_folder_is_too_full() -> None:
    folders = sorted({path.parent for path in CODE})
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    wrong = [
        f"{at(folder)}: {count} modules, at most {MAX_MODULES_IN_A_FOLDER}"
        for folder, count in counts.items()
        if count > MAX_MODULES_IN_A_FOLDER
    ]
    if counts[ROOT / "precompute"] > MAX_MODULES_BESIDE_ROOMS:
        wrong.append(f"precompute: {counts[ROOT / 'precompute']} modules beside its rooms, at most six")
    none(wrong)


# ---- words


def test_names_say_what_a_thing_is() -> None:
    """Participles, adjectives and pronouns are no names of parameters, variables and functions; fields are free."""
    wrong = []
    for path in (*CODE, *HELPERS):
        for line, name in local_names(nodes(path)[0]):
            if name.strip("_") in NO_NAMES:
                wrong.append(f"{at(path, line)}: {name}")
    for path in CODE:
        wrong += [
            f"{at(path, line)}: {name}()"
            for line, name in function_names(nodes(path))
            if name.strip("_") in NO_NAMES - FUNCTION_NAMES
        ]
        text = path.read_text()
        if not WORDS.isdisjoint(re.findall(r"\w+", text)):  # if only in comments and strings
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type == tokenize.NAME and token.string in WORDS:
                    wrong.append(f"{at(path, token.start[0])}: {token.string}")
    for path in SCRIPTS:
        for number, text in enumerate(without_texts(path.read_text()).splitlines(), 1):
            names = re.findall(r"[\w$]+", text.replace(".some(", "("))  # a method of JavaScript's arrays
            wrong += [f"{at(path, number)}: {word}" for word in names if word in WORDS | SCRIPT_WORDS]
    none(wrong)


def test_words_that_are_no_names_are_noticed() -> None:
    """The rule sees parameters, variables, loops, exceptions and lambdas; fields and endpoints keep their names."""
    source = """
class Query:
    own: str

@router.get("/x")
def endpoint(own): return own

def f(own):
    for one in own: drawn = lambda known: known
    try: pass
    except OSError as gone: return [bad for bad in own]
"""
    assert [name for _, name in local_names(ast.parse(source))] == ["own", "one", "drawn", "known", "gone", "bad"]
    assert {"own", "one", "drawn", "known", "gone", "bad"} <= NO_NAMES
    assert [name for _, name in function_names(ast.walk(ast.parse(source)))] == ["f"]


def without_texts(source: str) -> str:
    """JavaScript without its comments and strings, line by line as before."""
    texts = r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"""
    return re.sub(texts, lambda match: "\n" * match[0].count("\n"), source, flags=re.S)


# ---- shapes


def test_arrays_are_described() -> None:
    """Public functions and fields of arrays have a docstring: the place for shape, dtype and unit. What a protocol of
    the module describes is described for its classes."""
    none([violation for path in CODE for violation in undescribed(path)])


def undescribed(path: Path) -> Iterator[str]:
    tree = nodes(path)[0]
    assert isinstance(tree, ast.Module)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    of_protocols = {
        method.name
        for owner in classes
        if "Protocol" in map(ast.unparse, owner.bases)
        for method in owner.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
    }
    for owner in [tree, *classes]:
        prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
        for node in owner.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                annotations = [node.returns, *(argument.annotation for argument in arguments)]
                stub = any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
                described_there = owner is not tree and node.name in of_protocols
                if any(map(of_arrays, annotations)) and not (stub or described_there or ast.get_docstring(node)):
                    yield f"{at(path, node.lineno)}: {prefix}{node.name} takes or returns arrays and has no docstring"
    for owner in classes:
        for field, after in pairwise([*owner.body, None]):
            if isinstance(field, ast.AnnAssign) and of_arrays(field.annotation) and not described(field, after, owner):
                yield f"{at(path, field.lineno)}: {owner.name}.{ast.unparse(field.target)} has no docstring"


def of_arrays(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(ARRAYS & set(re.findall(r"\w+", ast.unparse(annotation))))


def described(field: ast.AnnAssign, after: ast.stmt | None, owner: ast.ClassDef) -> bool:
    """By a text below it, or by its name in the docstring of its class; private fields need none."""
    name = ast.unparse(field.target)
    below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    return below or name.startswith("_") or bool(re.search(rf"\b{name}\b", ast.get_docstring(owner) or ""))
