"""What a GPU shows that nothing else can, in under 8 minutes on one: `python -m tests.bench.gpu`.

Parts, each written to docs/results/bench-gpu.json as soon as it is measured, so that a run that was cut off goes on
where it stopped:

- `accumulators`: their tests, on CUDA too.
- `image`: `collect` over the bare forward of a LLaVA-NeXT of Mistral-7B's shape, its first 17 layers, random weights
  in bfloat16, and a TopK SAE of 65,536 features.
- `text`: the same of a language model of a billion parameters and 262,144 features.
- `throughput`: features × tokens a second of a whole run of it with 65,536 features, store verified.

Without a GPU, or with --small, all of it runs at its smallest size, to see that it works; those figures mean nothing
and go nowhere but to --out. A measurement wants a checkout without changes, so that Git's hash of its
tree says what was measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from precompute.demo.evaluation.markdown import RESULTS
from precompute.errors import SaevxError
from tests.bench import _gpu_inputs as inputs
from tests.bench.common import machine
from tests.bench.run import write

OUT = RESULTS / "bench-gpu.json"
TESTS = "tests/precompute/collect/test_accumulate.py"
SMALL_TESTS = f"{TESTS}::test_naive_reference"
Part = Callable[[inputs.Size, Path], dict[str, Any]]


def accumulators(size: inputs.Size, _folder: Path) -> dict[str, Any]:
    """Whether the accumulators' tests pass; they take CUDA where there is one."""
    tests = SMALL_TESTS if size is inputs.SMALL else TESTS
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", tests]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SaevxError(f"The accumulators' tests fail here: run `pytest {TESTS}`.")
    return {"device": size.device, "summary": done.stdout.strip().splitlines()[-1].split(" in ")[0]}


def image(size: inputs.Size, folder: Path) -> dict[str, Any]:
    """`collect` over the bare forward of an image model."""
    model = inputs.llava_next(size, folder / "model")
    data = inputs.pairs(size, folder / "data")
    return inputs.beside(size, model, data, size.image_features, folder)


def text(size: inputs.Size, folder: Path) -> dict[str, Any]:
    """`collect` over the bare forward of a language model."""
    model = inputs.language_model(size, folder / "model")
    data = inputs.documents(size, folder / "documents.jsonl")
    return inputs.beside(size, model, data, size.text_features, folder)


def throughput(size: inputs.Size, folder: Path) -> dict[str, Any]:
    """Features × tokens a second from loading the model to the verified store."""
    model = inputs.language_model(size, folder / "model")
    data = inputs.documents(size, folder / "documents.jsonl")
    return inputs.whole_run(size, model, data, folder)


PARTS: dict[str, Part] = {"accumulators": accumulators, "image": image, "text": text, "throughput": throughput}


def measured_tree(folder: Path = Path()) -> str:
    """Git's hash of all files that are measured, the same in every clone. Raises SaevxError where the checkout has
    changes."""
    changes = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    if changes.stdout.strip():
        raise SaevxError("The checkout has changes that no commit holds: commit or remove them, then measure.")
    head = subprocess.run(["git", "rev-parse", "HEAD^{tree}"], cwd=folder, capture_output=True, text=True, check=True)
    return head.stdout.strip()


def measure(out: Path, *, small: bool, parts: list[str] | None = None) -> dict[str, Any]:
    """The result with every part; those that the file has already, of the same files, are not measured again."""
    size = inputs.SMALL if small else inputs.FULL
    result: dict[str, Any] = {"name": "gpu", "tree": None if small else measured_tree(), "small": small, "parts": {}}
    if out.exists():
        before = json.loads(out.read_text())
        if (before["tree"], before["small"]) == (result["tree"], small):
            result["parts"] = before["parts"]
    for name in parts or list(PARTS):
        if name in result["parts"]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            measured = PARTS[name](size, Path(folder))
        result["parts"][name] = {**measured, "took_s": round(time.perf_counter() - begin, 1)}
        result["machine"] = machine()
        write(result, out)
        print(f"{name}: {result['parts'][name]}", flush=True)
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help=f"result file; default: {OUT}")
    parser.add_argument("--small", action="store_true", help="the smallest size, which is the default without a GPU")
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be given several times")
    chosen = parser.parse_args(arguments)
    small = chosen.small or not torch.cuda.is_available()
    if small and chosen.out is None:
        print("error: figures of the smallest size are no evidence: name a file for them with --out.", file=sys.stderr)
        return 1
    try:
        measure(chosen.out or OUT, small=small, parts=chosen.part)
    except SaevxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
