"""What the demo's SAE-V is worth: features for the thirty words, and quality."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from precompute.demo.evaluation.evaluate_model import DemoEvaluation
from precompute.demo.scenes import make_scene
from precompute.demo.training.scene_data import write_pairs
from precompute.demo.training.word_test import words_of
from precompute.demo.training.word_tokens import gather
from precompute.demo.training.words import scenes_with_words
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.sae.sae import SaeV
from precompute.training.evaluate import evaluate


def words(mllm: Mllm, sae: SaeV, o: DemoEvaluation) -> dict[str, Any]:
    """The thirty words on validation scenes."""
    scenes = scenes_with_words("validation", o.n_each_word)
    train_tokens, test_tokens = (gather(mllm, scenes[i::2]) for i in (0, 1))
    rows = words_of(sae, train_tokens, test_tokens, o.seed)
    return {"words": rows, "words_passed": sum(r["passes"] for r in rows.values()), "n_scenes": len(scenes)}


def quality(o: DemoEvaluation) -> dict[str, Any]:
    """What `saevx evaluate` measures on validation scenes: FVU, L0, dead features and loss recovered."""
    with TemporaryDirectory() as scratch:
        pairs = Path(scratch) / "pairs"
        write_pairs(pairs, [make_scene("validation", 50_000 + i) for i in range(200)])
        result = evaluate(
            EvaluateOptions(sae=str(o.sae), model=str(o.model), data=str(pairs), dtype="float32", seed=o.seed)
        )

    def value(group: str, key: str, digits: int = 4) -> float:
        return round(float(result[group][key]["value"]), digits)

    runs = ("original", "zero", "patched", "patched_text", "patched_image")
    parts = {"patched": "all", "patched_text": "text", "patched_image": "image"}
    return {
        "sae_quality": {
            **{
                name: {"fvu": value("fvu", name), "l0": value("l0", name, 1), "dead": result["dead"][name]}
                for name in ("text", "image")
            },
            "dead": result["dead"]["both"],
            "n_features": result["sae"]["n_features"],
            "cross_entropy": {run: value("cross_entropy", run) for run in runs},
            "loss_recovered": {name: value("loss_recovered", part) for name, part in parts.items()},
        }
    }
