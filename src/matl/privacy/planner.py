"""The planner: from what is wanted to constants that hold, what they cost and what they protect; or a refusal.

Utility is predicted in floating point. The privacy of a plan is not: it is certified before it is stated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

from matl.codec.sketch import BlockLayout
from matl.errors import BoundError, InvalidValueError
from matl.privacy.accounting import Adjacency, gaussian_curve, sampled_gaussian_curve
from matl.privacy.certificate import Instance
from matl.privacy.choice import BLOCK, Choice, certified, choose, costs_of, vector_bytes
from matl.privacy.demand import Demand, Kind
from matl.privacy.groups import FAILURE, Shares, contaminated_majority, count_groups, largest_malicious, plan_shares
from matl.privacy.manifest import Manifest
from matl.privacy.prediction import Costs, Sums, rounded_gaussian, sampled_multiplier
from matl.privacy.secagg.graph import MAX_CLIENTS
from matl.privacy.traffic import KeyTraffic, key_traffic
from matl.records import Visibility

__all__ = ["Demand", "Draft", "Kind", "Plan", "draft", "plan"]

_RESERVE = Fraction(1, 100)
"""Share of delta that is kept for random groups with more dishonest members than planned."""

_FINEST_STEP = 0.51  # of `matl.codec.RmsScaled`
_GRAIN = 1 << 10  # noise multipliers are multiples of its inverse
_ENTROPY_OVERHEAD = 200
"""Bytes of a container, its header and the frequencies of its words (`matl.codec`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan that is not certified yet.

    Parameters
    ----------
    demand : Demand
        With the group size that was chosen, if any.
    multiplier : float
        z of central continuous Gaussian noise that does the same: what ``costs`` are relative to.
    costs : Costs
        The predicted error.
    vector_bytes : int
        Of an update as it is sent, without keys.
    shares : Shares or None
        What every sum can be relied on to have, for the distributed mechanism; with ``choice``, its constants.
    step : float or None
        Of the codec ``rotated``, in root mean squares, for the others; ``None`` for float32.
    """

    demand: Demand
    multiplier: float
    costs: Costs
    vector_bytes: int
    shares: Shares | None = None
    choice: Choice | None = None
    step: float | None = None

    @property
    def bits_per_coordinate(self) -> float:
        """Bits on the wire per parameter, all but the keys of secure aggregation."""
        return 8 * self.vector_bytes / self.demand.params

    @property
    def key_traffic(self) -> KeyTraffic | None:
        """What secure aggregation sends beside the updates."""
        if self.shares is None:
            return None
        return key_traffic(self.shares.members, self.shares.min_survivors, self.shares.corrupt)

    @property
    def mse_ratio(self) -> float:
        """Mean squared error of a round's sum over that of central Gaussian noise, if nobody drops out."""
        return float(self.costs.total)

    @property
    def signal_to_noise(self) -> float:
        """Norm of the sum of updates of norm C over the norm of its error, in one round."""
        demand = self.demand
        return demand.alignment * demand.asked / (self.multiplier * math.sqrt(demand.params * self.mse_ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Draft):
    """Constants that hold.

    Parameters
    ----------
    zero_out, replace_one : float
        Certified epsilons, rounded up.
    instance : Instance or None
        The certified constants of the distributed mechanism.
    noise_multiplier : Fraction or None
        z of the central and the local mechanism.
    """

    zero_out: float
    replace_one: float
    instance: Instance | None = None
    noise_multiplier: Fraction | None = None

    @property
    def epsilon(self) -> float:
        """For the adjacency that was asked for."""
        return self.zero_out if self.demand.adjacency is Adjacency.ZERO_OUT else self.replace_one

    def manifest(self) -> Manifest:
        """What clients pin.

        Raises
        ------
        InvalidValueError
            Only the distributed mechanism has one.
        """
        if self.instance is None or self.choice is None:
            raise InvalidValueError(
                f"expected a plan with distributed noise to make a manifest of, got {self.demand.kind} noise, "
                "for which clients have no constants to agree on"
            )
        kept = self.choice.sums.layout.rows(BLOCK)
        return Manifest(self.instance, block=BLOCK, kept=kept, clip_norm=Fraction(str(self.demand.clip)))


def plan(demand: Demand) -> Plan:
    """Choose constants, certify them, and predict what they cost.

    Parameters
    ----------
    demand : Demand
        What is wanted.

    Returns
    -------
    Plan
        Its epsilon is certified, and never above the one asked for.

    Raises
    ------
    InvalidValueError
        It cannot be had; `matl.privacy.alternatives.nearest` says what can.
    BoundError
        So many clients are malicious that no rule can judge what it would see.

    Examples
    --------
    >>> found = plan(Demand(clients=100, params=117_000, rounds=30, epsilon=8.0, delta=1e-5))
    >>> found.instance.bits, round(found.bits_per_coordinate, 2), found.epsilon <= 8, round(found.mse_ratio, 2)
    (8, 3.2, True, 1.02)
    """
    made = draft(demand)
    return _proven_centrally(made) if made.choice is None else _proven_as_distributed(made, made.choice)


def draft(demand: Demand) -> Draft:
    """The plan before it is certified, which is quick; parameters and errors are those of `plan`."""
    kind, visibility = demand.kind, demand.visibility
    fitting = {
        Kind.DISTRIBUTED: (Visibility.SUMMED, Visibility.GROUPED),
        Kind.CENTRAL: (Visibility.CLEAR, Visibility.SEALED),
        Kind.LOCAL: (Visibility.CLEAR,),
    }[kind]
    if visibility not in fitting:
        raise InvalidValueError(
            f"expected visibility {' or '.join(fitting)} with {kind} noise, got {visibility}: "
            f"{_MISFITS[kind]}; change one of them"
        )
    if demand.sampling is not None and kind is not Kind.CENTRAL:
        raise InvalidValueError(
            f"expected no sampling with {kind} noise, got sampling={demand.sampling:g}: it protects only from those "
            "who cannot see who takes part, and here the server sees that; trust a server with it, or plan without"
        )
    demand = _judged(demand)
    return _distributed(demand) if kind is Kind.DISTRIBUTED else _encoded(demand)


_MISFITS = {
    Kind.DISTRIBUTED: "a single update has only a share of the noise, and must not be seen",
    Kind.CENTRAL: "whoever clips updates and adds the noise has to see them",
    Kind.LOCAL: "noise that protects each update by itself needs no secure aggregation, and is far more",
}


def _judged(demand: Demand) -> Demand:
    """The demand with a group size, if there is a way to judge as many malicious clients as it has."""
    n, m, size = demand.asked, demand.count("malicious"), demand.group_size
    if demand.visibility is Visibility.SUMMED and m:
        raise BoundError(
            f"expected malicious=0 where one masked sum is all that can be seen, got {m} of {n}: each of them moves "
            "the sum at will, and nobody can tell; attest clients, or let groups be seen"
        )
    if demand.kind is Kind.CENTRAL and m:
        raise BoundError(
            f"expected malicious=0 with central noise, got {m} of {n}: rules that bear them compare clients, so that "
            "one client's update moves the weights of all, and noise for a mean of clipped updates proves nothing; let "
            "groups be seen, or let every client add all of the noise (local), after which any rule may judge"
        )
    if demand.visibility is not Visibility.GROUPED:
        if 2 * m >= n:
            raise BoundError(f"expected fewer malicious clients than half of {n}, got {m}; no rule holds beyond it")
        return demand
    if size is None and not m:
        raise InvalidValueError("expected group_size, or malicious clients to choose it for, with grouped visibility")
    if size is None:
        sizes = range(2, n // 3 + 1)
        size = max(2, 1 + bisect_left(sizes, True, key=lambda g: contaminated_majority(n, g, m) > FAILURE))
    if size > n:
        raise InvalidValueError(f"expected group_size <= {n} clients, got group_size={size}")
    failure = contaminated_majority(n, size, m)
    if failure > FAILURE:
        raise BoundError(
            f"expected at most {largest_malicious(n, size)} of {n} clients malicious in groups of {size}, got "
            f"{m}: half of the {count_groups(n, size)} groups or more have a malicious member with the exact "
            f"(hypergeometric) probability {_probability(failure)}, and then no rule over group sums holds"
        )
    return replace(demand, group_size=size)


def _probability(exact: Fraction) -> str:
    """A probability with its distance from 0 or 1 to two digits."""
    if exact in (0, 1):
        return str(exact)
    return f"{float(exact):.2g}" if exact < Fraction(99, 100) else f"1 - {float(1 - exact):.2g}"


def _distributed(demand: Demand) -> Draft:
    n, groups = demand.asked, 1 if demand.group_size is None else count_groups(demand.asked, demand.group_size)
    if demand.visibility is Visibility.SUMMED:
        groups = 1
    if -(-n // groups) > MAX_CLIENTS:
        raise InvalidValueError(
            f"expected at most {MAX_CLIENTS} clients in one secure aggregation, got {-(-n // groups)}; ask fewer in a "
            "round, or let groups be seen"
        )
    target = demand.target
    dishonest = demand.count("corrupt") + demand.count("malicious")
    broken = target.delta * _RESERVE / demand.rounds
    shares = plan_shares(n, groups, demand.count("dropout"), dishonest, broken)
    if shares.broken:
        target = replace(target, delta=target.delta * (1 - _RESERVE))
    sums = Sums(n, shares.honest, BlockLayout(demand.params, BLOCK), groups, demand.alignment)
    choice = choose(target, sums, demand.budget_bits, bits=demand.bits, fraction=demand.fraction)
    choice = replace(choice, instance=replace(choice.instance, corrupt=shares.corrupt))
    sent = vector_bytes(choice.sums.layout.kept, choice.instance.bits)
    assert sent is not None  # noqa: S101 - `choose` takes no width that is not sent
    return Draft(
        demand=demand, multiplier=target.multiplier, costs=choice.costs, vector_bytes=sent, shares=shares, choice=choice
    )


def _encoded(demand: Demand) -> Draft:
    """Without secure aggregation any codec will do; the one that is planned with is ``rotated``, or float32."""
    z, d = _multiplier(demand), demand.params
    if demand.budget_bits >= 32:
        return Draft(demand=demand, multiplier=z, costs=_codec_costs(demand, z, 0.0), vector_bytes=4 * d)
    rotated = BlockLayout(d, BLOCK).padded

    def sent(step: float) -> int:
        return math.ceil(rotated * (rounded_gaussian(step)[0] + 32 / BLOCK) / 8) + _ENTROPY_OVERHEAD

    steps = [_FINEST_STEP * 2 ** (i / 8) for i in range(88)]
    i = bisect_left(steps, True, key=lambda step: 8 * sent(step) <= demand.budget_bits * d)
    if i == len(steps):
        raise InvalidValueError(
            f"expected budget_bits >= {8 * sent(steps[-1]) / d:.3g} for {d} parameters, got {demand.budget_bits:g}"
        )
    costs = _codec_costs(demand, z, rounded_gaussian(steps[i])[1])
    return Draft(demand=demand, multiplier=z, costs=costs, vector_bytes=sent(steps[i]), step=steps[i])


def _multiplier(demand: Demand) -> float:
    if demand.sampling is None:
        return demand.target.multiplier
    return sampled_multiplier(demand.epsilon, demand.delta, demand.rounds, demand.sampling, demand.adjacency)


def _codec_costs(demand: Demand, z: float, error: float, used: float | None = None) -> Costs:
    """Of a codec whose mean squared error is ``error`` times the square of what it is given."""
    n, energy = demand.asked, 1 / (demand.params * z * z)
    noise = 1.0 if used is None else (used / z) ** 2
    if demand.kind is Kind.CENTRAL:
        return Costs(noise=noise, rounding=n * error * energy)
    return Costs(noise=noise, surplus=(n - 1) * noise, rounding=n * error * (noise + energy))


def _proven_centrally(made: Draft) -> Plan:
    demand, target = made.demand, made.demand.target
    z = Fraction(math.ceil(made.multiplier * _GRAIN), _GRAIN)
    while True:
        if demand.sampling is None:
            spent = gaussian_curve(z).times(demand.rounds)
        else:
            spent = sampled_gaussian_curve(Fraction(str(demand.sampling)), z).times(demand.rounds)
        figures = {Adjacency.ZERO_OUT: spent.guarantee(target.delta).epsilon}
        figures[Adjacency.REPLACE_ONE] = spent.replaced().guarantee(target.delta).epsilon
        if figures[demand.adjacency] <= demand.epsilon:
            break
        z += Fraction(1, _GRAIN)  # the search in floating point, which may be off by its last digit, was optimistic
    error = 0.0 if made.step is None else rounded_gaussian(made.step)[1]
    return Plan(
        **_fields(made, costs=_codec_costs(demand, made.multiplier, error, used=float(z))),
        zero_out=figures[Adjacency.ZERO_OUT],
        replace_one=figures[Adjacency.REPLACE_ONE],
        noise_multiplier=z,
    )


def _fields(made: Draft, **changed: Any) -> dict[str, Any]:
    return {item.name: getattr(made, item.name) for item in fields(made)} | changed


def _proven_as_distributed(made: Draft, choice: Choice) -> Plan:
    target = made.demand.target
    target = replace(target, delta=choice.instance.delta)
    instance, certificate = certified(choice, target)
    return Plan(
        **_fields(made, costs=costs_of(instance, choice.sums, made.multiplier)),
        zero_out=float(str(certificate.zero_out)),
        replace_one=float(str(certificate.replace_one)),
        instance=instance,
    )
