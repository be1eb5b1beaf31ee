"""The largest of many products: those of all single pairs, whatever the number type of the product."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from precompute.products import search, setting
from precompute.products.candidates import Pairs
from precompute.products.pairs import pair_products
from precompute.products.rounding import OUTPUT, bound, has_units, rows_of, split_number
from precompute.products.search import LARGEST, LOWEST, Table, largest_products
from precompute.products.setting import Products
from precompute.sae.sae import SaeV
from precompute.utils.types import Array
from tests.helpers.demo import Demo

needs_units = pytest.mark.skipif(not has_units(), reason="this processor has no units for bfloat16")


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def near_ties(n: int, d: int) -> torch.Tensor:
    """Vectors that differ in single bits of one number: far below what bfloat16 tells apart."""
    vectors = normal(1, d).repeat(n, 1)
    vectors[:, 3] *= 1 + torch.arange(n) % 97 * 2.0**-23
    return vectors


def plain(left: torch.Tensor, right: torch.Tensor, k: int) -> tuple[Array, Array]:
    """The k largest by the values of all single pairs, of equal ones the lower columns."""
    rows, columns = np.divmod(np.arange(len(left) * len(right)), len(right))
    value_rn = pair_products(left, right, Pairs(rows, columns)).reshape(len(left), len(right))
    at = np.argsort(-value_rn, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(value_rn, at, 1), at


MADE_UP = {
    "random": normal(1500, 72),
    "near ties": near_ties(1500, 72),
    "some twins": normal(500, 72).repeat(3, 1),
    "zeros among them": normal(1500, 72) * (torch.arange(1500) % 3 > 0)[:, None],
    "of many lengths": normal(1500, 72) * torch.logspace(-8, 8, 1500)[:, None],
    "all near one": normal(1, 72) + 1e-3 * normal(1500, 72),
    "tiny": normal(1500, 72) * 1e-30,
    "with huge ones": normal(1500, 72) * (1 + 1e13 * (torch.arange(1500) % 700 == 5))[:, None],
}


@pytest.mark.parametrize("name", MADE_UP)
@pytest.mark.parametrize("exact", [True, pytest.param(False, marks=needs_units)])
def test_winners_are_those_of_all_pairs(name: str, exact: bool) -> None:
    vectors, products = MADE_UP[name], Products(exact=exact)
    value, at = largest_products(vectors, 10, products, "test")
    expected, columns = plain(vectors, vectors, 10)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(at, columns)


def test_itself_is_left_out_even_among_twins() -> None:
    vectors = normal(500, 72).repeat(3, 1)
    _, at = largest_products(vectors, 4, Products(), "test", itself=False)
    assert (at != np.arange(1500)[:, None]).all()
    twins = (np.arange(1500)[:, None] + [500, 1000]) % 1500
    np.testing.assert_array_equal(np.sort(at[:, :2], 1), np.sort(twins, 1))


@needs_units
def test_rows_with_too_many_candidates_are_multiplied_again() -> None:
    products = Products()
    largest_products(normal(5000, 72), 3, products, "random")
    largest_products(near_ties(1500, 72), 10, products, "near ties")
    facts = products.facts()
    assert facts["random"] == {"bfloat16": 5000}
    assert facts["near ties"] == {"float32_again": 1500}
    exact = Products(exact=True)
    largest_products(normal(1500, 72), 10, exact, "random")
    assert exact.facts() == {"random": {"float32": 1500}}


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(900, 1100), st.integers(1, 9)),
        elements=st.floats(-1e6, 1e6, width=32),
        fill=st.sampled_from([0.0, 1.0]),
    ),
    st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_any_numbers(vectors: Array, k: int) -> None:
    left = torch.from_numpy(vectors)
    for exact in (False, True):
        value, at = largest_products(left, k, Products(exact=exact), "test")
        expected, columns = plain(left, left, k)
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(at, columns)


@needs_units
@pytest.mark.parametrize("lowest", [LARGEST, LOWEST])
def test_no_winner_is_excluded_on_real_directions(demo: Demo, lowest: bool) -> None:
    directions = SaeV.load(demo.root / "sae").directions_fd[:1500]
    (pairs,) = Table(directions, Products(), "test").candidates(directions[:300], 10, (lowest,))
    value = (directions[:300].double() @ directions.double().T) * (-1 if lowest else 1)
    chosen = set(zip(pairs.row_p.tolist(), pairs.col_p.tolist(), strict=True))
    winners = value.topk(9, dim=1).indices  # the tenth may tie
    assert all((r, int(c)) in chosen for r, row in enumerate(winners) for c in row)
    assert len(chosen) < 300 * 1500 / 4


@needs_units
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_bound_holds_for_every_product(scale: float) -> None:
    left_td, right_nd = normal(200, 500) * scale, normal(640, 500, 1)
    left, right = rows_of(left_td, torch.bfloat16), rows_of(right_nd, torch.bfloat16, multiple=64)
    written = (left.number_nd @ right.number_nd.T).double()
    most = torch.from_numpy(bound(left, right, 10)).double().repeat(1, 64) + OUTPUT[torch.bfloat16] * written.abs()
    difference = (written - left_td.double() @ right_nd.double().T).abs()
    assert (difference <= most).all()
    assert float((difference / most).max()) > 0.02, "so loose that it excludes little"


def test_pairs_have_the_same_value_in_any_company() -> None:
    left, right = normal(50, 333), normal(400, 333, 1)
    rng = np.random.default_rng(0)
    row = np.sort(rng.integers(0, 50, 900))
    col = rng.integers(0, 400, 900)
    value = pair_products(left, right, Pairs(row, col))
    few = np.sort(rng.choice(900, 40, replace=False))
    np.testing.assert_array_equal(value[few], pair_products(left, right, Pairs(row[few], col[few])))
    exact = (left.double()[row] * right.double()[col]).sum(1).numpy()
    np.testing.assert_allclose(value, exact, atol=1e-4)


def test_threads_and_sizes_of_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = normal(1500, 72)
    before = largest_products(vectors, 10, Products(), "test")
    monkeypatch.setattr(search, "BLOCK_NUMBERS", 100_000)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = largest_products(vectors, 10, Products(), "test")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n_threads)
    for one, other in zip(before, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_that_are_looked_at_whole_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of them is halved until its pairs fit, and each row is counted once."""
    vectors = near_ties(1500, 72)
    before = largest_products(vectors, 10, Products(), "test")
    seen: list[int] = []

    def watched(left_rd: torch.Tensor, right_nd: torch.Tensor, pairs: Pairs) -> Array:
        seen.append(len(pairs.row_p))
        return pair_products(left_rd, right_nd, pairs)

    monkeypatch.setattr(search, "pair_products", watched)
    monkeypatch.setattr(search, "MOST_PAIRS", 10_000)
    products = Products()
    again = largest_products(vectors, 10, products, "test")
    for one, other in zip(before, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sum(seen) == 1500 * 1500 and max(seen) <= 10_000
    assert sum(products.facts()["test"].values()) == 1500


def test_a_number_is_split_into_three_that_bfloat16_holds() -> None:
    number = normal(1, 1000)[0] * torch.logspace(-6, 6, 1000)
    parts = split_number(number)
    assert torch.equal(parts, parts.bfloat16().float())
    assert ((parts.double().sum(1) - number).abs() <= 2.0**-24 * number.abs()).all()


def test_without_units_everything_is_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setting, "has_units", lambda: False)
    products = Products()
    largest_products(normal(1500, 72), 3, products, "test")
    assert products.facts() == {"test": {"float32": 1500}}
