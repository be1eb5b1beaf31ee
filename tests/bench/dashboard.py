"""A whole `saevx precompute` against SAEDashboard 0.8: what it takes to make the data of all features, on the same text
(128 documents of 128 tokens; 1,024 for the job of `saevx bench throughput`), model, layer, SAE, number type and
machine; and whether the top examples are the same.

SAEDashboard wants older packages than this project, so it runs in an environment of its own (_sae_dashboard.py). The
benchmark makes one for itself, which takes minutes and a package index; to keep one, make it as follows and name its
Python in SAEVX_DASHBOARD_PYTHON:

    python -m venv dash
    dash/bin/pip install sae-dashboard==0.8.0 sae-lens==6.54.0 transformers==4.56.2 torch==2.13.0 'numpy<2' 'pyarrow<21'
    dash/bin/pip uninstall -y torchvision torchaudio

(The last two are asked for but not used, and a build that does not fit torch breaks transformers.)

The model is the demo's language model to layer 10. The SAEs have random directions, of which 45 are active at a token,
32 in the job of `throughput`.
Neither side's start of Python, imports and first call are timed. On our side all else is: loading the model, planning,
writing and verifying the store. On its side loading the model is not. It takes features batch by batch, so it is run on
the first 512 of them (256 in that job) and the rest reckoned: every batch costs the same, and
with its cache the first one costs the model's forward in addition.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.model.batch import TEXT
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store import schema
from precompute.store.events import of_bits
from precompute.store.reader import Store
from tests.bench._dashboard_inputs import ACTIVE, corpus, hidden, language_model, random_sae
from tests.bench._same_examples import Examples, different
from tests.bench.common import Figure, Setup

VARIABLE = "SAEVX_DASHBOARD_PYTHON"
PACKAGES = (
    "sae-dashboard==0.8.0", "sae-lens==6.54.0", "transformers==4.56.2", "torch==2.13.0", "numpy<2", "pyarrow<21",
)  # fmt: skip
UNUSED = ("torchvision", "torchaudio")
GOALS = {
    4608: {"default": 50.0, "cache": 25.0},
    16384: {"default": 150.0, "cache": 75.0},
    65536: {"default": 300.0, "cache": 150.0},
}
WAYS = {"default": "SAEDashboard by default", "cache": "SAEDashboard with its cache"}


class Size(NamedTuple):
    documents: int
    layer: int
    features: tuple[int, ...]
    """Of the SAEs."""
    architectures: tuple[str, ...]
    run: int
    """Features that SAEDashboard is run on."""
    batch: int
    """Of them at a time."""
    compared: int
    rounds: int
    active: int = ACTIVE
    """Features active at a token."""


FULL = (
    Size(128, 10, (4608, 16384), ("standard", "topk"), 512, 128, 200, 2),
    Size(1024, 10, (65536,), ("topk",), 256, 128, 200, 1, active=32),  # the job of throughput.py
)
SMALL = (Size(16, 1, (256,), ("standard",), 64, 32, 32, 1), Size(20, 1, (512,), ("topk",), 64, 32, 32, 1, active=8))


class Job(NamedTuple):
    """Both sides' seconds on each SAE of a size, and the features whose examples differ; by the SAE's name."""

    seconds: dict[str, Any]
    differ: dict[str, list[int]]
    n_tokens: int


def run(setup: Setup) -> dict[str, Any]:
    sizes = SMALL if setup.small else FULL
    python = dashboard_python(setup)
    mllm = language_model(setup, sizes[0].layer)
    jobs = [compared(setup, python, size, mllm) for size in sizes]
    figures: list[Figure] = []
    for size, job in zip(sizes, jobs, strict=True):
        for name, of_name in job.seconds.items():
            figures += ratios(name, size, job.n_tokens, of_name)
    n_compared = sum(size.compared * len(size.features) * len(size.architectures) for size in sizes)
    n_differ = sum(len(features) for job in jobs for features in job.differ.values())
    figures.append({
        "what": f"features of {n_compared} whose strongest documents are not SAEDashboard's, but for ties",
        "value": None if python is None else float(n_differ),
        "unit": "", "goal": 0.0, "sense": "=",
        "note": f"{sizes[0].compared} by chance of the features that it was run on, of each SAE; the documents of "
        f"SAEDashboard's 20 strongest tokens and their activations; a tie is what float16 does not tell apart"
        if python is not None else without(),
    })  # fmt: skip
    return {
        "options": {
            "documents": [size.documents for size in sizes], "features": [size.features for size in sizes],
            "layer": sizes[0].layer, "run": [size.run for size in sizes], "batch": sizes[0].batch, "dtype": "float32",
        },
        "figures": figures,
        "seconds": {name: of_name for job in jobs for name, of_name in job.seconds.items()},
        "differ": {name: features for job in jobs for name, features in job.differ.items()},
    }  # fmt: skip


def compared(setup: Setup, python: str | None, size: Size, mllm: Mllm) -> Job:
    """Both sides on every SAE of a size."""
    documents, tokens = corpus(setup, mllm, size.documents, again=True)
    np.save(setup.scratch / "tokens.npy", tokens)
    hidden_td = hidden(mllm, documents)
    few = setup.scratch / "few.jsonl"
    few.write_text("".join(documents.read_text().splitlines(keepends=True)[:4]))
    seconds: dict[str, Any] = {}
    differ: dict[str, list[int]] = {}
    for n_features in size.features:
        for architecture in size.architectures:
            name = f"{architecture} {n_features}"
            folder = setup.scratch / f"sae-{name}"
            sae = random_sae(folder, hidden_td, size.layer, n_features, architecture, active=size.active)
            if not setup.small:
                ours(setup, few, sae)  # whatever a library does once is not what is measured
            report, bare = [], []
            for _ in range(size.rounds):
                report.append(ours(setup, documents, sae))
                bare.append(products(int(tokens.size), n_features, mllm))
            theirs = None if python is None else dashboard(setup, python, size, mllm, sae)
            seconds[name] = {
                "ours": [one["seconds_total"] for one in report],
                "forward": [one["collect"]["forward_seconds"] for one in report],
                "products": bare,
                "steps": [one["seconds"] for one in report],
            }
            if theirs is not None:
                seconds[name] |= theirs["seconds"]
                differ[name] = different(strongest(setup, size.run), theirs["examples"], size.compared, tokens)
    return Job(seconds, differ, int(tokens.size))


def without() -> str:
    return f"not measured: {VARIABLE} names no Python with SAEDashboard"


def ratios(name: str, size: Size, n_tokens: int, seconds: dict[str, Any]) -> list[Figure]:
    """Seconds that SAEDashboard takes for all features over ours, by default and with its cache."""
    mine, n_features = float(np.median(seconds["ours"])), int(name.split()[-1])
    result: list[Figure] = []
    for way, message in WAYS.items():
        value, note = None, without()
        if way in seconds:
            theirs = extrapolated(seconds[way], n_features // size.batch, once=way == "cache")
            value = theirs / mine
            note = (
                f"{n_tokens} tokens; {theirs:.0f} s, reckoned from {size.run} features, over {mine:.1f} s, all of "
                "`saevx precompute`, "
                f"{np.median(seconds['forward']):.1f} s of them the model's forward"
            )
        result.append({
            "what": f"{message} over the pass, {name} features", "value": value, "unit": "×",
            "goal": goal(n_features, way), "sense": "≥", "note": note,
        })  # fmt: skip
    return result


def goal(n_features: int, way: str) -> float:
    return GOALS.get(n_features, GOALS[4608])[way]


def extrapolated(seconds: list[float], n_batches: int, *, once: bool) -> float:
    """Seconds of all batches from those of a few; `once` where the first has costs that do not come again."""
    if once:
        return seconds[0] + (n_batches - 1) * float(np.mean(seconds[1:]))
    return n_batches * float(np.mean(seconds))


# ---- both sides


def ours(setup: Setup, documents: Path, sae: Path) -> dict[str, Any]:
    """run.json of a whole run, its store left in scratch; `seconds_total` with loading and verifying."""
    store = setup.scratch / "store"
    shutil.rmtree(store, ignore_errors=True)
    options = PrecomputeOptions(
        data=str(documents), model=str(setup.scratch / "lm"), sae=str(sae), out=store, name="bench", sinks="keep",
        device=setup.device, dtype="float32",
    )  # fmt: skip
    begin = time.perf_counter()
    precompute(options)
    seconds = time.perf_counter() - begin
    report: dict[str, Any] = json.loads((store / "run.json").read_text())
    return report | {"seconds_total": seconds}


def products(n_tokens: int, n_features: int, mllm: Mllm) -> float:
    """Seconds of the two products, in float32, that no program goes without that shows features with their examples and
    their logits: all tokens by the encoder's weights, all directions by the unembedding's. By pieces of 32 MB, of which
    nothing is kept or looked at."""
    vocabulary_vd = mllm.logit_lens_weights()[1]
    rng = torch.Generator().manual_seed(0)
    hidden_td = torch.randn(n_tokens, mllm.d_model, generator=rng)
    encoder_df = torch.randn(mllm.d_model, n_features, generator=rng)
    decoder_fd = torch.randn(n_features, mllm.d_model, generator=rng)
    begin = time.perf_counter()
    for left, right in ((hidden_td, encoder_df), (decoder_fd, vocabulary_vd.T)):
        for subset in left.split((1 << 23) // right.shape[1]):
            subset @ right
    return time.perf_counter() - begin


def strongest(setup: Setup, n_features: int) -> Examples:
    """Our examples of the first features: each a document by its strongest token, those with the same text around it
    folded."""
    store = Store.open(setup.scratch / "store")
    e, sample = schema.examples.c, schema.samples.c
    query = (
        select(e.feature, sample.sample_id, e.position, e.value)
        .join(schema.samples, sample.row == e.row)
        .where(e.band == -1, e.modality == TEXT, e.feature < n_features)
    )
    result: Examples = {}
    with store.engine.connect() as connection:
        for feature, sample_id, position, value in connection.execute(query):
            z = float(of_bits(value)) * store.events.unit
            result.setdefault(feature, {})[int(sample_id), position] = z
    store.close()
    return result


def dashboard(setup: Setup, python: str, size: Size, mllm: Mllm, sae: Path) -> dict[str, Any]:
    """What _sae_dashboard.py found."""
    scratch = setup.scratch / "dashboard"
    scratch.mkdir()
    job = {
        "model": str(setup.scratch / "lm"), "sae": str(sae), "tokens": str(setup.scratch / "tokens.npy"),
        "hook": f"blocks.{size.layer}.hook_resid_post", "features": size.run, "batch_features": size.batch,
        "ignore": mllm.special_ids.tolist(), "device": setup.device, "threads": torch.get_num_threads(),
        "scratch": str(scratch),
    }  # fmt: skip
    (scratch / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("_sae_dashboard.py")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "ignore", str(script), str(scratch / "job.json"), str(scratch / "result.json")],
        env={**own, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SaevxError(f"SAEDashboard did not run in {python}: {(done.stderr.strip() or '?').splitlines()[-1]}")
    result = json.loads((scratch / "result.json").read_text())
    shutil.rmtree(scratch)
    examples = {
        int(feature): {(document, position): value for document, position, value in places}
        for feature, places in result["examples"].items()
    }
    return {"seconds": result["seconds"], "examples": examples}


def dashboard_python(setup: Setup) -> str | None:
    """A Python that has SAEDashboard; None in CI, where nothing is installed from a network."""
    named = os.environ.get(VARIABLE)
    if named and shutil.which(named) is None:
        raise SaevxError(f"{VARIABLE} is {named!r}, which cannot be run: name the Python that has SAEDashboard.")
    if named or setup.small:
        return named or None
    python = setup.scratch / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(setup.scratch / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNUSED],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SaevxError(
                f"SAEDashboard's environment cannot be made ({(done.stderr.strip() or '?').splitlines()[-1]}): "
                f"make one as {Path(__file__).name} says and name its Python in {VARIABLE}."
            )
    return str(python)
