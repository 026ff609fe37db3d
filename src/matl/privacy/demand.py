"""What is wanted of a private federation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy.accounting import Adjacency
from matl.privacy.choice import Target
from matl.records import Visibility

__all__ = ["MAX_ROUNDS", "Demand", "Kind"]

MAX_ROUNDS = 10**6
"""That a certificate covers."""


class Kind(StrEnum):
    """Who adds the noise."""

    AUTO = "auto"  # whoever the visibility asks for
    DISTRIBUTED = "distributed"  # every client its share
    CENTRAL = "central"  # a server, or an oracle, that sees every update
    LOCAL = "local"  # every client all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is wanted.

    Parameters
    ----------
    clients : int
        Clients that are asked in a round.
    params : int
        Parameters of the model.
    rounds : int
        Rounds in which a client may take part, ever.
    epsilon, delta : float
        What one client's data are to be protected by over all of them.
    dropout : float
        Clients that may drop out of a round: a share below 1, or a number.
    corrupt : float
        Clients that may tell the server all they know, likewise.
    malicious : float
        Further clients that may send anything, likewise. Their noise is relied on as little as that of the corrupt.
    budget_bits : float
        Bits per parameter that an update may take; keys of secure aggregation come on top.
    visibility : Visibility
        What the judge sees.
    group_size : int, optional
        Fewest members of a group, for ``grouped``; the largest that bears the malicious clients if not given.
    mechanism : Kind
        Who adds the noise.
    alignment : float
        A = |sum of updates| / (n C), in (0, 1], as far as it is publicly known.
    adjacency : Adjacency
        To what epsilon refers.
    sampling : float, optional
        Secret probability with which a trusted server asks each client. ``clients`` are then all there are.
    clip : float
        C: norm to which updates are clipped, public.
    bits : int, optional
        Bits of a word; the best number if not given.
    fraction : float, optional
        Share of its rows that a sketch keeps; as much as the budget allows if not given.
    """

    clients: int
    params: int
    rounds: int
    epsilon: float
    delta: float
    dropout: float = 0.0
    corrupt: float = 0.0
    malicious: float = 0.0
    budget_bits: float = 3.2
    visibility: Visibility = Visibility.SUMMED
    group_size: int | None = None
    mechanism: Kind = Kind.AUTO
    alignment: float = 1.0
    adjacency: Adjacency = Adjacency.ZERO_OUT
    sampling: float | None = None
    clip: float = 1.0
    bits: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        validate.whole(1, clients=self.clients, params=self.params, rounds=self.rounds)
        validate.positive(epsilon=self.epsilon, budget_bits=self.budget_bits, clip=self.clip)
        if self.rounds > MAX_ROUNDS:
            raise InvalidValueError(f"expected rounds <= {MAX_ROUNDS}, got rounds={self.rounds}")
        if not 2.0**-200 <= self.delta < 1:
            raise InvalidValueError(
                f"expected 2^-200 <= delta < 1, got delta={self.delta}; a common choice is below 1 / clients"
            )
        for name in ("dropout", "corrupt", "malicious"):
            if self.count(name) > self.clients:
                raise InvalidValueError(
                    f"expected {name} as a share below 1 or a number up to clients={self.clients}, "
                    f"got {name}={getattr(self, name):g}"
                )
        shares = {"alignment": self.alignment, "sampling": self.sampling, "fraction": self.fraction}
        for name, share in shares.items():
            if share is not None and not 0 < share <= 1:
                raise InvalidValueError(f"expected 0 < {name} <= 1, got {name}={share}")
        if self.group_size is not None:
            validate.whole(1, group_size=self.group_size)

    def count(self, name: str) -> int:
        """How many clients ``dropout``, ``corrupt`` or ``malicious`` are, a share rounded up."""
        value: float = getattr(self, name)
        validate.non_negative(**{name: value})
        return math.ceil(Fraction(str(value)) * self.asked if value < 1 else value)

    @property
    def asked(self) -> int:
        """n: clients of a round; with sampling, on average."""
        return self.clients if self.sampling is None else max(1, round(self.clients * self.sampling))

    @property
    def kind(self) -> Kind:
        """The mechanism, if need be as the visibility asks for it."""
        if self.mechanism is not Kind.AUTO:
            return self.mechanism
        summed = self.visibility in (Visibility.SUMMED, Visibility.GROUPED)
        return Kind.DISTRIBUTED if summed else Kind.CENTRAL

    @property
    def target(self) -> Target:
        """What has to be proven."""
        return Target(Fraction(str(self.epsilon)), Fraction(str(self.delta)), self.rounds, self.adjacency)
