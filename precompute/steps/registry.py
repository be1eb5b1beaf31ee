"""The steps after `collect` and the function of each. They run in the order of `Step` in options/precompute.py, which
has the words of `--only`; here they stand in the same order."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from precompute.options.precompute import Step
from precompute.steps import cooccur, families, flag, index, label, sample_map, score, weigh

Run = Callable[[Path, dict[str, Any], Mapping[str, Any]], dict[str, Any]]
"""(unfinished store, its manifest, options) → what the manifest gains."""

STEPS: dict[Step, Run] = {
    "weigh": weigh.run,
    "score": score.run,
    "flag": flag.run,
    "cooccur": cooccur.run,
    "index": index.run,
    "sample-map": sample_map.run,
    "families": families.run,
    "label": label.run,
}
