"""The number of requests that each caller has per minute."""

import time

import pytest

from fivetran_state.http_server.rate_limit import MAX_BUCKETS, Buckets


class Clock:
    """Stands still until a test changes `now`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def taken(buckets: Buckets, key: object, at_most: int = 1000) -> int:
    """The number of requests in a row that have room."""
    return next((count for count in range(at_most) if buckets.take(key)), at_most)


def test_a_minute_s_requests_may_come_at_once(clock: Clock) -> None:
    assert taken(Buckets(30), "a") == 30


def test_a_refusal_says_when_there_is_room(clock: Clock) -> None:
    buckets = Buckets(30)
    taken(buckets, "a")

    wait = buckets.take("a")
    clock.now += wait

    assert wait == pytest.approx(2)
    assert buckets.take("a") == 0


def test_there_is_no_room_until_the_whole_wait_is_over(clock: Clock) -> None:
    buckets = Buckets(120)
    taken(buckets, "a")

    clock.now += 0.25

    assert buckets.take("a") == pytest.approx(0.25)


def test_a_refusal_costs_nothing(clock: Clock) -> None:
    buckets = Buckets(60)
    taken(buckets, "a")
    waits = [buckets.take("a") for _ in range(100)]

    clock.now += 1

    assert waits == [pytest.approx(1)] * 100
    assert taken(buckets, "a") == 1


def test_a_bucket_fills_up_but_does_not_overflow(clock: Clock) -> None:
    buckets = Buckets(30)
    taken(buckets, "a")

    clock.now += 20
    after_a_while = taken(buckets, "a")
    clock.now += 3600
    after_an_hour = taken(buckets, "a")

    assert (after_a_while, after_an_hour) == (10, 30)


def test_each_caller_has_a_bucket_of_its_own(clock: Clock) -> None:
    buckets = Buckets(5)
    taken(buckets, "a")

    assert taken(buckets, "b") == 5
    assert taken(buckets, ("a", "documentation")) == 5
    assert taken(buckets, "a") == 0


def test_zero_is_no_limit(clock: Clock) -> None:
    assert taken(Buckets(0), "a") == 1000


def test_the_bucket_that_was_not_used_for_longest_makes_room(clock: Clock) -> None:
    buckets = Buckets(1)
    taken(buckets, "used")
    taken(buckets, "unused")
    for number in range(MAX_BUCKETS - 2):
        buckets.take(number)
    buckets.take("used")

    buckets.take("one more")

    assert buckets.take("used")
    assert not buckets.take("unused")
