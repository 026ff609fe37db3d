"""RB-BFT: a committee of validators votes on units, weighted by reputation, in two phases that forbid copying.

Validators own different roots, so their results are never equal and no hash of them can be agreed on; what they can
agree on is a yes or no about each unit. An `Election` is a pure state machine over plain data. Its host passes on
messages whose sender it has authenticated, and decides when a phase is over; everything else happens here.
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import TypeGuard

from matl import validate
from matl.errors import InvalidValueError, StateError
from matl.state import State, digest
from matl.trust.reputation import Conduct

__all__ = ["NONCE_BYTES", "Decision", "Election", "Fault", "Phase", "Tally", "commitment"]

NONCE_BYTES = 16
"""Fewest bytes of a nonce. Votes have little entropy: without one, trying all of them would open a commitment."""

_WHOLE = 1_000_000  # weights are kept in millionths of the committee's, whole numbers, so that tallies are exact


class Phase(StrEnum):
    """What an election waits for."""

    COMMIT = "commit"
    REVEAL = "reveal"
    CLOSED = "closed"


class Decision(StrEnum):
    """What a committee says about a unit."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Fault:
    """A message that did not count.

    Parameters
    ----------
    validator : str
        Who sent it.
    code : str
        ``"late_commitment"``, ``"unreadable_commitment"``, ``"conflicting_commitment"``, ``"early_reveal"``,
        ``"late_reveal"``, ``"uncommitted_reveal"``, ``"unreadable_reveal"`` or ``"mismatched_reveal"``.
    reason : str
        The same in words.
    """

    validator: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The result about one unit.

    Parameters
    ----------
    unit : str
        The unit's id.
    decision : Decision
        Accepted or rejected by more than two thirds of the registered weight, else undecided.
    accept, reject, absent : float
        Shares of the registered weight; they add up to 1.
    reason : str
        The decision in words, with its numbers.
    """

    unit: str
    decision: Decision
    accept: float
    reject: float
    absent: float
    reason: str


def commitment(run: str, round: int, validator: str, votes: Mapping[str, bool], nonce: bytes) -> str:  # noqa: A002
    """What a validator publishes before anyone shows a vote: SHA-256 (hex) over all that its vote consists of.

    The hash holds the validator's own id, so somebody else's commitment is of no use to a copyist.

    Parameters
    ----------
    run, round : str, int
        What is voted on.
    validator : str
        Who votes.
    votes : mapping of str to bool
        For every unit, true to accept it.
    nonce : bytes
        At least 16 fresh random bytes, such as ``secrets.token_bytes(16)``. It must be kept until the reveal.

    Examples
    --------
    >>> commitment("demo", 3, "v1", {"a": True, "b": False}, b"sixteen bytes....")[:12]
    '50d38a3f2e82'
    """
    if len(nonce) < NONCE_BYTES:
        raise InvalidValueError(
            f"expected a nonce of at least {NONCE_BYTES} bytes, got {len(nonce)}; "
            f"take secrets.token_bytes({NONCE_BYTES})"
        )
    return digest(
        {"kind": "vote", "run": run, "round": round, "validator": validator, "votes": dict(votes), "nonce": nonce}
    )


@dataclass(frozen=True)
class Election:
    """One committee's votes on the units of one round.

    The first commitment of a validator stands, and a reveal that fits it counts. Sending the same again changes
    nothing; any other message is recorded as a `Fault` (the first of its kind per validator, so that nobody can fill
    the record) and does not count. Who did not reveal in time is absent, and absent weight counts against every
    decision.

    Parameters
    ----------
    run, round : str, int
        What is voted on.
    units : tuple of str
        Ids of the units.
    weights : mapping of str to int
        The registered validators and their weight in millionths of the committee's.
    phase : Phase
        What it waits for.
    commitments : mapping of str to str
        By validator.
    votes : mapping of str to mapping of str to bool
        By validator, what was revealed and fits its commitment.
    faults : tuple of Fault
        In order of arrival.

    Examples
    --------
    >>> nonce = b"fresh random bytes"
    >>> election = Election.opened("demo", 0, ["u"], {"v1": 0.3, "v2": 0.3, "v3": 0.3, "v4": 0.1})
    >>> for name in ("v1", "v2", "v3"):
    ...     election = election.committed(name, commitment("demo", 0, name, {"u": True}, nonce))
    >>> election = election.advanced()
    >>> for name in ("v1", "v2", "v3"):
    ...     election = election.revealed(name, {"u": True}, nonce)
    >>> election.advanced().tallies()[0].reason
    '90.0 % of the registered weight accept, 0.0 % reject, 10.0 % are absent; more than two thirds are needed'
    """

    run: str
    round: int
    units: tuple[str, ...]
    weights: Mapping[str, int]
    phase: Phase = Phase.COMMIT
    commitments: Mapping[str, str] = field(default_factory=dict)
    votes: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @classmethod
    def opened(cls, run: str, round: int, units: Sequence[str], shares: Mapping[str, float]) -> Election:  # noqa: A002
        """A new election.

        Parameters
        ----------
        run, round : str, int
            What is voted on.
        units : sequence of str
            Ids of the units, unique.
        shares : mapping of str to float
            Voting weight of every registered validator, >= 0, in any unit; see `matl.trust.reputation.voting_shares`.
        """
        if len(set(units)) != len(units):
            raise InvalidValueError("expected unique unit ids, got duplicates")
        if not units:
            raise InvalidValueError("expected at least one unit to vote on, got none")
        if not shares:
            raise InvalidValueError("expected at least one validator, got none")
        validate.non_negative(**{f"shares[{name!r}]": value for name, value in shares.items()})
        total = math.fsum(shares.values()) or 1.0
        whole = {name: int(_WHOLE * value / total + 0.5) for name, value in shares.items()}
        return cls(run, round, tuple(units), whole)

    def committed(self, validator: str, sent: object) -> Election:
        """The election after a validator sent what should be its `commitment`."""
        self._check_registered(validator)
        known = self.commitments.get(validator)
        if self.phase is not Phase.COMMIT:
            return self._faulted(validator, "late_commitment", f"committed in the phase {self.phase.value!r}")
        if not isinstance(sent, str) or not re.fullmatch("[0-9a-f]{64}", sent):
            return self._faulted(validator, "unreadable_commitment", "expected 64 hexadecimal digits of SHA-256")
        if known is None:
            return replace(self, commitments={**self.commitments, validator: sent})
        if hmac.compare_digest(known, sent):
            return self  # sent twice, as networks do
        return self._faulted(
            validator, "conflicting_commitment", f"committed to {sent[:12]} after {known[:12]}, which stands"
        )

    def revealed(self, validator: str, votes: object, nonce: object) -> Election:
        """The election after a validator showed what should be its votes and the nonce of its commitment."""
        self._check_registered(validator)
        if self.phase is not Phase.REVEAL:
            early = self.phase is Phase.COMMIT
            code, when = ("early_reveal", "before all had committed") if early else ("late_reveal", "after the end")
            return self._faulted(validator, code, f"revealed {when}; the vote does not count")
        known = self.commitments.get(validator)
        if known is None:
            return self._faulted(validator, "uncommitted_reveal", "revealed a vote it had not committed to")
        if not self._readable(votes) or not isinstance(nonce, bytes) or len(nonce) < NONCE_BYTES:
            return self._faulted(
                validator, "unreadable_reveal", f"expected true or false per unit and >= {NONCE_BYTES} bytes of nonce"
            )
        shown = commitment(self.run, self.round, validator, votes, nonce)
        if not hmac.compare_digest(known, shown):
            return self._faulted(
                validator,
                "mismatched_reveal",
                f"revealed what hashes to {shown[:12]}, having committed to {known[:12]}",
            )
        return replace(self, votes={**self.votes, validator: dict(votes)})

    def advanced(self) -> Election:
        """The election in its next phase: from commit to reveal, from reveal to closed."""
        if self.phase is Phase.CLOSED:
            raise InvalidValueError("expected an open election, got a closed one; open another for the next round")
        return replace(self, phase=Phase.REVEAL if self.phase is Phase.COMMIT else Phase.CLOSED)

    def tallies(self) -> tuple[Tally, ...]:
        """The result about each unit, in their order; of a closed election."""
        self._check_closed()
        return tuple(self._tally(unit) for unit in self.units)

    def conduct(self) -> dict[str, Conduct | None]:
        """What a closed election shows of its validators, for `matl.trust.reputation.Reputations.after`.

        With ``s`` the share of the registered weight that agrees on a unit, the unit is evidence of the amount
        ``(s - 1/2) / (2/3 - 1/2)``, held to [0, 1]: nothing up to half of the weight, all where it is decided. Good
        and bad conduct are the mean evidence of the units on which a validator voted with and against that side. One
        that committed and did not reveal has seen others' votes first: all bad. One that never committed is absent,
        ``None``.

        Notes
        -----
        Were only decided units evidence, members with more than a third of the weight could stop all evidence along
        with all decisions, and never lose anything. Were anything above half full evidence, they could turn a few
        honest errors into evidence against the honest.
        """
        self._check_closed()
        sides, amounts = {}, {}
        for unit in self.units:
            accept, reject = self._weights(unit)
            sides[unit] = accept > reject
            beyond_half = 2 * max(accept, reject) - self._total
            amounts[unit] = min(max(3.0 * beyond_half / max(self._total, 1), 0.0), 1.0)
        return {validator: self._conduct(validator, sides, amounts) for validator in self.weights}

    def as_state(self) -> State:
        """The election as plain data."""
        return {
            "run": self.run,
            "round": self.round,
            "units": list(self.units),
            "weights": dict(self.weights),
            "phase": self.phase.value,
            "commitments": dict(self.commitments),
            "votes": {validator: dict(votes) for validator, votes in self.votes.items()},
            "faults": [[fault.validator, fault.code, fault.reason] for fault in self.faults],
        }

    @classmethod
    def of_state(cls, state: State) -> Election:
        """What `as_state` gave.

        Raises
        ------
        StateError
            Something is missing.
        """
        try:
            values = {item.name: state[item.name] for item in fields(cls)}
        except KeyError as error:
            raise StateError(f"the state of the election lacks {error}; it was not written by this version") from error
        parsed = {
            "units": tuple(values["units"]),
            "phase": Phase(values["phase"]),
            "faults": tuple(Fault(*fault) for fault in values["faults"]),
        }
        return cls(**values | parsed)

    def _conduct(self, validator: str, sides: Mapping[str, bool], amounts: Mapping[str, float]) -> Conduct | None:
        votes = self.votes.get(validator)
        if votes is None:
            return Conduct(bad=1.0) if validator in self.commitments else None
        good = math.fsum(amount for unit, amount in amounts.items() if votes[unit] is sides[unit])
        bad = math.fsum(amount for unit, amount in amounts.items() if votes[unit] is not sides[unit])
        return Conduct(good / len(self.units), bad / len(self.units))

    @cached_property
    def _total(self) -> int:
        return sum(self.weights.values())

    def _weights(self, unit: str) -> tuple[int, int]:
        accept, reject = 0, 0
        for validator, votes in self.votes.items():
            if votes[unit]:
                accept += self.weights[validator]
            else:
                reject += self.weights[validator]
        return accept, reject

    def _tally(self, unit: str) -> Tally:
        accept, reject = self._weights(unit)
        total = self._total
        decision = Decision.UNDECIDED
        if 3 * accept > 2 * total:
            decision = Decision.ACCEPTED
        elif 3 * reject > 2 * total:
            decision = Decision.REJECTED
        whole = max(total, 1)
        shares = (accept / whole, reject / whole, 1.0 - (accept + reject) / whole)
        accepting, rejecting, absent = (f"{100 * share:.1f} %" for share in shares)
        reason = (
            f"{accepting} of the registered weight accept, {rejecting} reject, {absent} are absent; "
            "more than two thirds are needed"
        )
        return Tally(unit, decision, *shares, reason)

    def _faulted(self, validator: str, code: str, reason: str) -> Election:
        if any(fault.validator == validator and fault.code == code for fault in self.faults):
            return self
        return replace(self, faults=(*self.faults, Fault(validator, code, reason)))

    def _readable(self, votes: object) -> TypeGuard[Mapping[str, bool]]:
        # Nobody may leave a unit out: abstaining would stop decisions at no cost.
        return (
            isinstance(votes, Mapping)
            and votes.keys() == set(self.units)
            and all(isinstance(vote, bool) for vote in votes.values())
        )

    def _check_registered(self, validator: str) -> None:
        if validator not in self.weights:
            raise InvalidValueError(
                f"expected a registered validator, got {validator!r}; the host drops messages of strangers"
            )

    def _check_closed(self) -> None:
        if self.phase is not Phase.CLOSED:
            raise InvalidValueError(f"expected a closed election, got phase {self.phase.value!r}; advance it first")
