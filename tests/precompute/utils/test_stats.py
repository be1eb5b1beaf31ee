"""Intervals against their definition."""

import numpy as np
import pytest
from scipy.stats import poisson

from precompute.utils.stats import poisson_interval


def test_the_poisson_interval_is_exact() -> None:
    """At its lower end so many events or more have a chance of 2.5 %, at its upper end so many or fewer."""
    counts = np.array([[0, 1, 5], [40, 5, 3000]])
    low, high = poisson_interval(counts)
    assert low[0, 0] == 0 and low[0, 2] == low[1, 1]
    assert poisson.cdf(counts, high) == pytest.approx(np.full((2, 3), 0.025))
    assert poisson.sf(counts[counts > 0] - 1, low[counts > 0]) == pytest.approx(np.full(5, 0.025))
