"""Memory and seconds by the number of rows: whole commands over made-up pairs, their model replaced by recorded
activations (_recorded.py), each in a process of its own.

The whole pass over a million pairs takes an hour: SAEVX_BENCH_ROWS=100000 runs it over fewer. Reading and planning a
folder takes minutes, so it goes up to the million in any case; training and the other forms of data go to 100,000.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from precompute.utils.files import write_text
from tests.bench._rows import measured
from tests.bench.common import TREE, Figure, Setup
from tests.helpers import tiny

N_IMAGES = 1000
"""Small image files that all pairs share."""
WORDS = (4, 13)
"""Words of a caption: from, below; a number behind them makes it the only one of its kind."""
SIZES, SMALL_SIZES = (1_000, 10_000, 100_000, 1_000_000), (60, 240)
MOST_TRAINED = 100_000
"""Rows up to which `train`, and reading the other forms, are measured."""
FORMS = ("folder", "parquet", "tar")
COMMANDS = ("precompute", "score", "train", *(f"prepare {form}" for form in FORMS))
GOAL, GOAL_ROWS = 1500.0, 1_000_000
ROWS = (sys.executable, "-m", "tests.bench._rows")
PASS = ("collect", "merge")


def run(setup: Setup) -> dict[str, Any]:
    most = int(os.environ.get("SAEVX_BENCH_ROWS", SIZES[-1]))
    sizes = SMALL_SIZES if setup.small else tuple(n for n in SIZES if n <= most)
    files = Files(setup, 20 if setup.small else N_IMAGES)
    runs: dict[str, dict[str, Any]] = {name: {} for name in COMMANDS}
    for n in SMALL_SIZES[-1:] if setup.small else SIZES:
        runs["prepare folder"][str(n)] = files.child("prepare", "folder", n, setup.scratch / "no")
    for n in sizes:
        store = (files.results if n == sizes[0] else setup.scratch) / f"store-{n}"  # the first is scored with
        for form in () if setup.small or n > MOST_TRAINED else FORMS[1:]:
            runs[f"prepare {form}"][str(n)] = files.child("prepare", form, n, setup.scratch / "no")
        runs["precompute"][str(n)] = files.child("precompute", "folder", n, store)
        if n == sizes[-1] if setup.small else n <= MOST_TRAINED:
            runs["train"][str(n)] = files.child("train", "folder", n, setup.scratch / f"trained-{n}")
        if n == sizes[0]:
            scores = setup.scratch / f"scores-{n}.jsonl"
            runs["score"][str(n)] = files.child("score", "folder", n, scores, store)
        else:
            shutil.rmtree(store, ignore_errors=True)
    parts = [part for of_sizes in runs.values() for one in of_sizes.values() for part in one["parts"].values()]
    return {
        "took_s": round(sum(part["seconds"] for part in parts), 1),  # of the runs that an earlier try has measured too
        "options": {"rows": f"{sizes[-1]:,}", "images": files.n_images},
        "figures": figures(runs),
        "runs": {name: of_sizes for name, of_sizes in runs.items() if of_sizes},
    }


def figures(runs: dict[str, dict[str, Any]]) -> list[Figure]:
    """Of the result's runs, by command and number of rows."""
    whole = runs["precompute"]
    *_, before, most = sorted(whole, key=int)
    base = whole[most]["base"] / 1e6

    def peak(n: str, names: tuple[str, ...] | None = None) -> float:
        return float(max(one["peak"] for name, one in whole[n]["parts"].items() if names is None or name in names))

    n_planned = max(runs["prepare folder"], key=int)
    planning = runs["prepare folder"][n_planned]["parts"].values()
    planned_peak, planned_seconds = (max(one["peak"] for one in planning), sum(one["seconds"] for one in planning))
    made_up = "made-up pairs, the model's forward replaced by recorded activations"

    def over_all(what: str, names: tuple[str, ...] | None = None) -> Figure:
        parts = {name: one["peak"] for name, one in whole[most]["parts"].items() if names is None or name in names}
        fewer = f"not run; over {int(most):,} rows {peak(most, names) / 1e6:.0f} MB; " if int(most) < GOAL_ROWS else ""
        return {
            "what": f"memory of {what} over {GOAL_ROWS:,} rows, beside model and SAE",
            "value": peak(most, names) / 1e6 if int(most) >= GOAL_ROWS else None, "unit": "MB", "goal": GOAL,
            "sense": "≤", "note": f"{fewer}{made_up}; largest resident set, mapped files included, in the step "
            f"`{max(parts, key=parts.__getitem__)}`, less the {base:.0f} MB of the process with model and SAE loaded",
        }  # fmt: skip

    return [
        over_all("the pass", PASS),
        over_all("the whole `precompute`"),
        {
            "what": f"memory of reading and planning {GOAL_ROWS:,} rows, beside model and SAE",
            "value": planned_peak / 1e6 if int(n_planned) >= GOAL_ROWS else None, "unit": "MB", "goal": GOAL,
            "sense": "≤", "note": f"a folder with metadata.jsonl, and its fingerprint; {planned_seconds:.0f} s",
        },
        {
            "what": f"memory of the pass over {int(most):,} rows over that over {int(before):,}",
            "value": (peak(most, PASS) + whole[most]["base"]) / (peak(before, PASS) + whole[before]["base"]),
            "unit": "×", "goal": 1.05, "sense": "≤",
            "note": f"{made_up}; largest resident set of `collect`, its merge included, model and SAE too: "
            f"{peak(most, PASS) / 1e6:.0f} and {peak(before, PASS) / 1e6:.0f} MB beside them",
        },
    ]  # fmt: skip


class Files:
    """Model, SAE, images and pairs, made when they are first needed; and the commands over them."""

    def __init__(self, setup: Setup, n_images: int) -> None:
        self.folder, self.n_images = setup.scratch, n_images
        self.results = setup.wide.with_name("rows")
        """What commands took, which stays where `--wide` names a folder that stays: a benchmark of hours goes on."""
        self.model, self.sae = tiny.make_llava(self.folder / "model"), tiny.make_sae(self.folder / "sae")
        self.images = [self._image(i) for i in range(n_images)]
        self.environment = {**TREE, "HF_DATASETS_CACHE": str(self.folder / "cache")}
        self.small = setup.small

    def _image(self, number: int) -> bytes:
        file = BytesIO()
        tiny.picture(number).save(file, "PNG")
        return file.getvalue()

    def child(self, what: str, form: str, n: int, out: Path, *more: Path) -> dict[str, Any]:
        """What a command over n pairs took."""
        result = self.results / f"{what}-{form}-{n}.json"
        if not result.exists():
            arguments = [what, *map(str, (self.data(form, n), self.model, self.sae, out, *more))]
            result.parent.mkdir(parents=True, exist_ok=True)
            write_text(result, self._run(arguments) + "\n")
        return dict(json.loads(result.read_text()))

    def _run(self, arguments: list[str]) -> str:
        """The line that _rows.py prints."""
        if self.small:  # here, where everything is imported already; no figure counts
            return json.dumps(measured(*arguments))
        done = subprocess.run([*ROWS, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.splitlines()[-1]

    def data(self, form: str, n: int) -> Path:
        """n pairs as a folder with metadata.jsonl, as a Parquet file, or as tars of ten thousand pairs."""
        path = self.folder / f"{form}-{n}"
        if not path.exists():
            path.mkdir()
            getattr(self, f"_{form}")(path, n)
        return path

    def _captions(self, n: int) -> list[str]:
        rng = np.random.default_rng(n)
        length = rng.integers(*WORDS, n)
        words = np.array(tiny.WORDS)[rng.integers(0, len(tiny.WORDS), (n, WORDS[1]))]
        return [f"{' '.join(words[i, : length[i]])} {i}" for i in range(n)]

    def _folder(self, path: Path, n: int) -> None:
        for i, raw in enumerate(self.images):
            (path / f"{i:03d}.png").write_bytes(raw)
        with (path / "metadata.jsonl").open("w") as file:
            for i, text in enumerate(self._captions(n)):
                row = {"file_name": f"{i % self.n_images:03d}.png", "text": text, "id": f"pair-{i}", "kind": i % 2}
                file.write(json.dumps(row) + "\n")

    def _parquet(self, path: Path, n: int) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        for number, low in enumerate(range(0, n, 100_000)):
            at = range(low, min(low + 100_000, n))
            columns = {
                "image": pa.array([self.images[i % self.n_images] for i in at], pa.binary()),
                "text": self._captions(n)[low : low + 100_000],
                "id": [f"pair-{i}" for i in at],
            }
            parquet.write_table(pa.table(columns), path / f"{number:03d}.parquet")

    def _tar(self, path: Path, n: int) -> None:
        captions = self._captions(n)
        for number, low in enumerate(range(0, n, 10_000)):
            with tarfile.open(path / f"{number:03d}.tar", "w") as tar:
                for i in range(low, min(low + 10_000, n)):
                    for suffix, raw in (("png", self.images[i % self.n_images]), ("txt", captions[i].encode())):
                        member = tarfile.TarInfo(f"pair-{i}.{suffix}")
                        member.size = len(raw)
                        tar.addfile(member, BytesIO(raw))
