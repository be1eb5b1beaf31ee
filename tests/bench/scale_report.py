"""Renders the forecast of docs/scale.md from docs/results/bench-*.json.

    python -m tests.bench.scale_report                       # rewrite the page
    python -m tests.bench.scale_report --check               # exit 1 where it is stale
    python -m tests.bench.scale_report --gpu-price 4 --workers 64    # print the forecast with other assumptions

Every rate is measured but those of `Assumptions`, which a reader may change.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.demo.evaluation.markdown import Row, command, read, splice, table
from tests.bench.report import runs

PAGE = Path("docs/scale.md")
PAIRS = (10**7, 10**8)
NOT_SHARED = ("read", "fingerprint", "plan", "merge", "weigh", "score", "flag", "cooccur", "index", "families",
              "label", "write", "trim", "seal", "verify")  # fmt: skip
"""Parts that the first machine does alone, in one process."""


class Assumptions(NamedTuple):
    """What no benchmark here has measured."""

    workers: int = 16
    """Machines, or GPUs, that share the pass."""
    cpu_price: float = 0.1
    """Of an hour of a machine like the one measured, in any currency."""
    gpu_price: float = 3.0
    """Of an hour of a GPU with its machine."""
    tokens: int = 2000
    """Of a pair, images included."""
    parameters: float = 4e9
    """Of the model up to layer L."""
    gpu_flops: float = 1e15
    """Floating-point operations a second, at most, of a GPU in bfloat16."""
    gpu_use: float = 0.3
    """Share of them that the pass reaches."""

    @property
    def gpu_pairs(self) -> float:
        """Pairs a second of one GPU, by the formula of the page."""
        return self.gpu_flops * self.gpu_use / (2 * self.parameters * self.tokens)


class Rates(NamedTuple):
    """What the benchmarks have measured."""

    rows: int
    """Of the largest run of `saevx bench rows`."""
    alone: dict[str, float]
    """Seconds a pair of each part that the first machine does alone."""
    memory: float
    """Bytes beside model and SAE at most, in that run."""
    memory_growth: float
    """Bytes a pair by which that grows, from the two largest runs."""
    cpu_pairs: float
    """Pairs a second of the pass on one machine, with the demo's model."""
    store_bytes: float
    """Bytes a pair of the demo's store, from its two largest runs."""
    ray: float
    """Share of a worker's time that is left with Ray."""


def rates() -> Rates:
    whole = read("bench-rows")["runs"]["precompute"]
    before, most = sorted(whole, key=int)[-2:]
    peak = {n: max(one["peak"] for one in whole[n]["parts"].values()) for n in (before, most)}
    collect, forecast = read("bench-collect"), read("bench-forecast")["runs"]
    few, many = (forecast[name]["actual"]["bytes"] for name in ("400", "all"))
    samples = int(collect["options"]["samples"])
    seconds = read("bench-ray_pool")["seconds"]
    return Rates(
        rows=int(most),
        alone={
            name: whole[most]["parts"][name]["seconds"] / int(most)
            for name in NOT_SHARED
            if name in whole[most]["parts"]
        },
        memory=peak[most],
        memory_growth=max(0.0, (peak[most] - peak[before]) / (int(most) - int(before))),
        cpu_pairs=samples / float(np.median(collect["seconds"]["collect"])),
        store_bytes=(many - few) / (samples - 400),
        ray=float(np.median(seconds["1 worker"]) / np.median(seconds["2 workers"]) / 2),
    )


def forecast(measured: Rates, assumptions: Assumptions) -> str:
    rows: list[Row] = []
    for n in PAIRS:
        alone = sum(measured.alone.values()) * n / 3600
        for kind, rate, price in (
            ("CPU machines like the one measured, the demo's model", measured.cpu_pairs, assumptions.cpu_price),
            ("GPUs, **by formula, not measured**", assumptions.gpu_pairs, assumptions.gpu_price),
        ):
            hours = n / (rate * measured.ray * assumptions.workers) / 3600
            cost = (hours * assumptions.workers * price + alone * assumptions.cpu_price) / (n / 1e6)
            rows.append(
                (f"{n:.0e}".replace("e+0", " · 10^"), f"{assumptions.workers} {kind}", f"{hours:,.1f}", f"{alone:,.1f}",
                 f"{n * measured.store_bytes / 1e12:,.1f} TB", f"{cost:,.0f}")
            )  # fmt: skip
    head = ("pairs", "workers of the pass", "hours of the pass", "hours of the first machine alone, 1 process",
            "bytes of the store", "cost per million pairs")  # fmt: skip
    return table(head, rows)


def assumed(assumptions: Assumptions) -> str:
    names = {
        "workers": "`--workers`: machines or GPUs that share the pass",
        "cpu_price": "`--cpu-price`: an hour of a machine like the one measured",
        "gpu_price": "`--gpu-price`: an hour of a GPU with its machine",
        "tokens": "`--tokens`: T, tokens of a pair, images included (formula alone)",
        "parameters": "`--parameters`: P, parameters up to layer L (formula alone)",
        "gpu_flops": "`--gpu-flops`: C, operations a second of a GPU in bfloat16 (formula alone)",
        "gpu_use": "`--gpu-use`: u, the share of them that the pass reaches (formula alone)",
    }
    return table(("assumption", "value"), [(text, f"{getattr(assumptions, name):g}") for name, text in names.items()])


def parts(result: dict[str, Any]) -> str:
    """Memory and seconds of `precompute` by part and number of rows."""
    whole = result["runs"]["precompute"]
    sizes = sorted(whole, key=int)
    rows: list[Row] = []
    for name in whole[sizes[-1]]["parts"]:
        ends = [whole[n]["parts"][name] for n in sizes]
        rows.append(
            (f"`{name}`", *(f"{one['peak'] / 1e6:,.0f}" for one in ends), *(f"{one['seconds']:,.1f}" for one in ends))
        )
    head = ("part", *(f"{int(n):,} rows: MB" for n in sizes), *(f"{int(n):,} rows: s" for n in sizes))
    return table(head, rows)


def others(result: dict[str, Any]) -> str:
    """The same of the other commands and forms of data."""
    rows: list[Row] = []
    for name, of_sizes in result["runs"].items():
        if name != "precompute":
            for n, one in sorted(of_sizes.items(), key=lambda item: int(item[0])):
                seconds = sum(part["seconds"] for part in one["parts"].values())
                rows.append(
                    (
                        f"`{name}`",
                        f"{int(n):,}",
                        f"{max(p['peak'] for p in one['parts'].values()) / 1e6:,.0f}",
                        f"{seconds:,.1f}",
                    )
                )
    return table(("command", "rows", "MB", "s"), rows)


def rendered(page: str) -> str:
    result, assumptions = read("bench-rows"), Assumptions()
    bodies = {
        "rows": parts(result),
        "others": others(result),
        "forecast": forecast(rates(), assumptions),
        "assumptions": assumed(assumptions),
        "made": runs([read(f"bench-{name}") for name in ("rows", "collect", "forecast", "ray_pool")]),
    }
    return splice(page, bodies, PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale_report")
    parser.add_argument("--check", action="store_true", help="exit 1 where the page is stale")
    for name, value in Assumptions._field_defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    chosen = vars(parser.parse_args())
    chosen.pop("check")
    assumptions = Assumptions(**chosen)
    if assumptions != Assumptions():
        print(forecast(rates(), assumptions))
        return
    command(PAGE, rendered, "tests.bench.scale_report")


if __name__ == "__main__":
    main()
