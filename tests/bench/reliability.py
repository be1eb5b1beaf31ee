"""What `docs/reliability.md` tells: trials in which something could be lost, or somebody let in who should not be."""

from __future__ import annotations

from typing import Any

from tests.bench._trials import Trial, flips, fuzzed, killed, load, passed
from tests.bench.common import Figure, Setup
from tests.helpers import synthetic, tiny, tiny_demo

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
    small, scratch = setup.small, setup.scratch
    options = {
        "kills": 1 if small else 20, "flips": 3 if small else 200, "requests": 60 if small else 5000,
        "clients": 2 if small else 32, "seconds": 1 if small else 30,
    }  # fmt: skip
    command = "saevx bench reliability"
    trials = [*kills(setup, options["kills"], command)]
    synthetic.write_store(scratch / "store", n=80)
    n = options["requests"]
    how = "odd values in every parameter, path and body of each operation of the API; no internal error"
    trials.append(Trial("requests of a fuzzer are answered", n, fuzzed(scratch / "store", n), how, command))
    what = load(scratch / "store", scratch / "log.txt", options["clients"], options["seconds"])
    how = (
        f"{options['clients']} clients browse for {options['seconds']} s, a made-up store of 128 features; memory grew "
        f"by {what['grown_mb']:g} MB in the second half"
    )
    n = int(what["requests"])
    trials.append(Trial("requests under load are answered", n, n - int(what["failed"]), how, command))
    how = "one bit at random in any file of a store, the manifest and images included; `saevx verify` finds it"
    n = options["flips"]
    trials.append(Trial("changed bits are found", n, flips(scratch / "store", n), how, command))
    for name, files in ({} if small else SUITES).items():
        tried, held = passed(files, scratch)
        trials.append(Trial(name, tried, held, "cases of the test suite", f"pytest {' '.join(files)}"))
    return {"options": options, "trials": [one._asdict() for one in trials], "figures": [*map(figure, trials)]}


def kills(setup: Setup, n: int, command: str) -> list[Trial]:
    """Of the pass and of scoring, on forty pairs and a model with random weights."""
    root = setup.scratch / "tiny"
    tiny_demo.make(root)
    options = ("--model", root / "model", "--sae", root / "sae", "--device", "cpu", "--nll", "--sinks", "keep")
    args = ("precompute", root / "data", *options, "--shard-samples", 5, "--name", "store")
    how = "kill -9 at random moments, up to four times a run; the same command again gives an undisturbed run's bytes"
    trials = [Trial("kills of `precompute` are survived", *killed(args, setup.scratch / "killed", n), how, command)]
    if setup.small:
        return trials
    data = tiny.make_data(setup.scratch / "new", 60)
    args = ("score", data, "--store", root / "store", "--device", "cpu")
    scored = killed(args, setup.scratch / "scores.jsonl", n)
    return [*trials, Trial("kills of `score` are survived", *scored, how, command)]


def figure(trial: Trial) -> Figure:
    return Figure(what=trial.what, value=trial.held, unit="", goal=trial.tried, sense="=", note=trial.how)
