import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.records import Status, Verdict
from matl.state import pack, unpack
from matl.trust.reputation import (
    CAP,
    NEWCOMER,
    RATES,
    Conduct,
    Rates,
    Reputations,
    capped_shares,
    conduct_of_verdicts,
    voting_shares,
)

SHARE = st.floats(0.0, 1.0)
CONDUCT = st.builds(lambda good, rest, lied: Conduct(good, (1.0 - good) * rest, lied), SHARE, SHARE, st.booleans())
RATE = st.builds(
    lambda gain, more, decay, fallen: Rates(gain, gain + more, decay, fallen),
    st.floats(1e-3, 1.0),
    st.floats(1e-3, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, NEWCOMER - 1e-6),
)
GOOD, BAD, LIE = Conduct(good=1.0), Conduct(bad=1.0), Conduct(lied=True)


def played(score, *rounds):
    for conduct in rounds:
        score = RATES.after(score, conduct)
    return score


@given(RATE, SHARE, st.none() | CONDUCT)
def test_a_score_stays_between_zero_and_one(rates, score, conduct):
    assert 0.0 <= rates.after(score, conduct) <= 1.0


@given(RATE, SHARE, SHARE, st.none() | CONDUCT)
def test_who_stood_higher_never_ends_up_lower_by_the_same_conduct(rates, one, other, conduct):
    low, high = sorted((one, other))
    assert rates.after(low, conduct) <= rates.after(high, conduct)


@given(RATE, SHARE, SHARE, SHARE)
def test_better_conduct_never_ends_in_a_lower_score(rates, score, one, other):
    low, high = sorted((one, other))
    assert rates.after(score, Conduct(low, 1.0 - low)) <= rates.after(score, Conduct(high, 1.0 - high))


@given(RATE, st.floats(0.0, 1.0), st.floats(0.01, 1.0))
def test_a_loss_is_not_won_back_by_as_much_good_conduct(rates, score, amount):
    lost = rates.after(score, Conduct(bad=amount))
    assert rates.after(lost, Conduct(good=amount)) < score or score <= rates.gain * amount + 1e-8


@given(RATE, SHARE)
def test_absence_never_raises_a_score_and_never_takes_more_than_what_exceeds_a_newcomers(rates, score):
    after = rates.after(score, None)
    assert after <= round(score, 9)
    assert after >= round(min(score, NEWCOMER), 9)


@given(RATE, SHARE)
def test_a_lie_leaves_less_than_a_newcomer_has(rates, score):
    assert rates.after(score, LIE) < NEWCOMER
    assert rates.after(score, LIE) <= round(score, 9)


def test_a_full_score_is_earned_slowly_saturates_and_is_lost_at_once():
    assert played(NEWCOMER, *[GOOD] * 39) < 1.0
    assert played(NEWCOMER, *[GOOD] * 40) == played(NEWCOMER, *[GOOD] * 4000) == 1.0
    assert played(1.0, *[BAD] * 10) == 0.0
    assert played(1.0, LIE, *[GOOD] * 44) < 1.0
    assert played(1.0, LIE, *[GOOD] * 45) == 1.0


def test_sleeping_decays_to_a_newcomers_score_and_washes_nothing_off():
    assert played(1.0, *[None] * 40) == NEWCOMER
    assert played(1.0, LIE, *[None] * 1000) == RATES.fallen


def test_errors_below_the_break_even_rise_and_above_it_fall():
    even = RATES.gain / (RATES.gain + RATES.loss)
    assert even == pytest.approx(1 / 6)
    assert played(0.5, Conduct(0.84, 0.16)) > 0.5
    assert played(0.5, Conduct(0.82, 0.18)) < 0.5


def test_a_table_keeps_members_apart_and_forgets_newcomers():
    table = Reputations.empty().after({"b": GOOD, "a": LIE, "c": Conduct(), "d": None})
    assert table.ids == ("a", "b")
    np.testing.assert_allclose(table.of(["a", "b", "x"]), [0.1, 0.22, 0.2])
    table = table.after({"b": None})
    assert table.ids == ("a",), "b has decayed to a newcomer"
    assert Reputations.of_state(unpack(pack(table.as_state()))).score.tobytes() == table.score.tobytes()


def test_a_table_is_not_changed_in_place():
    table = Reputations.empty().after({"a": GOOD})
    table.after({"a": BAD})
    assert table.of(["a"]) == [0.22]


def test_verdicts_become_conduct():
    def shown(status):
        return conduct_of_verdicts([Verdict("a", 1.0, status, reason="because")])["a"]

    assert shown(Status.ACCEPTED) == GOOD
    assert shown(Status.CLIPPED) == shown(Status.SUSPECTED) == Conduct()
    assert shown(Status.QUARANTINED) == LIE
    assert shown(Status.REJECTED) is None, "a forged message must not hurt whose name it carries"
    assert {status for status in Status if conduct_of_verdicts([Verdict("a", 1.0, status)])} == set(Status)


@pytest.mark.parametrize("wrong", [{"good": 0.6, "bad": 0.6}, {"bad": -0.1}, {"good": float("nan")}])
def test_conduct_is_shares_of_one_whole(wrong):
    with pytest.raises(InvalidValueError):
        Conduct(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain": 0.2}, "expected gain < loss"),
        ({"gain": 0.0}, "gain > 0"),
        ({"fallen": NEWCOMER}, "a newcomer's score"),
        ({"decay": -0.1}, "decay >= 0"),
    ],
)
def test_rates_that_could_be_farmed_are_refused(wrong, message):
    with pytest.raises(InvalidValueError, match=message):
        Rates(**wrong)


WEIGHTS = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40).map(np.array)


@given(WEIGHTS, st.floats(0.01, 1.0))
def test_shares_sum_to_one_stay_below_the_cap_and_keep_the_order(weights, cap):
    shares = capped_shares(weights, cap)
    positive = int((weights > 1e-12 * weights.max()).sum())
    if not positive:
        assert not shares.any()
        return
    assert shares.sum() == pytest.approx(1.0)
    assert shares.max() <= max(cap, 1.0 / positive) + 1e-9
    assert not shares[weights == 0].any()
    assert (np.diff(shares[np.argsort(weights, kind="stable")]) >= -1e-12).all()


@given(WEIGHTS, st.floats(0.01, 1.0))
def test_only_the_largest_weights_are_cut_and_the_rest_keep_their_proportions(weights, cap):
    shares = capped_shares(weights, cap)
    uncut = (shares < shares.max() * (1 - 1e-9)) & (weights > 1e-3)
    ratios = shares[uncut] / weights[uncut]
    assert len(ratios) == 0 or ratios.max() == pytest.approx(ratios.min())
    if shares.max() < min(cap, 1.0) - 1e-9 and (weights > 1e-12 * weights.max()).sum() * cap > 1:
        np.testing.assert_allclose(shares, weights / weights.sum(), atol=1e-9)


def test_one_giant_has_no_more_than_the_cap():
    shares = voting_shares(np.array([1.0] + [0.05] * 99))
    assert shares[0] == pytest.approx(CAP)
    assert shares[1:] == pytest.approx(0.9 / 99)


def test_three_at_the_cap_are_less_than_a_third():
    assert voting_shares(np.array([1.0] * 3 + [0.01] * 30))[:3].sum() < 1 / 3


def test_weight_is_the_square_of_the_score_times_the_factor():
    scores = np.array([1.0, 0.5, 0.5, 0.2])
    np.testing.assert_allclose(voting_shares(scores, cap=1.0), scores**2 / 1.54)
    np.testing.assert_allclose(voting_shares(scores, power=0.0, cap=1.0), 0.25)
    factors = np.array([0.5, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(voting_shares(scores, factors, cap=1.0), [0.5 / 0.79, 0.25 / 0.79, 0.0, 0.04 / 0.79])


@pytest.mark.parametrize(
    ("scores", "factors"), [([1.5], None), ([-0.1], None), ([np.nan], None), ([1.0], [2.0]), ([1.0], [1.0, 1.0])]
)
def test_shares_need_scores_and_factors_between_zero_and_one(scores, factors):
    with pytest.raises(InvalidValueError):
        voting_shares(np.array(scores), None if factors is None else np.array(factors))


def test_negative_weights_are_refused():
    with pytest.raises(InvalidValueError, match="weights >= 0"):
        capped_shares(np.array([1.0, -1.0]), 0.5)


def test_without_any_weight_nobody_has_a_share():
    assert not voting_shares(np.zeros(3)).any()


def test_a_cap_of_nothing_is_refused():
    with pytest.raises(InvalidValueError, match="nobody could vote"):
        capped_shares(np.ones(3), 0.0)
