"""The measurement of attributions, at a small size: on the demo's real model, and resumed."""

from pathlib import Path

import pytest

from precompute.experiments import explain
from precompute.experiments.explain import Options, part_of, run, summary
from precompute.experiments.report.changes import explain_part
from tests.helpers.demo import Demo


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "RESAMPLES", 50)


def test_two_scenes_of_the_demo_one_after_the_other(demo: Demo, tmp_path: Path) -> None:
    def options(n_scenes: int) -> Options:
        return Options(
            demo=demo.root, out=tmp_path / "explain.json", n_scenes=n_scenes, n_first=n_scenes, n_features=2, n_random=2
        )

    (first,) = run(options(1))["scenes"]
    result = run(options(2))  # goes on behind the first
    again, second = result["scenes"]
    assert again == first and second["scene"] > first["scene"] and len(part_of(options(2).out).read_text().split()) > 2
    for one in result["scenes"]:
        assert one["gap"] < 1e-5 and one["word"] in one["answer"]
        assert one["total"] == pytest.approx(sum(one["parts"].values()), abs=1e-3)
        assert [pair["draw"] for pair in one["pairs"]] == ["any", "any", "strongest", "strongest"]
        small = [pair for pair in one["pairs"] if abs(pair["part"]) < 0.05]
        assert all(pair["ablated"] == pytest.approx(pair["part"], abs=0.02) for pair in small)
        assert len(one["first"]["random"]) == 2 and one["first"]["change"] < 0
    assert "2 captions" in explain_part(result)


def test_the_figures_of_made_up_scenes() -> None:
    def scene(change: float, parts: list[float]) -> dict[str, object]:
        pairs = [{"draw": name, "part": p, "ablated": 2 * p} for name in ("any", "strongest") for p in parts]
        first = {"change": change, "random": [-0.2, 0.0], "sides": [0.0, 0.3, 0.1]}
        return {
            "gap": 1e-8, "parts": {"features": 1.0 - change, "error": -0.5, "bias": 0.2, "rest": 0.1},
            "without_features": 3.0 - change, "without_h": change, "pairs": pairs, "first": first,
        }  # fmt: skip

    figures = summary([scene(-0.5, [0.1, 0.3]), scene(-0.15, [0.2, -0.4]), scene(0.1, [0.5, 0.0])], Options(n_first=3))
    assert figures["ablation"]["any"]["n"] == 6
    assert figures["ablation"]["any"]["rho"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert figures["first"]["more_than_mean"]["hits"] == 2 and figures["first"]["more_than_each"]["hits"] == 1
    assert figures["linear"]["without_features"]["rho"] == pytest.approx(1.0)
    assert figures["linear"]["without_h"]["rho"] == pytest.approx(-1.0)
    assert figures["median_size"]["error"] == 0.5 and figures["first"]["on_image"]["hits"] == 3
