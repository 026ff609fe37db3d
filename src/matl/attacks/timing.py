"""Attacks that choose when to act: sleepers, on-off attackers, and those that begin softly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.attacks.base import ATTACKS, Attack, AttackView
from matl.attacks.wrapper import Wrapper
from matl.params import Float32
from matl.records import Update

__all__ = ["OnOff", "Sleeper", "SlowDrift"]


@ATTACKS.register("sleeper")
@dataclass(frozen=True, slots=True)
class Sleeper(Wrapper):
    """Behave honestly until a round, then attack.

    Parameters
    ----------
    attack : Attack
        What it does from then on.
    wake_round : int
        First round, from 0, in which it attacks.
    """

    wake_round: int = 10

    def __post_init__(self) -> None:
        validate.non_negative(wake_round=self.wake_round)

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word
        """``None`` before ``wake_round``, the other attack after."""
        return self.attack.at(round) if round >= self.wake_round else None


@ATTACKS.register("on_off")
@dataclass(frozen=True, slots=True)
class OnOff(Wrapper):
    """Behave honestly and attack by turns, to earn back what the attack cost in trust.

    Parameters
    ----------
    attack : Attack
        What it does when it is on.
    period : int
        Rounds of one turn, >= 1.
    duty : float
        Share of the turn, at its end, in which it attacks, in (0, 1].

    References
    ----------
    Sun et al., "Defense of Trust Management Vulnerabilities in Distributed Networks", IEEE Communications
    Magazine 2008.
    """

    period: int = 10
    duty: float = 0.5

    def __post_init__(self) -> None:
        validate.whole(1, period=self.period)
        validate.fraction(duty=self.duty)
        validate.positive(duty=self.duty)

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word
        """``None`` in the first part of each turn, the other attack in the last."""
        on = round % self.period >= self.period - max(1, int(self.duty * self.period + 1e-9))
        return self.attack.at(round) if on else None


@ATTACKS.register("slow_drift")
@dataclass(frozen=True, slots=True)
class SlowDrift(Wrapper):
    """Begin with no more than a trace of an attack and strengthen it round by round.

    Parameters
    ----------
    attack : Attack
        What it turns into.
    rounds : int
        T: in round t, from 0, its strength is min(1, t / T).

    Notes
    -----
    With strength s and the other attack's update v in place of the honest u, u + s (v - u) is uploaded; of the data, a
    share s of the samples is poisoned, the same ones and more every round.
    """

    rounds: int = 20

    def __post_init__(self) -> None:
        validate.whole(1, rounds=self.rounds)

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word
        """The other attack at the strength of the round."""
        acting = self.attack.at(round)
        return None if acting is None else _Diluted(acting, min(1.0, round / self.rounds))


@dataclass(frozen=True, slots=True)
class _Diluted(Wrapper):
    """An attack at a strength in [0, 1]; see `SlowDrift`."""

    strength: float = 1.0

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        order = rng.permutation(len(y))
        count = round(self.strength * len(y))
        if not count:
            return X, y
        poisoned_X, poisoned_y = self.attack.poison(X[order[:count]], y[order[:count]], num_classes, rng)
        return np.concatenate([poisoned_X, X[order[count:]]]), np.concatenate([poisoned_y, y[order[count:]]])

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        return view.own + np.float32(self.strength) * (self.attack.craft(view, rng) - view.own)

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        return self.attack.tamper(update, rng) if rng.random() < self.strength else update
