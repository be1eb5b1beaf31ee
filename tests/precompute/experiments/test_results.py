"""docs/results.md and its plots show what the committed result files say."""

import json
import shutil
from pathlib import Path

import pytest

from precompute.demo.evaluation.markdown import splice
from precompute.experiments.report import __main__ as report

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "docs/results"


@pytest.fixture(scope="module")
def parts() -> dict[str, str]:
    """Of the page."""
    return report.render(RESULTS)


@pytest.fixture(scope="module")
def plots() -> dict[str, bytes]:
    return report.plot(RESULTS)


def test_the_page_is_not_stale(parts: dict[str, str]) -> None:
    page = (ROOT / report.PAGE).read_text(encoding="utf-8")
    again = splice(page, parts, report.PAGE)
    assert again == page, "run python -m precompute.experiments.report"


def test_no_plot_is_stale(plots: dict[str, bytes]) -> None:
    for name, svg in plots.items():
        assert (ROOT / report.IMAGES / name).read_bytes() == svg, f"{name}: run python -m precompute.experiments.report"


@pytest.mark.parametrize("name", ["filtering.jsonl", "figure3.jsonl"])
def test_a_changed_run_changes_page_and_plot(
    parts: dict[str, str], plots: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "results"
    shutil.copytree(RESULTS, copy)
    lines = [json.loads(line) for line in (copy / name).read_text().splitlines()]
    changed = next(line for line in lines if line.get("score") == "cosine" or line.get("line") == "evaluation")
    if "right" in changed:
        changed["right"] = [0] * len(changed["right"])
    else:
        changed["cross_entropy"]["patched"]["value"] += 1
    (copy / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    part = name.removesuffix(".jsonl")
    assert report.render(copy)[part] != parts[part]
    assert report.plot(copy)[f"results-{part}.svg"] != plots[f"results-{part}.svg"]


def test_the_grid_is_whole() -> None:
    """Every arm of the filtering experiment has the same three seeds and was asked about the same words."""
    about, *runs = [json.loads(line) for line in (RESULTS / "filtering.jsonl").read_text().splitlines()]
    assert about["about"]["command"] == "saevx experiment filtering"
    seeds: dict[tuple[str, float], set[int]] = {}
    for run in runs:
        seeds.setdefault((run["score"], run["keep"]), set()).add(run["seed"])
        assert run["asked"] == runs[0]["asked"]
    assert len(seeds) == 13 and all(of == {0, 1, 2} for of in seeds.values())


def test_the_page_says_which_results_are_of_another_store(tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree(RESULTS, copy)
    store = json.loads((copy / "demo-store.json").read_text())
    about = json.loads((copy / "hallucination.json").read_text())["about"]
    other = "0" * 32
    for content_id, sae, noted in (
        (about["content_id"], other, False),
        (other, about["sae"], False),
        (other, other, True),
    ):
        store["about"] |= {"content_id": content_id, "sae": sae}
        (copy / "demo-store.json").write_text(json.dumps(store))
        assert ("earlier store of the demo" in report.render(copy)["hallucination"]) == noted
