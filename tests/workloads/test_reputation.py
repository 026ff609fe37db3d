"""Reputations that hosts read off verdicts are those of the trust room."""

from matl.records import Status, Verdict
from matl.trust.reputation import NEWCOMER, Reputations, conduct_of_verdicts
from matl.workloads import Earned

ROUNDS = [
    [("bob", Status.ACCEPTED), ("ann", Status.CLIPPED)],
    [("ann", Status.QUARANTINED), ("cid", Status.SUSPECTED), ("bob", Status.ACCEPTED)],
    [],
    [("ann", Status.ACCEPTED), ("cid", Status.REJECTED)],
]


def test_it_is_the_reputation_of_the_trust_room_round_by_round():
    earned, table = Earned(), Reputations.empty()
    for said in ROUNDS:
        earned = earned.after(said)
        table = table.after(conduct_of_verdicts(Verdict(client, 1.0, status) for client, status in said))
    names = sorted(earned.scores)
    assert names == ["ann", "bob", "cid"]
    assert [earned.scores[name] for name in names] == table.of(names).tolist()
    assert dict(earned.rounds) == {"ann": 3, "bob": 2, "cid": 2}
    assert earned.scores["cid"] == NEWCOMER  # known, and neither better nor worse than a newcomer


def test_who_sends_nothing_keeps_what_it_has_and_what_was_is_not_changed():
    before = Earned().after([("ann", Status.ACCEPTED)])
    after = before.after([("bob", Status.ACCEPTED)])
    assert after.scores["ann"] == before.scores["ann"] == 0.22
    assert "bob" not in before.scores
