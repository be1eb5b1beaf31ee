"""Measures the demo's model and SAE-V on scenes that neither has seen.

    python -m precompute.demo.evaluation.evaluate --model demo/model --sae demo/sae

Each part writes its figures to docs/results/demo-evaluation.json when it ends; `--only` measures one again.
"""

from pydantic_settings import CliApp

from precompute.demo.evaluation.evaluate_model import DemoEvaluation, captions, vqa
from precompute.demo.evaluation.evaluate_sae import quality, words
from precompute.demo.evaluation.results import Results
from precompute.demo.scenes import OBJECTS, SHAPES
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV


def main() -> None:
    o = CliApp.run(DemoEvaluation)
    results = Results(o.out, "precompute.demo.evaluation.evaluate", o, {"model", "sae", "out", "only"}, o.only)
    results.figures["about"] |= {"n_objects": len(OBJECTS), "n_shapes": len(SHAPES)}
    sae = SaeV.load(o.sae) if o.sae.exists() else None
    mllm = Mllm.load(o.model, layer=sae.layer if sae else 10, full=True, dtype="float32")
    results.measure("captions", lambda: captions(mllm, o))
    results.measure("vqa", lambda: vqa(mllm, o))
    if sae is not None:
        results.measure("words", lambda: words(mllm, sae, o))
        results.measure("quality", lambda: quality(o))


if __name__ == "__main__":
    main()
