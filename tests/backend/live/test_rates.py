"""How often one visitor may ask the live model: counted by a clock that the test sets, and by the real server with the
tiny model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from backend.app import create_app
from backend.live.rates import MANY, MINUTE_S, Rates
from backend.middleware.observe import visitor_at
from backend.settings import Settings
from tests.helpers.live_api import API, wait_ready


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: Rates, visitor: str) -> bool:
    if rates.wait_s(visitor):
        return False
    rates.count(visitor)
    return True


def test_a_minutes_requests_may_come_at_once_and_then_one_each_share_of_it() -> None:
    clock = Clock()
    rates = Rates(6, clock)
    assert [admitted(rates, "kim") for _ in range(8)] == [True] * 6 + [False] * 2
    assert rates.wait_s("kim") == pytest.approx(10) and admitted(rates, "alex")
    clock.now += 10.001
    assert [admitted(rates, "kim") for _ in range(2)] == [True, False]
    clock.now += MINUTE_S
    assert [admitted(rates, "kim") for _ in range(7)] == [True] * 6 + [False]


@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=100))
def test_no_minute_has_more_than_twice_its_requests_and_whoever_waits_is_admitted(n: int, pauses: list[float]) -> None:
    clock, times = Clock(), list[float]()
    rates = Rates(n, clock)
    for pause in pauses:
        clock.now += pause
        if wait := rates.wait_s("kim"):
            assert wait <= MINUTE_S / n + 1e-6
        else:
            rates.count("kim")
            times.append(clock.now)
    for begin in times:
        assert sum(begin <= one < begin + MINUTE_S for one in times) <= 2 * n


def test_zero_is_no_limit() -> None:
    rates = Rates(0)
    assert all(admitted(rates, "kim") for _ in range(1000)) and not rates.free_at


def test_visitors_who_were_here_a_minute_ago_take_no_memory() -> None:
    clock = Clock()
    rates = Rates(1, clock)
    for number in range(10 * MANY):
        clock.now += 1
        assert admitted(rates, str(number))
    assert len(rates.free_at) <= MANY


@pytest.mark.parametrize(("address", "name"), [
    ("10.0.0.1", "10.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("testclient", "testclient"), ("", ""),
    ("2001:db8:1:2::7", "2001:db8:1:2::/64"), ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
    ("::ffff:10.0.0.1", "10.0.0.1"),
])  # fmt: skip
def test_all_addresses_of_one_line_are_one_visitor(address: str, name: str) -> None:
    assert visitor_at(address) == name


@pytest.fixture(scope="module")
def client(made: Path) -> Iterator[TestClient]:
    """Behind a proxy that names visitors. Each may ask twice a minute."""
    settings = Settings(stores=[made / "store"], device="cpu", rate_per_client=2, trust_proxy_auth="X-User")
    with TestClient(create_app(settings), headers={"X-User": "nobody"}) as running:
        wait_ready(running)
        yield running


def test_one_visitor_asks_too_often_and_others_are_answered(client: TestClient) -> None:
    def search(user: str, word: str) -> tuple[int, str, str]:
        reply = client.post(f"{API}/search", data={"text": word}, headers={"X-User": user})
        return reply.status_code, reply.headers.get("retry-after", ""), reply.json().get("detail", "")

    assert [search("kim", word)[0] for word in ("dog", "cat")] == [200, 200]
    status, after, sentence = search("kim", "horse")
    assert status == 429 and 1 <= int(after) <= 30
    expected = "You have asked the model often, and it answers 2 requests of one visitor a minute: try again in"
    assert sentence == f"{expected} {after} s."
    assert search("alex", "horse")[0] == 200


def test_a_page_says_so_in_the_same_sentence_and_other_pages_are_answered(client: TestClient) -> None:
    html = {"X-User": "sam", "Accept": "text/html"}
    for feature in (1, 2):
        assert client.get(f"{API}/features/{feature}/effect", headers=html).status_code == 200
    for address in ("/search?q=a+dog&model=true", "/try?text=a+dog", "/explain?text=a+dog&ask=true"):
        reply = client.get(address, headers=html)
        assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1, address
        assert "it answers 2 requests of one visitor a minute: try again in" in reply.text, address
        assert 'id="main"' in reply.text or "<main" in reply.text
    assert "answers 2 requests" in client.get("/features/3/effect", headers=html).text
    for address in ("/", "/features/3", "/samples/pair-2", "/search?q=dog"):
        assert client.get(address, headers=html).status_code == 200, address
