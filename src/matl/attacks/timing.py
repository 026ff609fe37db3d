"""Attacks that choose when to act: sleepers."""

from __future__ import annotations

from dataclasses import dataclass, field

from matl import validate
from matl.attacks.base import ATTACKS, Attack
from matl.attacks.updates import SignFlip

__all__ = ["Sleeper"]


@ATTACKS.register("sleeper")
@dataclass(frozen=True, slots=True)
class Sleeper(Attack):
    """Behave honestly until a round, then attack.

    Parameters
    ----------
    wake_round : int
        First round, from 0, in which it attacks.
    attack : Attack
        What it does from then on.
    """

    wake_round: int = 10
    attack: Attack = field(default_factory=SignFlip)

    def __post_init__(self) -> None:
        validate.non_negative(wake_round=self.wake_round)

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word
        """``None`` before ``wake_round``, the other attack after."""
        return self.attack.at(round) if round >= self.wake_round else None
