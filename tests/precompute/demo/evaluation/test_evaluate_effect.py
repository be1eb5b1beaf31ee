"""The counts of the measured effect on figures made up by hand."""

import numpy as np

from precompute.demo.evaluation.evaluate_effect import rank_of, summarise
from precompute.live.effect import Change


def test_the_rank_is_of_the_token_that_falls_most() -> None:
    change = Change(np.array([-0.1, -0.3, 0.2, -0.2]), np.array([-3.0, -0.1, 0.2, -0.2]), 0.0)
    assert [rank_of(change, [v], "probability") for v in range(4)] == [2, 0, 3, 1]
    assert rank_of(change, [0, 2], "logprob") == 0 and rank_of(change, [2, 3], "logprob") == 1


def test_shares_count_ranks_below_ten() -> None:
    def row(rank: int, control: int, word: float) -> dict[str, object]:
        ranks = {"ablated": rank, "control": control}
        return {
            "rank": {"probability": ranks, "logprob": ranks},
            "word": {"ablated": word, "control": -0.1},
            "kl": {"ablated": 1.0, "control": 0.5},
        }

    figures = summarise([row(0, 10, -0.5), row(9, 400, -0.2), row(10, 3, 0.0)])
    assert (figures["probability"]["ablated"]["hits"], figures["probability"]["control"]["hits"]) == (2, 1)
    assert figures["first"]["ablated"]["hits"] == 1 and figures["falls_more"]["hits"] == 2
    assert figures["median_logprob"] == {"ablated": -0.2, "control": -0.1} and figures["median_kl"]["ablated"] == 1.0
