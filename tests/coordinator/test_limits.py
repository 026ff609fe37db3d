"""What is let through, and what has to wait."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.coordinator.limits import InFlight, Limits, Rate, RateLimiter
from matl.errors import InvalidValueError, ServiceError


def takes(limiter, sender, now):
    try:
        limiter.take(sender, now=now)
    except ServiceError as error:
        return error.retry_after
    return None


def test_a_bucket_is_emptied_by_a_burst_and_fills_with_time():
    limiter = RateLimiter(Rate(2.0, 3), "requests")
    assert [takes(limiter, "ann", 10.0) for _ in range(4)] == [None, None, None, 0.5]
    assert takes(limiter, "bob", 10.0) is None  # has a bucket of its own
    assert takes(limiter, "ann", 10.4) == pytest.approx(0.6)  # who else sends in its name waits for that at 10.5
    assert takes(limiter, "ann", 10.5) is None
    assert takes(limiter, "ann", 1e6) is None  # and is never fuller than full
    assert [takes(limiter, "ann", 1e6) for _ in range(3)] == [None, None, 0.5]


def test_of_those_who_are_refused_at_one_address_each_gets_a_turn():
    limiter = RateLimiter(Rate(10.0, 1), "requests")
    turns = [takes(limiter, "10.0.0.1", 0.0) for _ in range(5)]
    assert turns[1:] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [takes(limiter, "10.0.0.1", 1.01 * one) for one in turns[1:]] == [None] * 4
    for _ in range(1000):
        takes(limiter, "10.0.0.1", 0.41)
    assert takes(limiter, "10.0.0.1", 0.41) == 60.0
    assert takes(limiter, "10.0.0.1", 100.0) is None  # nobody waits any more


@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_sender_gets_more_than_its_burst_and_its_rate(gaps):
    limiter, now, passed = RateLimiter(Rate(1.0, 5), "requests"), 0.0, 0
    for gap in gaps:
        now += gap
        wait = takes(limiter, "ann", now)
        passed += wait is None
        if wait is not None:  # what it is told is the truth
            limiter.check("ann", now=now + wait + 1e-9)
    assert passed <= 5 + now


def test_what_is_charged_afterwards_is_missing_and_looking_takes_nothing():
    limiter = RateLimiter(Rate(0.1, 2), "refused updates")
    for _ in range(5):
        limiter.check("ann", now=0.0)
    for _ in range(3):  # more than there are: the debt does not grow
        limiter.charge("ann", now=0.0)
    with pytest.raises(ServiceError, match=r"too many refused updates of ann: at most 2 at once and 0\.1 a second"):
        limiter.check("ann", now=0.0)
    limiter.check("ann", now=10.0)


def test_only_so_many_senders_are_remembered_and_the_idle_are_forgotten_first():
    limiter = RateLimiter(Rate(1e-9, 1), "requests", senders=3)
    for sender in ("ann", "bob", "cid"):
        limiter.take(sender, now=0.0)
    limiter.charge("ann", now=1.0)
    limiter.take("dan", now=2.0)
    assert takes(limiter, "bob", 3.0) is None  # forgotten
    assert takes(limiter, "ann", 3.0) is not None


def test_things_in_flight_are_bounded_by_number_and_by_size_and_let_go_whatever_happens():
    arriving = InFlight(2, 100, "updates")
    with arriving.admit(60):
        with pytest.raises(ServiceError) as caught, arriving.admit(41):
            pytest.fail("was let in")
        assert (caught.value.code, caught.value.retry_after) == ("busy", 1.0)
        with arriving.admit(40), pytest.raises(ServiceError), arriving.admit(0):
            pytest.fail("was let in")
        with pytest.raises(KeyError), arriving.admit(40):
            raise KeyError
    assert (arriving.count, arriving.size) == (0, 0)
    with arriving.admit(1000):  # alone: otherwise it could never come
        pass


def test_who_is_refused_is_given_a_turn_as_fast_as_things_get_done():
    now = 0.0
    arriving = InFlight(4, 100, "updates", clock=lambda: now)

    def refused() -> float:
        with pytest.raises(ServiceError) as caught, arriving.admit():
            pytest.fail("was let in")
        assert caught.value.retry_after is not None
        return caught.value.retry_after

    for _ in range(100):  # each takes 8 seconds
        with arriving.admit():
            now += 8.0
    with ExitStack() as full:
        for _ in range(4):
            full.enter_context(arriving.admit())
        # Four places, so that one is free every two seconds.
        turns = [refused() for _ in range(5)]
        assert turns == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0], rel=1e-3)
        now += 4.0
        assert refused() == pytest.approx(8.0, rel=1e-3)  # behind those who wait
        assert max(refused() for _ in range(100)) == 60.0
        now += 1000.0
        assert refused() == pytest.approx(2.0, rel=1e-3)  # nobody waits any more


@pytest.mark.parametrize("wrong", [{"submissions": 0}, {"uploads": -1}, {"upload_seconds": 0.0}, {"message": 1.5}])
def test_limits_have_to_allow_something(wrong):
    with pytest.raises(InvalidValueError):
        Limits(**wrong)
    with pytest.raises(InvalidValueError):
        Rate(0.0, 1)
