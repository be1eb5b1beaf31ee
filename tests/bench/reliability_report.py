"""Renders the table of docs/reliability.md from docs/results/bench-reliability.json.

python -m tests.bench.reliability_report          # rewrite
python -m tests.bench.reliability_report --check  # exit 1 where the page is stale
"""

from pathlib import Path

from precompute.demo.evaluation.markdown import Row, command, read, splice, table
from tests.bench.report import runs

PAGE = Path("docs/reliability.md")


def rendered(page: str) -> str:
    result = read("bench-reliability")
    rows: list[Row] = [
        (
            one["what"],
            f"{one['held']:,} of {one['tried']:,}",
            one["how"],
            f"`{one['command']}`",
            f"{one['took_s']:,.0f} s" if one.get("took_s") else "–",
        )
        for one in result["trials"]
    ]
    lost = sum(one["tried"] - one["held"] for one in result["trials"])
    parts = {
        "trials": table(("what", "held", "how", "run it again", "took"), rows),
        "sum": f"**Lost or let in: {lost}**, of {sum(one['tried'] for one in result['trials']):,} trials.",
        "made": runs([result]),
    }
    return splice(page, parts, PAGE)


if __name__ == "__main__":
    command(PAGE, rendered, "tests.bench.reliability_report")
