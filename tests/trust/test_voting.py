from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError, StateError
from matl.state import pack, unpack
from matl.trust.reputation import Conduct, voting_shares
from matl.trust.voting import Decision, Election, Phase, commitment

NONCE = bytes(range(16))
YES = {"a": True, "b": False}
NO = {"a": False, "b": True}


def opened(shares=(1, 1, 1, 1), units=("a", "b")):
    return Election.opened("run", 7, units, {f"v{i}": share for i, share in enumerate(shares)})


def sealed(name, votes, nonce=NONCE):
    return commitment("run", 7, name, votes, nonce)


def held(votes, shares=(1, 1, 1, 1), units=("a", "b")):
    """A closed election; `votes` by validator, ``None`` for one that commits and never reveals."""
    election = opened(shares, units)
    for name, vote in votes.items():
        election = election.committed(name, sealed(name, vote or YES))
    election = election.advanced()
    for name, vote in votes.items():
        if vote is not None:
            election = election.revealed(name, vote, NONCE)
    return election.advanced()


def decisions(election):
    return [tally.decision.value for tally in election.tallies()]


def codes(election):
    return [(fault.validator, fault.code) for fault in election.faults]


def test_more_than_two_thirds_of_the_registered_weight_decide():
    assert decisions(held({"v0": YES, "v1": YES, "v2": YES, "v3": NO})) == ["accepted", "rejected"]
    assert decisions(held({"v0": YES, "v1": YES, "v2": YES})) == ["accepted", "rejected"]
    assert decisions(held({"v0": YES, "v1": YES, "v2": NO, "v3": NO})) == ["undecided"] * 2


def test_exactly_two_thirds_do_not_decide():
    yes = {f"v{i}": {"a": True} for i in range(4)}
    assert decisions(held(yes, (1,) * 6, ("a",))) == ["undecided"]
    assert decisions(held({**yes, "v4": {"a": True}}, (1,) * 6, ("a",))) == ["accepted"]


def test_absent_weight_counts_against_both_results():
    tally = held({"v0": YES, "v1": YES}).tallies()[0]
    assert tally.decision is Decision.UNDECIDED
    assert (tally.accept, tally.reject, tally.absent) == (0.5, 0.0, 0.5)
    assert tally.reason == (
        "50.0 % of the registered weight accept, 0.0 % reject, 50.0 % are absent; more than two thirds are needed"
    )


def test_weight_decides_not_heads():
    assert decisions(held({"v0": YES, "v1": NO, "v2": NO, "v3": NO}, (0.7, 0.1, 0.1, 0.1))) == ["accepted", "rejected"]


def test_a_committee_without_weight_decides_nothing():
    election = held({"v0": YES, "v1": YES}, (0, 0))
    assert decisions(election) == ["undecided"] * 2
    assert election.conduct()["v0"] == Conduct()


@pytest.mark.parametrize(("ratio", "decided"), [(0.78, True), (0.79, False)])
def test_45_percent_of_the_nodes_are_tolerated_where_their_scores_are_below_78_percent_of_the_others(ratio, decided):
    shares = voting_shares(np.array([ratio] * 45 + [1.0] * 55))
    votes = {f"v{i}": NO if i < 45 else YES for i in range(100)}
    expected = ["accepted", "rejected"] if decided else ["undecided"] * 2
    assert decisions(held(votes, shares.tolist())) == expected


@given(st.data())
@settings(max_examples=60)
def test_two_counts_of_the_same_weights_never_conflict_while_equivocators_hold_less_than_a_third(data):
    """Quorum intersection: members that vote one way here and another there need a third of the weight."""
    shares = data.draw(st.lists(st.integers(1, 1000), min_size=2, max_size=8))
    liars = data.draw(st.sets(st.integers(0, len(shares) - 1)))
    votes = data.draw(st.lists(st.booleans(), min_size=len(shares), max_size=len(shares)))
    weights = opened(shares).weights
    here = held({f"v{i}": {"a": vote} for i, vote in enumerate(votes)}, shares, ("a",))
    there = held({f"v{i}": {"a": not vote if i in liars else vote} for i, vote in enumerate(votes)}, shares, ("a",))
    both = {decisions(here)[0], decisions(there)[0]}
    if both == {"accepted", "rejected"}:
        assert 3 * sum(weights[f"v{i}"] for i in liars) > sum(weights.values())


def test_another_validators_commitment_is_of_no_use_to_a_copyist():
    election = opened().committed("v0", sealed("v0", YES)).committed("v1", sealed("v0", YES)).advanced()
    election = election.revealed("v0", YES, NONCE).revealed("v1", YES, NONCE)
    assert set(election.votes) == {"v0"}
    assert codes(election) == [("v1", "mismatched_reveal")]


@pytest.mark.parametrize(
    "other",
    [
        commitment("other", 7, "v0", YES, NONCE),
        commitment("run", 8, "v0", YES, NONCE),
        commitment("run", 7, "v1", YES, NONCE),
        commitment("run", 7, "v0", NO, NONCE),
        commitment("run", 7, "v0", YES, NONCE[::-1]),
    ],
)
def test_a_commitment_binds_run_round_validator_votes_and_nonce(other):
    assert other != sealed("v0", YES)
    election = opened().committed("v0", other).advanced().revealed("v0", YES, NONCE)
    assert codes(election) == [("v0", "mismatched_reveal")]
    assert election.advanced().conduct()["v0"] == Conduct(bad=1.0)


def test_the_order_of_units_does_not_matter_to_a_commitment():
    assert sealed("v0", {"b": False, "a": True}) == sealed("v0", YES)


def test_a_commitment_needs_a_long_nonce():
    with pytest.raises(InvalidValueError, match="at least 16 bytes, got 4"):
        commitment("run", 7, "v0", YES, b"1234")


def test_messages_at_the_wrong_time_are_recorded_and_do_not_count():
    election = opened().committed("v0", sealed("v0", YES)).revealed("v0", YES, NONCE)
    assert codes(election) == [("v0", "early_reveal")]
    election = election.advanced().committed("v1", sealed("v1", YES)).revealed("v1", YES, NONCE).advanced()
    late = election.revealed("v0", YES, NONCE)
    assert codes(late)[1:] == [("v1", "late_commitment"), ("v1", "uncommitted_reveal"), ("v0", "late_reveal")]
    assert all(fault.reason for fault in late.faults)
    assert late.tallies() == election.tallies()
    assert late.tallies()[0].absent == 1.0


def test_the_first_commitment_stands():
    election = opened().committed("v0", sealed("v0", YES)).committed("v0", sealed("v0", NO)).advanced()
    assert codes(election) == [("v0", "conflicting_commitment")]
    assert not election.revealed("v0", NO, NONCE).votes
    assert election.revealed("v0", YES, NONCE).votes == {"v0": YES}


def test_a_vote_once_shown_cannot_be_taken_back():
    election = opened().committed("v0", sealed("v0", YES)).advanced().revealed("v0", YES, NONCE)
    assert election.revealed("v0", NO, NONCE).votes == {"v0": YES}


def test_the_same_message_twice_counts_once():
    once = opened().committed("v0", sealed("v0", YES))
    assert once.committed("v0", sealed("v0", YES)) == once
    shown = once.advanced().revealed("v0", YES, NONCE)
    assert shown.revealed("v0", YES, NONCE) == shown


@pytest.mark.parametrize("sent", ["", "xyz", 5, None, "A" * 64, "0" * 64 + "\n"])
def test_unreadable_commitments(sent):
    election = opened().committed("v0", sent)
    assert codes(election) == [("v0", "unreadable_commitment")]
    assert not election.commitments


@pytest.mark.parametrize(
    ("votes", "nonce"),
    [
        ({"a": True}, NONCE),
        ({**YES, "c": True}, NONCE),
        ({"a": 1, "b": 0}, NONCE),
        ([True, False], NONCE),
        (None, NONCE),
        (YES, "text"),
        (YES, b"short"),
    ],
)
def test_unreadable_reveals(votes, nonce):
    election = opened().committed("v0", sealed("v0", YES)).advanced().revealed("v0", votes, nonce)
    assert codes(election) == [("v0", "unreadable_reveal")]
    assert not election.votes


def test_nobody_can_fill_the_record():
    election = opened()
    for _ in range(100):
        election = election.committed("v0", "junk").revealed("v0", None, None)
    assert len(election.faults) == 2


def test_phases_go_forward_only_and_results_wait_for_the_end():
    election = opened()
    assert election.phase is Phase.COMMIT
    for early in (election, election.advanced()):
        with pytest.raises(InvalidValueError, match="closed election"):
            early.tallies()
        with pytest.raises(InvalidValueError, match="closed election"):
            early.conduct()
    with pytest.raises(InvalidValueError, match="open election"):
        election.advanced().advanced().advanced()


def test_strangers_and_impossible_committees_are_the_hosts_error():
    with pytest.raises(InvalidValueError, match="'stranger'"):
        opened().committed("stranger", sealed("stranger", YES))
    with pytest.raises(InvalidValueError, match="'stranger'"):
        opened().advanced().revealed("stranger", YES, NONCE)
    with pytest.raises(InvalidValueError, match="at least one validator"):
        Election.opened("run", 0, ["a"], {})
    with pytest.raises(InvalidValueError, match="duplicates"):
        Election.opened("run", 0, ["a", "a"], {"v": 1.0})
    with pytest.raises(InvalidValueError, match="finite"):
        Election.opened("run", 0, ["a"], {"v": np.inf})


def test_conduct_is_agreement_with_the_majority_of_the_registered_weight():
    votes = {"v0": YES, "v1": YES, "v2": {"a": True, "b": True}, "v3": None}
    assert held(votes, (2, 2, 2, 1, 1)).conduct() == {
        "v0": Conduct(good=0.5),
        "v1": Conduct(good=0.5),
        "v2": Conduct(good=0.5),
        "v3": Conduct(bad=1.0),
        "v4": None,
    }, "6 of 8 agree on a; 4 of 8 on b, which shows nothing; v3 withheld its vote; v4 never came"
    assert held(votes, (3, 3, 2, 0, 0)).conduct()["v2"] == Conduct(0.5, 0.5)


@pytest.mark.parametrize(("share", "amount"), [(0.5, 0.0), (0.55, 0.3), (0.6, 0.6), (2 / 3, 1.0), (0.9, 1.0)])
def test_a_unit_is_evidence_by_how_far_the_agreeing_weight_goes_from_half_to_two_thirds(share, amount):
    shown = held({"v0": YES, "v1": NO}, (share, 1 - share)).conduct()
    assert (shown["v0"].good, shown["v1"].bad) == pytest.approx((amount, amount), abs=1e-5)
    assert (shown["v0"].bad, shown["v1"].good) == (0.0, 0.0)


def test_less_than_half_of_the_weight_is_never_right_by_itself():
    assert held({"v0": YES, "v1": YES}, (1, 1, 1, 1, 1)).conduct()["v0"] == Conduct()


def test_members_with_a_third_of_the_weight_cannot_stop_all_evidence():
    election = held({"v0": YES, "v1": NO}, (0.6, 0.4))
    assert decisions(election) == ["undecided"] * 2
    assert election.conduct()["v1"].bad > election.conduct()["v1"].good


def test_an_election_survives_the_codec_in_every_phase():
    election = opened().committed("v0", sealed("v0", YES)).committed("v1", "junk")
    for _ in range(2):
        back = Election.of_state(unpack(pack(election.as_state())))
        assert back == election
        assert back.revealed("v0", YES, NONCE) == election.revealed("v0", YES, NONCE)
        election = election.advanced()
    state = election.as_state()
    assert set(state) == {item.name for item in fields(Election)}
    del state["weights"]
    with pytest.raises(StateError, match="lacks 'weights'"):
        Election.of_state(state)


def test_nothing_is_changed_in_place():
    election = opened()
    copy = replace(election)
    election.committed("v0", sealed("v0", YES)).advanced().revealed("v0", YES, NONCE)
    assert election == copy
    assert not election.commitments


def test_an_election_about_nobody_is_refused():
    with pytest.raises(InvalidValueError, match="at least one unit"):
        opened(units=())
