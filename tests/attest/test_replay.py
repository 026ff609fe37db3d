"""Replay: nothing passes twice, whatever the clock does; what is honest passes once."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from matl.attest.replay import ReplayCache
from matl.errors import InvalidValueError, StateError
from matl.state import pack, unpack

AGE, AHEAD = 100, 20


def cache(**settings):
    return ReplayCache(**{"max_age_ms": AGE, "max_ahead_ms": AHEAD, "per_client": 3} | settings)


@pytest.mark.parametrize(
    ("created", "reason"), [(899, "expired"), (900, ""), (1000, ""), (1020, ""), (1021, "future"), (0, "expired")]
)
def test_the_window_has_both_its_ends(created, reason):
    assert cache().admit("a", "n", created, now=1000) == reason


def test_asking_uses_nothing_up():
    replays = cache()
    assert replays.refusal("a", "n", 1000, now=1000) == ""
    assert replays.refusal("a", "n", 1000, now=1000) == ""
    assert replays.admit("a", "n", 1000, now=1000) == ""
    assert replays.refusal("a", "n", 1000, now=1000) == "replay"


def test_a_refused_text_uses_nothing_up():
    replays = cache()
    assert replays.admit("a", "n", 1000, now=900) == "future"
    assert replays.admit("a", "n", 1000, now=1000) == ""


def test_clients_do_not_share_nonces():
    replays = cache()
    assert [replays.admit(client, "n", 1000, now=1000) for client in "abab"] == ["", "", "replay", "replay"]


def test_a_client_that_floods_expires_its_own_texts_and_nobody_elses():
    replays = cache()
    assert replays.admit("b", "0", 1000, now=1000) == ""
    for created in range(1000, 1010):
        assert replays.admit("a", str(created), created, now=1010) == ""
    assert replays.admit("a", "late", 1006, now=1010) == "expired"
    assert replays.admit("a", "new", 1007, now=1010) == ""
    assert replays.admit("b", "1", 950, now=1010) == ""
    assert len(replays.state()["seen"]["a"]) == 3


def test_a_forgotten_nonce_is_expired_even_if_the_clock_runs_backwards():
    replays = cache()
    assert replays.admit("a", "old", 1000, now=1000) == ""
    assert replays.admit("a", "new", 2000, now=2000) == ""  # and old is forgotten
    assert list(replays.state()["seen"]["a"]) == ["new"]
    assert (replays.floor("a"), replays.floor("b")) == (1000, -1)
    assert replays.admit("a", "old", 1000, now=1000) == "expired"


def test_a_clock_that_was_far_ahead_for_a_moment_locks_nobody_out():
    replays = cache()
    assert replays.admit("a", "1", 1000, now=1000) == ""
    assert replays.admit("a", "2", 1010, now=10**12) == "expired"
    assert replays.admit("b", "x", 10**12, now=10**12) == ""
    assert replays.admit("a", "3", 1020, now=1020) == ""


# The proof, tried


MESSAGES = st.tuples(st.sampled_from("ab"), st.sampled_from("123456"), st.integers(0, 400))


class Adversary(RuleBasedStateMachine):
    """Sends any message at any time, with a clock that does as it likes, and restarts the host."""

    @initialize(per_client=st.integers(1, 4))
    def begin(self, per_client):
        self.per_client, self.replays, self.admitted = per_client, cache(per_client=per_client), set()

    @rule(message=MESSAGES, now=st.integers(0, 500))
    def send(self, message, now):
        if self.replays.admit(*message, now=now) == "":
            assert message not in self.admitted
            self.admitted.add(message)

    @rule(now=st.integers(0, 500))
    def send_all_again(self, now):
        assert all(self.replays.admit(*message, now=now) for message in self.admitted)

    @rule()
    def restart(self):
        state = unpack(pack(self.replays.state()))
        self.replays = cache(per_client=self.per_client)
        self.replays.restore(state)

    @invariant()
    def memory_is_bounded(self):
        assert all(len(nonces) <= self.per_client for nonces in self.replays.state()["seen"].values())


Adversary.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
test_nothing_passes_twice_for_any_order_and_clock = Adversary.TestCase


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-AHEAD, AHEAD)), max_size=40))
def test_an_honest_client_is_never_refused(sendings):
    """Its clock differs from the host's by less than allowed, and it sends in order."""
    replays, now, last = cache(), 1000, 0
    for number, (pause, skew) in enumerate(sendings):
        now += pause
        created = max(now + skew, last + 1)
        if created > now + AHEAD:
            continue
        assert replays.admit("a", str(number), created, now=now) == ""
        last = created


def test_one_thread_at_a_time():
    replays, results = cache(), []
    thread = threading.Thread(target=lambda: results.append(replays.admit("a", "n", 1000, now=1000)))
    with replays._lock:
        thread.start()
        thread.join(0.1)
        assert not results
    thread.join()
    assert results == [""]


# State


def test_restoring_adds_to_what_is_there():
    first, second = cache(), cache()
    for replays, nonce in ((first, "1"), (second, "2")):
        assert replays.admit("a", nonce, 1000, now=1000) == ""
    second.restore(first.state())
    assert [second.admit("a", nonce, 1000, now=1000) for nonce in "12"] == ["replay", "replay"]


def test_a_floor_never_falls():
    replays, early = cache(per_client=1), cache(per_client=1)
    for each, times in ((early, (900, 910)), (replays, (1000, 1010))):
        for created in times:
            assert each.admit("a", str(created), created, now=created) == ""
    replays.restore(early.state())
    assert replays.state()["floors"] == {"a": 1000}
    assert replays.admit("a", "new", 1020, now=1020) == ""  # which makes it forget what the early one remembered
    assert replays.state() == {"version": 1, "seen": {"a": {"new": 1020}}, "floors": {"a": 1010}}


def test_a_floor_does_not_fall_to_what_was_restored_below_it():
    replays, high = cache(), cache(per_client=1)
    assert replays.admit("a", "old", 950, now=1000) == ""
    for created in (1000, 1010):
        assert high.admit("a", str(created), created, now=created) == ""
    replays.restore(high.state())
    assert replays.admit("a", "new", 1055, now=1055) == ""  # and old is forgotten
    assert replays.state()["floors"] == {"a": 1000}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "seen": {}, "floors": {}},
        {"version": 1, "seen": [], "floors": {}},
        {"version": 1, "seen": {"a": {"n": "x"}}, "floors": {}},
        {"version": 1, "seen": {"a": None}, "floors": {}},
        {"version": 1, "seen": {"a": {"n": float("inf")}}, "floors": {}},
        {"version": 1, "seen": {}},
    ],
)
def test_another_state_is_refused(state):
    replays = cache()
    with pytest.raises(StateError, match="the replay cache cannot be read"):
        replays.restore(state)
    assert replays.state() == cache().state()


@pytest.mark.parametrize("settings", [{"max_age_ms": 0}, {"per_client": 0}, {"max_ahead_ms": -1}, {"max_age_ms": 1.5}])
def test_settings_have_bounds(settings):
    with pytest.raises(InvalidValueError, match="expected"):
        cache(**settings)
