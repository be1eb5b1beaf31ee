"""Lines of the scorecard from files that other commands wrote: patches, hallucination, steering."""

from pathlib import Path
from typing import Any

from precompute.errors import SaevxError
from precompute.options.evaluate import EvaluateOptions
from precompute.store.companion_files import HALLUCINATION, companion_path, read_companion
from precompute.store.opening import read_manifest
from precompute.training.scorecard_store import Better, Figure
from precompute.utils.reading import read_result

FROM_FILES = ("patches", "hallucination", "steering")
PATCH_SCORE = "cosine-cross-modal"
"""The patch score of the scorecard's line on patches: ω over the features that are cross-modal."""


def of_files(o: EvaluateOptions) -> dict[str, list[Figure]]:
    """The figures of each line.

    Raises:
        SaevxError: an option is not of its form, or a file does not hold the figures.
    """
    by_line = {line: [from_line(line, o)] for line in FROM_FILES}
    if o.patches is not None:
        by_line["patches"] = patches_figures(o.patches)
    if o.hallucination is not None:
        by_line["hallucination"] = hallucination_figures(read_result(o.hallucination), o.hallucination)
    elif o.store is not None and by_line["hallucination"][0].estimate is None:
        content, _ = read_companion(o.store, HALLUCINATION, read_manifest(o.store)["content_id"])
        if content is not None:
            by_line["hallucination"] = hallucination_figures(content, companion_path(o.store, HALLUCINATION))
    return by_line


def from_line(line: str, o: EvaluateOptions) -> Figure:
    """The figure that `--line` names, or what it takes."""
    for text in o.line:
        name, _, where = text.partition("=")
        file, _, path = where.rpartition("#")
        if name not in FROM_FILES or not file or not path:
            raise SaevxError(f"--line takes NAME=FILE#PATH with a NAME of {', '.join(FROM_FILES)}, not {text!r}.")
        if name == line:
            value = read_result(Path(file))
            for key in path.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            estimate = value if isinstance(value, dict) else {"value": value}
            numbers = [estimate.get("value"), estimate.get("low", 0.0), estimate.get("high", 0.0)]
            if not all(isinstance(number, int | float) for number in numbers):
                raise SaevxError(f"{file} has no figure at {path}: name a number, or one with value, low and high.")
            note = f"{path.replace('.', ', ')} in {Path(file).name}."
            return Figure(line, path.rpartition(".")[2], estimate, note, None)
    needs = {"patches": "--patches FILE", "hallucination": "--hallucination FILE"}
    return Figure.unmeasured(line, needs.get(line, f"--line {line}=FILE#PATH"))


def patches_figures(path: Path) -> list[Figure]:
    """Sufficiency and necessity of the best patches by `PATCH_SCORE`, fewest first, in the first way of removing."""
    content, entries = read_result(path), "an entry of cosine-cross-modal and of random"
    figures = []
    ways: tuple[tuple[str, str, str, str, Better], ...] = (
        ("kept", "keep", "with the best {:g} % alone", "--keep", "higher"),
        ("knocked_out", "knock_out", "without the best {:g} %", "--knock-out", "lower"),
    )
    for part, percent, name, needs, direction in ways:
        try:
            by_percent = sorted(content.get(part, []), key=lambda e: e[percent])
            of_score, chance = (
                next((e for e in by_percent if e["score"] == score), None) for score in (PATCH_SCORE, "random")
            )
            if of_score is None or chance is None:
                note = f"The file has not {entries}: run `saevx patches` with {needs} 25."
                figures.append(Figure("patches", name.format(25), None, note, direction))
                continue
            control = "–" if chance["of_full"] is None else f"{chance['of_full']['value']:.3f}"
            note = f"Accuracy, of that with all patches; others removed by {of_score['removed']}. "
            note += f"Random patches: {control}."
            figures.append(Figure("patches", name.format(of_score[percent]), of_score["of_full"], note, direction))
        except (KeyError, TypeError, AttributeError) as error:
            raise SaevxError(f"{path} is no result of `saevx patches`: name a file that it wrote.") from error
    return figures


def hallucination_figures(content: Any, path: Path) -> list[Figure]:
    """What steering towards right answers changes, less what random features change.

    Args:
        content: what the file at `path` holds.
    """
    changes: tuple[tuple[str, str, Better], ...] = (
        ("hallucinated", "hallucinated answers", "lower"),
        ("accuracy", "right answers", "higher"),
    )
    try:
        towards, differences = content["ways"]["towards right"], content["against_random"]
        baseline = {name: (content["ways"]["not steered"][name] or {}).get("value") for name in differences}
        return [
            Figure(
                "hallucination",
                f"change of {title} by steering",
                differences[name],
                "Less the change that random features of equal length cause. Share when steered "
                f"{number(towards[name] and towards[name]['value'])}, unsteered {number(baseline[name])}.",
                direction,
            )
            for name, title, direction in changes
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SaevxError(
            f"{path} is no result of `saevx experiment hallucination`, or of an older one: run it again."
        ) from error


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
