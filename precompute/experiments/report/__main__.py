"""Renders docs/results.md and its plots from the committed result files.

python -m precompute.experiments.report          # rewrite
python -m precompute.experiments.report --check  # exit 1 where the page or a plot is stale
"""

from pathlib import Path
from typing import Any

from precompute.demo.evaluation.markdown import RESULTS, read, read_lines, splice
from precompute.errors import SaevxError
from precompute.experiments.report import changes, features, tasks
from precompute.experiments.script import run_script
from precompute.utils.command_line import CommandOptions
from precompute.utils.files import atomic_write, write_text

PAGE = Path("docs/results.md")
IMAGES = Path("docs/img")


def render(results: Path = RESULTS) -> dict[str, str]:
    """Bodies by the name of their marks."""
    controls = read("demo-controls", results) if (results / "demo-controls.json").exists() else {}
    store = read("demo-store", results)
    pairs, patches = read("wrong-pairs", results), read("patches", results)
    filtering, hallucination = read_lines("filtering", results), read("hallucination", results)
    abouts = (hallucination["about"], patches["store"])
    current = {**store["about"], "sae_of": {about["content_id"]: about["sae"] for about in abouts if about.get("sae")}}
    explanation = read("explain", results)
    return {
        "omega": features.omega_part(store),
        "controls": features.controls_part(controls),
        "words": features.words_part(read("demo-evaluation", results)),
        "effect": changes.effect_part(read("demo-effect", results)),
        "explain": store_note(explanation["about"], current) + changes.explain_part(explanation),
        "steering": changes.steering_part(read("demo-steering", results)),
        "wrong-pairs": store_note(pairs["about"], current) + features.pairs_part(pairs),
        "patches": store_note(patches["store"], current) + tasks.patches_part(patches),
        "filtering": store_note(filtering[0]["about"], current) + tasks.filtering_part(filtering[1:]),
        "hallucination": store_note(hallucination["about"], current) + tasks.hallucination_part(hallucination),
        "figure3": tasks.figure3_part(read_lines("figure3", results)),
    }


def store_note(about: dict[str, Any], current: dict[str, Any]) -> str:
    """Says where a result is not of the SAE-V that the page's other figures describe.

    Args:
        about: `content_id` of the store, and `sae`, the SAE's checksum, where the file has it.
        current: the same of the demo's store, with `sae_of`: content id → SAE of the stores of other files.
    """
    sae = about.get("sae") or current.get("sae_of", {}).get(about["content_id"])
    if about["content_id"] == current["content_id"] or sae == current["sae"]:
        return ""
    return (
        f"**Measured on an earlier store of the demo** (content id `{about['content_id'][:8]}`), before its SAE-V "
        f"was trained again (`{current['content_id'][:8]}`). The command measures it on the new one.\n\n"
    )


def plot(results: Path = RESULTS) -> dict[str, bytes]:
    """SVG by file name."""
    figures = {
        "omega": features.omega_plot(read("demo-store", results)),
        "wrong-pairs": features.pairs_plot(read("wrong-pairs", results)),
        "patches": tasks.patches_plot(read("patches", results)),
        "filtering": tasks.filtering_plot(read_lines("filtering", results)[1:]),
        "figure3": tasks.figure3_plot(read_lines("figure3", results)),
    }
    return {f"results-{name}.svg": svg for name, svg in figures.items()}


class Options(CommandOptions):
    """Whether the page is written or only checked."""

    check: bool = False
    """Write nothing; exit with 1 where the page or a plot is stale."""

    def cli_cmd(self) -> None:
        old_text = PAGE.read_text(encoding="utf-8")
        new_text, plots = splice(old_text, render(), PAGE), plot()
        if self.check:
            stale_files = [PAGE] * (old_text != new_text)
            paths = {IMAGES / name: svg for name, svg in plots.items()}
            stale_files += [path for path, svg in paths.items() if not path.exists() or path.read_bytes() != svg]
            if stale_files:
                raise SaevxError(f"{stale_files[0]} is stale: run python -m precompute.experiments.report.")
            return
        write_text(PAGE, new_text)
        for name, svg in plots.items():
            with atomic_write(IMAGES / name) as file:
                file.write(svg)


if __name__ == "__main__":
    run_script(Options, __doc__)
