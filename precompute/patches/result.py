"""Files of `saevx patches`: outcomes as they come, so that a killed run goes on, and the result made of them."""

import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from precompute.data.records import RejectedRow
from precompute.model.mllm import Mllm
from precompute.model.vision import SOURCES
from precompute.options.patches import PatchesOptions
from precompute.options.shared import NAMED_COLUMNS
from precompute.patches import ranking as patches
from precompute.patches.ranking import FULL, NONE, WITHOUT, Variant
from precompute.store.reader import Store
from precompute.utils.ownership import claim_folder
from precompute.utils.provenance import code_version, machine, plain_name

PLAN, OUTCOMES = "plan.json", "outcomes.jsonl"
NAMED = 100
"""Rejected rows that the result names; it counts all."""
REPEATED_OPTIONS = {"answer_column", "keep", "knock_out", "removed", "max_samples", "resamples", "seed"}
"""Options that the result repeats, besides the columns that were named; none is a path."""


class Answered(NamedTuple):
    """One question's outcome."""

    sample_id: str
    kind: str | None
    n_patches: int
    vision: str
    hit: list[bool]
    """Of each variant, in the order of `variants`."""
    pixels: list[float]


def variants(o: PatchesOptions) -> list[Variant]:
    """Every way in which a question is put."""
    ways, percents = list(dict.fromkeys(o.removed)), sorted(set(o.keep), reverse=True)
    names = (*patches.SCORES, *patches.CONTROLS)
    some_patches = [(name, k, way) for way in ways for name in names for k in percents]
    knock_outs = [(WITHOUT + name, k, way) for way in ways for name in names for k in sorted(set(o.knock_out))]
    return [FULL, *((NONE, 0.0, way) for way in ways), *some_patches, *knock_outs]


class Outcomes:
    """The folder of an unfinished run: its fingerprint, and a file with a line for each question answered."""

    def __init__(self, part: Path, run_fingerprint: str) -> None:
        self.part, self.fingerprint = part, run_fingerprint
        self.outcome_of: dict[str, Answered] = {}

    def __enter__(self) -> Self:
        claim_folder(self.part, self.fingerprint, PLAN, what="run", depends_on="data, store or options")
        self.file = (self.part / OUTCOMES).open("a+b")
        self.file.seek(0)
        complete = [line for line in self.file if line.endswith(b"\n")]  # a killed run may have cut the last one short
        self.outcome_of = {o.sample_id: o for o in (Answered(**json.loads(line)) for line in complete)}
        self.file.truncate(sum(map(len, complete)))
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if not self.outcome_of:
            shutil.rmtree(self.part)

    def add(self, outcome: Answered) -> None:
        self.outcome_of[outcome.sample_id] = outcome
        self.file.write(json.dumps(outcome._asdict()).encode() + b"\n")
        self.file.flush()


def result(
    o: PatchesOptions, store: Store, mllm: Mllm, outcomes: list[Answered], rejected_rows: list[RejectedRow]
) -> dict[str, Any]:
    """The JSON; docs/patches.md says what its fields are."""
    hit_nv, pixels_nv = np.array([r.hit for r in outcomes]), np.array([r.pixels for r in outcomes])
    n_patches = [r.n_patches for r in outcomes]
    manifest, order = store.manifest, variants(o)
    figures = patches.figures(
        dict(zip(order, hit_nv.T, strict=True)),
        dict(zip(order, pixels_nv.T, strict=True)),
        [r.kind for r in outcomes],
        o.resamples,
        o.seed,
    )
    return {
        "about": {
            "command": "saevx patches DATA --store STORE --out FILE",
            "options": {
                **o.model_dump(mode="json", include=REPEATED_OPTIONS, exclude_none=True),
                **o.model_dump(mode="json", include=NAMED_COLUMNS, exclude_defaults=True),
            },
            "version": code_version(),
            "torch": torch.__version__,
            "machine": machine(),
            "device": mllm.device.type,
            "dtype": str(mllm.dtype).removeprefix("torch."),
        },
        "store": {
            "name": manifest["name"],
            "content_id": manifest["content_id"],
            "sae": manifest["sae"]["sha256"],
        },
        "data": {
            "name": plain_name(o.data),
            "questions": len(outcomes),
            "patches": {
                "mean": patches.round_value(np.mean(n_patches)),
                "least": min(n_patches),
                "most": max(n_patches),
            },
            "set_aside": {
                "n": len(rejected_rows),
                "reasons": dict(sorted(Counter(r.reason for r in rejected_rows).items())),
                "first": [asdict(r) for r in rejected_rows[:NAMED]],
            },
        },
        "scores": {**patches.SCORES, **patches.CONTROLS},
        "vision_norm": {
            source: {"what": SOURCES[source], "questions": n}
            for source, n in sorted(Counter(r.vision for r in outcomes).items())
        },
        **figures,
    }


def closing_lines(summary: dict[str, Any]) -> list[str]:
    """Lines for a person."""
    n_rejected = summary["data"]["set_aside"]["n"]
    lines = [
        f"{summary['data']['questions']} questions, {n_rejected} rows rejected; right with the whole image "
        f"{summary['full']['accuracy']:.3f}, with no patch {summary['none']['accuracy']:.3f}",
        f"{'score':<20}{'removed':<8}{'kept':>6}  accuracy (95 %)          of full",
    ]
    for item in [*summary["kept"], *summary.get("knocked_out", [])]:
        ratio = "–" if item["of_full"] is None else f"{item['of_full']['value']:.2f}"
        span = f"{item['accuracy']:.3f} ({item['low']:.3f} to {item['high']:.3f})"
        share = item["keep"] if "keep" in item else 100 - item["knock_out"]
        name = "-" * ("knock_out" in item) + item["score"]
        lines.append(f"{name:<20}{item['removed']:<8}{share:>4g} %  {span:<24} {ratio}")
    if summary.get("knocked_out"):
        lines.append("Scores after a minus: the best patches are left out, the others stay.")
    return lines
