"""Renders the tables of docs/performance.md from docs/results/bench-*.json.

python -m tests.bench.report          # rewrite
python -m tests.bench.report --check  # exit 1 where the page is stale
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from precompute.demo.evaluation.markdown import RESULTS, Row, command, splice, table
from tests.bench.common import met
from tests.bench.dashboard import WAYS, extrapolated, goal

PAGE = Path("docs/performance.md")
SAID = {True: "yes", False: "**no**", None: "not measured"}


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All but those of docs/reliability.md, which is a page, and of a GPU, which is a table of its own."""
    others = ("bench-reliability", "bench-gpu")
    paths = (path for path in sorted(folder.glob("bench-*.json")) if path.stem not in others)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    digits = f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def figures(actual: list[dict[str, Any]]) -> str:
    rows: list[Row] = [
        (f["what"], number(f["value"], f["unit"]), f"{f['sense']} {number(f['goal'], f['unit'])}", SAID[met(f)],
         f["note"], f"`{result['name']}`")
        for result in actual for f in result["figures"]
    ]  # fmt: skip
    return table(("what", "measured", "goal", "reached", "how", "benchmark"), rows)


def runs(actual: list[dict[str, Any]]) -> str:
    """How each result was made, and on what."""
    rows: list[Row] = []
    for result in actual:
        m = result["machine"]
        options = ", ".join(f"{name} {value}" for name, value in result["options"].items())
        torch = m["versions"]["torch"]
        where = f"{m['gpu'] or m['processor']}, {m['cores']} cores, {m['threads']} threads, torch {torch}"
        took = f"{result['took_s']:.0f} s" if result.get("took_s") else "–"
        rows.append((f"`{result['command']}`", options, where, took))
    return table(("command", "options", "machine", "took"), rows)


def steps(actual: list[dict[str, Any]]) -> str:
    """Where the wall time of a whole run goes."""
    for result in actual:
        if result["name"] == "collect":
            report = dict(result["steps"])
            total = report.pop("total")
            rows: list[Row] = [(f"`{name}`", f"{seconds / total:.1%}") for name, seconds in report.items()]
            return table(("step", "share of the whole run"), rows)
    return "Not measured."


def reference(actual: list[dict[str, Any]]) -> str:
    """What `collect` does beside the forward."""
    report = {
        "forward": "the model to layer L",
        "encode": "encoder, and ‖h − ĥ‖² over active features",
        "shards": "accumulators, the shards' files, and the scale from the first 64 samples",
        "merge": "merge: lists, maxima, residuals of D_s, records, vocabulary",
    }
    for result in actual:
        if "profile" in result:
            whole = sum(result["profile"].values())
            rows: list[Row] = [
                (report[name], f"{seconds:.2f}", f"{seconds / whole:.1%}")
                for name, seconds in result["profile"].items()
            ]
            return table(("piece", "seconds", "share"), rows)
    return "Not measured."


def floor(actual: list[dict[str, Any]]) -> str:
    """Beside SAEDashboard: where our seconds go, and the ratio if only what nobody goes without were left of them."""
    rows: list[Row] = []
    for result in actual:
        if result["name"] != "dashboard":
            continue
        for name, report in result["seconds"].items():
            ours, forward, products = (float(np.median(report[kind])) for kind in ("ours", "forward", "products"))
            steps = {step: float(np.median([one[step] for one in report["steps"]])) for step in report["steps"][0]}
            n_features, limits = int(name.split()[1]), []
            for way in WAYS:
                theirs = None
                if way in report:
                    n_batches = n_features // result["options"]["batch"]
                    theirs = extrapolated(report[way], n_batches, once=way == "cache") / (forward + products)
                limits.append("–" if theirs is None else f"{theirs:.0f} × of {goal(n_features, way):.0f}")
            rest = ours - steps["collect"] - steps["index"] - steps["write"] - steps["verify"]
            rows.append(
                (name, f"{ours:.1f}", f"{forward:.1f}", f"{products:.1f}", f"{steps['collect'] - forward:.1f}",
                 f"{steps['index']:.1f}", f"{steps['write'] + steps['verify']:.1f}", f"{rest:.1f}", *limits)
            )  # fmt: skip
    head = (
        "SAE", "ours, s", "forward", "products", "rest of `collect`", "`index`", "`write`, `verify`", "other",
        "default, at most", "cache, at most",
    )  # fmt: skip
    return table(head, rows)


def encoder(actual: list[dict[str, Any]]) -> str:
    """Beside the paper's way: the ratio if only the SAE's encoder were left of ours."""
    for result in actual:
        if result["name"] == "paper":
            paper, ours, alone = (float(np.median(result["seconds"][way])) for way in ("paper", "ours", "encoder"))
            row = (f"{paper:.1f}", f"{ours:.2f}", f"{alone:.2f}", f"{paper / ours:.0f} ×", f"{paper / alone:.0f} ×")
            return table(("the paper's way, s", "ours, s", "of them the encoder", "ratio", "ratio, at most"), [row])
    return "Not measured."


def on_gpu(path: Path = RESULTS / "bench-gpu.json") -> str:
    """What `python -m tests.bench.gpu` measured."""
    if not path.exists():
        return "Not yet measured."
    result = json.loads(path.read_text(encoding="utf-8"))
    names = {
        "collect_over_forward": "`collect` over the bare forward",
        "features_tokens_per_s": "features × tokens a second",
    }
    rows: list[Row] = [
        (name, f"{part['features']}", f"{part['tokens']}", names[figure], number(part[figure], ""))
        for name, part in result["parts"].items()
        for figure in names
        if figure in part
    ]
    where = f"{result['machine']['gpu']}, tree {result['tree'][:10]}. "
    return where + "\n\n" + table(("part", "features", "tokens", "what", "measured"), rows)


def rendered(page: str) -> str:
    actual = results()
    parts = {
        "figures": figures(actual), "steps": steps(actual), "beside": reference(actual), "floor": floor(actual),
        "encoder": encoder(actual), "gpu": on_gpu(),
        "runs": runs(actual),
    }  # fmt: skip
    return splice(page, parts, PAGE)


if __name__ == "__main__":
    command(PAGE, rendered, "tests.bench.report")
