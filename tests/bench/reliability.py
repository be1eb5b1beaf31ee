"""What `docs/reliability.md` tells: trials in which something could be lost, or somebody let in who should not be.

Each part can be run alone (`--only kills-of-train`); its rows then take the place of those in the result file.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from precompute.errors import SaevxError
from tests.bench._load import Crowd, load
from tests.bench._trials import Trial, flips, killed, passed, training_log
from tests.bench.common import Figure, Setup
from tests.bench.store import wide
from tests.helpers import synthetic, tiny, tiny_demo
from tests.helpers.fuzzing import fuzz
from tests.helpers.servers import Server

COMMAND = "saevx bench reliability"
KILLED = "kill -9 at random moments, up to four times a run; the same command again gives an undisturbed run's"
SUITES = {
    "attacks on the server are refused": (
        "tests/backend/test_abuse.py", "tests/backend/test_login.py", "tests/backend/test_middleware.py",
    ),
    "models, templates and pickles that bring code run none": (
        "tests/precompute/commands/test_hostile_models.py", "tests/precompute/model/test_chat_template.py",
        "tests/precompute/utils/test_pickles.py",
    ),
    "hostile paths, images and captions are rejected or harmless": (
        "tests/precompute/commands/test_hostile_data.py", "tests/precompute/data/test_paths.py",
        "tests/precompute/data/test_rejections.py", "tests/frontend/test_odd_samples.py",
    ),
    "damaged stores are refused in one sentence": ("tests/precompute/store/test_store_opening.py",),
}  # fmt: skip
"""What tests hold, and their files: one test is one case."""


def run(setup: Setup) -> dict[str, Any]:
    names = setup.only or tuple(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        raise SaevxError(f"There is no part {unknown[0]!r}: choose among {', '.join(PARTS)}.")
    sizes = {name: PARTS[name].small if setup.small else PARTS[name].size for name in names}
    trials: list[Trial] = []
    for name in names:
        if setup.small and not sizes[name]:
            continue
        begin = time.monotonic()
        made = PARTS[name].make(setup, sizes[name], f"{COMMAND} --only {name}")
        took = (time.monotonic() - begin) / max(1, len(made))
        trials += [one._replace(took_s=round(took, 1)) for one in made]
    return joined(setup.before, trials, {name: size for name, size in sizes.items() if size})


def joined(before: dict[str, Any] | None, trials: list[Trial], options: dict[str, int]) -> dict[str, Any]:
    """The result: rows of an earlier one of the same name are replaced, and the others stay."""
    rows = {one["what"]: one for one in (before or {}).get("trials", [])}
    rows |= {one.what: one._asdict() for one in trials}
    fields = Trial._fields
    all_trials = [Trial(**{name: one[name] for name in fields if name in one}) for one in rows.values()]
    earlier = {name: size for name, size in (before or {}).get("options", {}).items() if name in PARTS}
    return {
        "options": {**earlier, **options},
        "trials": [one._asdict() for one in all_trials],
        "figures": [*map(figure, all_trials)],
        # The sum, where all are known: rows of a result from before parts were timed are not.
        "took_s": round(sum(one.took_s for one in all_trials), 1) if all(one.took_s for one in all_trials) else None,
    }


def tiny_root(setup: Setup) -> Path:
    """Model, SAE, forty pairs and their store."""
    root = setup.scratch / "tiny"
    if not root.exists():
        tiny_demo.make(root)
    return root


def kills_of_precompute(setup: Setup, n: int, command: str) -> list[Trial]:
    root = tiny_root(setup)
    options = ("--model", root / "model", "--sae", root / "sae", "--device", "cpu", "--nll", "--sinks", "keep")
    args = ("precompute", root / "data", *options, "--shard-samples", 5, "--name", "store")
    counts = killed(args, setup.scratch / "killed", n)
    return [Trial("kills of `precompute` are survived", *counts, f"{KILLED} bytes", command)]


def kills_of_score(setup: Setup, n: int, command: str) -> list[Trial]:
    data = tiny.make_data(setup.scratch / "new", 60)
    args = ("score", data, "--store", tiny_root(setup) / "store", "--device", "cpu")
    counts = killed(args, setup.scratch / "scores.jsonl", n)
    return [Trial("kills of `score` are survived", *counts, f"{KILLED} bytes", command)]


def kills_of_train(setup: Setup, n: int, command: str) -> list[Trial]:
    root, steps = tiny_root(setup), 20 if setup.small else 200
    args = (
        "train", root / "data", "--model", root / "model", "--layer", tiny.LAYER, "--expansion", 2, "--steps", steps,
        "--batch-size", 64, "--buffer-tokens", 1024, "--log-every", 5, "--checkpoint-every", 10, "--device", "cpu",
    )  # fmt: skip
    counts = killed(args, setup.scratch / "sae", n, training_log)
    return [Trial("kills of `train` are survived", *counts, f"{KILLED} log: every loss and figure", command)]


def fuzzed(setup: Setup, n: int, command: str) -> list[Trial]:
    """Everything is on: the live model, uploads, annotations."""
    folder = setup.scratch / "fuzz"
    folder.mkdir()
    with Server(tiny_root(setup) / "store", "--device", "cpu", log=folder / "log.txt") as server:
        server.wait("/readyz", 120)
        result = fuzz(server.url, folder, examples=n, phases="examples,coverage,fuzzing")
    how = (
        "Schemathesis, valid and invalid requests of each operation, with model, uploads and annotations: no 5xx; "
        "status, media type, headers and body as the OpenAPI says; other methods 405"
    )
    return [Trial("requests of a fuzzer are answered", result.requests, result.requests - result.wrong, how, command)]


def under_load(setup: Setup, n: int, command: str) -> list[Trial]:
    crowd = Crowd(n, 1 if setup.small else 8, 2 if setup.small else 120)
    result = load(wide(setup), tiny_root(setup), setup.scratch / "log.txt", crowd)
    memory = ", ".join(f"{one:.0f}" for one in result.memory_mb)
    how = (
        f"{n} clients browse all kinds of page of the wide store for {crowd.seconds:g} s while {crowd.steering} steer "
        f"({result.steered} runs), 95 % within {result.p95_ms / 1000:.1f} s; {result.busy} answers are 503 with "
        f"Retry-After, other 5xx and no answer fail; memory {memory} MB after each quarter"
    )
    tried = result.requests + sum(": 5" not in one for one in result.failed)
    (setup.scratch / "failed.txt").write_text("\n".join(result.failed))
    for one in result.failed[:20]:
        print(one)
    return [Trial("requests under load are answered", tried, tried - len(result.failed), how, command)]


def changed_bits(setup: Setup, n: int, command: str) -> list[Trial]:
    store = setup.scratch / "flipped"
    synthetic.write_store(store, n=80)
    how = "one bit at random in any file of a store, the manifest and images included; `saevx verify` finds it"
    return [Trial("changed bits are found", n, flips(store, n), how, command)]


def suites(setup: Setup, n: int, command: str) -> list[Trial]:
    return [
        Trial(name, *passed(files, setup.scratch), "cases of the test suite", f"pytest {' '.join(files)}")
        for name, files in SUITES.items()
        if not setup.small
    ]


class Part(NamedTuple):
    """What can be run alone."""

    make: Callable[[Setup, int, str], list[Trial]]
    size: int
    """Kills, examples of an operation, clients, changed bits."""
    small: int
    """The same in CI; 0 where it takes too long for that, or where other tests do it: test_fuzz.py, and the kills of
    `precompute` in test_machine.py."""


PARTS = {
    "kills-of-precompute": Part(kills_of_precompute, 50, 0), "kills-of-score": Part(kills_of_score, 20, 0),
    "kills-of-train": Part(kills_of_train, 20, 1), "fuzz": Part(fuzzed, 20, 0), "load": Part(under_load, 200, 2),
    "flips": Part(changed_bits, 200, 3), "suites": Part(suites, 0, 0),
}  # fmt: skip


def figure(trial: Trial) -> Figure:
    return Figure(what=trial.what, value=trial.held, unit="", goal=trial.tried, sense="=", note=trial.how)
