"""Words that are no names of parameters, variables and functions, and where such names are bound: for
tests/test_house.py."""

import ast
from collections.abc import Iterable, Iterator

NO_NAMES = {
    "ablated", "above", "accepted", "active", "actual", "adapted", "added", "after", "again", "against", "alive",
    "allowed", "alone", "along", "announced", "answered", "ascending", "attached", "away", "back", "bad", "bare",
    "barred", "before", "behind", "below", "beside", "best", "better", "between", "both", "bounded", "bridged",
    "broken", "cached", "called", "capped", "caught", "changed", "choosing", "claimed", "close", "closed", "closing",
    "coarse", "collected", "collecting", "common", "compared", "compiled", "counted", "crossed", "crowded", "damaged",
    "dead", "decoded", "deep", "dense", "described", "different", "done", "down", "drawn", "dropped", "each", "edited",
    "either", "encoded", "ended", "enough", "entered", "every", "everything", "exact", "exchanged", "expected",
    "explained", "exported", "failed", "failing", "few", "fewest", "filled", "finished", "firing", "fitting", "fixed",
    "flagged", "folded", "following", "free", "frequent", "given", "gone", "good", "grouped", "grown", "hallucinated",
    "hashed", "having", "held", "here", "highest", "holding", "inner", "inside", "joined", "judged", "known", "lacking",
    "largest", "lasted", "learned", "like", "linked", "listed", "listening", "little", "loaded", "lone", "long",
    "longest", "lost", "lowering", "made", "many", "mapped", "marked", "measured", "mine", "missing", "mixed", "more",
    "most", "moved", "named", "narrow", "near", "needed", "new", "none", "now", "numbered", "observed", "of", "off",
    "old", "on", "one", "only", "opened", "ordered", "others", "ours", "outside", "over", "overlapping", "owed", "own",
    "packed", "padded", "painted", "parsed", "passed", "patched", "permuted", "picked", "placed", "plain", "planned",
    "pooled", "possible", "predicted", "preferred", "projected", "promoted", "quantised", "queried", "quoted", "raised",
    "raising", "random", "ranked", "raw", "reached", "real", "received", "recorded", "recovered", "redrawn", "reduced",
    "refused", "rejected", "removed", "rendered", "reported", "requested", "required", "rest", "rising", "running",
    "sampled", "saved", "scored", "sealed", "seen", "selected", "sent", "separate", "served", "shaped", "shipped",
    "short", "shuffled", "shut", "signed", "single", "skipped", "small", "smallest", "spaced", "spare", "sparse",
    "special", "spelled", "stale", "started", "stated", "steered", "stored", "strange", "strong", "strongest",
    "supported", "taken", "telling", "terminated", "tested", "theirs", "there", "thinned", "tied", "together",
    "toggled", "trained", "tried", "true", "tuned", "turned", "typed", "unchanged", "under", "unique", "unknown",
    "unnamed", "unseen", "unspaced", "unsteered", "untrained", "unused", "unwanted", "up", "uploaded", "upper", "used",
    "usual", "varied", "visible", "waited", "waiting", "wanted", "weak", "which", "who", "whole", "whose", "wide",
    "without", "worded", "worse", "worst", "written", "yours",
}  # fmt: skip
"""Participles, adjectives, prepositions and pronouns, which do not say what a thing is. A word that is missing here is
used somewhere as the name of a truth value, or is a field of the API."""
OF_THE_PUBLIC_API = {"flagged", "grouped", "held", "raised", "random", "ranked", "strongest"}
"""Methods of a store, in docs/python.md."""
FUNCTION_NAMES = OF_THE_PUBLIC_API | {"again", "close", "of", "signed", "visible", "waiting"}
"""Functions that may have such names: these; `of`, which makes or gives what belongs to its argument; `close`, as files
have it; what templates call; and a figure of the live model."""


def local_names(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, name) of the parameters and variables of functions; the parameters of an endpoint are its query's."""
    names: list[tuple[int, str]] = []
    add_local_names(tree, names)
    return names


def add_local_names(
    node: ast.AST, names: list[tuple[int, str]], within_function: bool = False, is_endpoint: bool = False
) -> None:
    """Adds those below a node."""
    for child in ast.iter_child_nodes(node):
        inside_function, endpoint = within_function, is_endpoint
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside_function, endpoint = True, any("router." in ast.unparse(d) or "at_sample" in ast.unparse(d)
                                                  for d in getattr(child, "decorator_list", ()))  # fmt: skip
        elif isinstance(child, ast.ClassDef):
            inside_function = False
        elif isinstance(child, ast.arg) and not is_endpoint:
            names.append((child.lineno, child.arg))
        elif isinstance(child, ast.Name):  # which has nothing below it
            if isinstance(child.ctx, ast.Store) and within_function:
                names.append((child.lineno, child.id))
            continue
        elif isinstance(child, ast.ExceptHandler) and child.name:
            names.append((child.lineno, child.name))
        add_local_names(child, names, inside_function, endpoint)


def function_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, name) of the functions; not those that a router or the application calls, whose names nobody reads."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if "router." not in decorators and "exception_handler" not in decorators:
                yield node.lineno, node.name
