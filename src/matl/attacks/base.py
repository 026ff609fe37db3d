"""What an adversary is: it may poison data, craft what is uploaded, and tamper with the envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.records import Status, Update
from matl.registry import Registry

__all__ = ["ATTACKS", "Attack", "AttackView", "Directions", "Knowledge", "Rehearsal", "Validator"]


class Knowledge(StrEnum):
    """Declared threat model: what the adversary sees."""

    DATA = "data"  # its own clients' data only
    OWN_UPDATES = "own updates"  # also what its own clients would upload
    OMNISCIENT = "omniscient"  # also every honest update of the round
    WHITE_BOX = "white box"  # also the judge, its state and its root data, but not the seed of its next judgement


class Directions(Protocol):
    """Directions of training at one model, as `matl.trust.oracle.Atoms`."""

    @property
    def honest(self) -> Float32:
        """Shape (K, d); row c is training on clean samples of class c."""

    @property
    def poison(self) -> Float32:
        """Shape (K (K - 1), d); each row is training on samples of one class under another class's label."""

    @property
    def pairs(self) -> NDArray[np.int64]:
        """Shape (K (K - 1), 2); the true and the false class of each row of ``poison``."""


class Validator(Protocol):
    """What a white-box adversary knows of the validator's root data; see `matl.trust.oracle.Oracle`."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""

    def atoms(self, params: Float32, fold: int) -> Directions:
        """Directions at parameters (d,) from one fold of the root, 0 or 1."""

    def root_update(self, params: Float32, seed: int) -> Float32:
        """Update (d,) of a client that holds the whole root."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the judge in force would say of a round.

    Parameters
    ----------
    aggregate : float32 array of shape (d,)
        What it would hand to the server; zeros if it could not judge the round.
    weights : float64 array of shape (m,)
        Share of its own weight with which each malicious client would count.
    statuses : tuple of m Status
        What would be decided about each of them.
    evidence : tuple of m mappings
        The evidence in each verdict.
    """

    aggregate: Float32
    weights: NDArray[np.float64]
    statuses: tuple[Status, ...]
    evidence: tuple[Mapping[str, float], ...]

    @property
    def caught(self) -> NDArray[np.bool_]:
        """Which of the m malicious clients would be quarantined or rejected."""
        return np.array([status in (Status.QUARANTINED, Status.REJECTED) for status in self.statuses], np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackView:
    """What the adversary sees in one round. One mind steers all malicious clients.

    Parameters
    ----------
    round : int
        Index of the round, from 0.
    own : float32 array of shape (m, d)
        The updates its m participating clients would send if they followed the recipe on their own data.
    honest : float32 array of shape (h, d), or None
        The honest updates of the round, for omniscient and white-box adversaries.
    clients : int
        Number n of clients in the round.
    params : float32 array of shape (d,), or None
        The model that the clients started from.
    previous : float32 array of shape (d,), or None
        The last change of that model; ``None`` before there was one.
    rehearse : callable or None
        For white-box adversaries: what the judge in force would say if these updates (m, d) were sent. It judges with
        its true state and another seed than it will use, since that is drawn when the round is closed.
    oracle : Validator or None
        The validator's root data, for white-box adversaries.
    """

    round: int
    own: Float32
    honest: Float32 | None = None
    clients: int
    params: Float32 | None = None
    previous: Float32 | None = None
    rehearse: Callable[[Float32], Rehearsal] | None = None
    oracle: Validator | None = None

    @property
    def reference(self) -> Float32:
        """What the adversary takes for honest: the honest updates where it sees any, otherwise its own (h, d)."""
        return self.own if self.honest is None or not len(self.honest) else self.honest


ATTACKS: Registry[Attack] = Registry("attack")


class Attack:
    """An adversary; the base class attacks nothing.

    A subclass overrides what it needs: `poison` to change its clients' data, `craft` to change their updates, `tamper`
    to change whole messages, `at` to act in some rounds only. It keeps nothing from one round to the next, so that a
    run can be stopped and resumed.

    Examples
    --------
    >>> class Lazy(Attack):
    ...     '''Upload nothing new.'''
    ...
    ...     def craft(self, view, rng):
    ...         return np.zeros_like(view.own)
    >>> view = AttackView(round=0, own=np.ones((2, 3), np.float32), honest=None, clients=5)
    >>> Lazy().craft(view, np.random.default_rng(0)).sum()
    np.float32(0.0)
    """

    registry: ClassVar[Registry[Attack]] = ATTACKS

    @property
    def knowledge(self) -> Knowledge:
        """What the adversary sees."""
        return Knowledge.OWN_UPDATES

    def on(self, shape: tuple[int, ...] | None) -> Attack:
        """The attack on samples of a shape, (channels, height, width) for images; asked for once, before a run."""
        return self

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word; the base always acts
        """The attack in force in a round, or ``None`` for honest behaviour."""
        return self

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """Replace one malicious client's training data; ``X`` and ``y`` themselves cannot be written to."""
        return X, y

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Replace the updates (m, d) of all malicious clients of a round."""
        return view.own

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        """Replace one malicious client's message."""
        return update

    def triggered(self, X: Float32, y: NDArray[np.int64], num_classes: int) -> tuple[Float32, NDArray[np.int64]] | None:
        """Samples the attack wants misread, with the labels it wants; ``None`` for one that only wants to do harm.

        The share of them that the model gives the wanted label is the *attack success rate*.

        Parameters
        ----------
        X, y : arrays of shape (n, features) and (n,)
            Clean samples that the model was not trained on.
        num_classes : int
            Number of classes.

        Returns
        -------
        tuple of float32 array (k, features) and int64 array (k,), or None
            None of the wanted labels is the true one.
        """
        return None
