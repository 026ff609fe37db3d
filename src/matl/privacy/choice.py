"""The search for constants of the distributed mechanism: in floating point first, then certified in integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError
from matl.privacy.accounting import Adjacency
from matl.privacy.certificate import FRACTION_BITS, RESOLUTION, Certificate, CertificateError, Instance, certify
from matl.privacy.manifest import choose_squared_norm
from matl.privacy.prediction import Costs, Sums, coordinate_rates, gaussian_multiplier, largest_squared_norm, predict
from matl.privacy.secagg import Session
from matl.privacy.table import MAX_VARIANCE, skellam_table

__all__ = ["BLOCK", "FRAME", "Choice", "Target", "certified", "choose", "vector_bytes"]

BLOCK = 4096
"""Width of a Hadamard block: it stays in the first-level cache."""

FRAME = 8
"""Bytes around the words of a message (`matl.privacy.secagg.messages.MaskedInput`)."""

_WIDTHS = range(2, 11)  # bits of a word; more gain nothing that the sketch would not rather have
_ORDERS = np.array([*(i / 2 for i in range(3, 17)), *range(9, 17), 19, 20, 23, 24, 31, 32, 47, 48, 63, 64], float)
_CERTIFIED_ORDERS = ((8, 8), (1, 64))  # finer ones find nothing more that counts, and take twice the time
_BOUNDS = 2.0 ** -np.arange(7)
_STEPS = 14  # variances of the noise that are tried for a width, half an octave apart
_WIDEST = 6.0  # M over the largest standard deviation among them: beyond it, the noise alone wraps too often

# Sums that wrap count so often in the choice, though once in the prediction: where the blocks of an update differ in
# length, its sums have heavier tails than are predicted.
_TAIL = 4.0
_SPARE = 1.001  # a larger bound B costs hardly anything, and spares updates that live in few blocks
_BYTES = 1.01  # words of 8 bits need no packing; other widths have to be better by this factor

_WORST = 4.0
"""Mean squared error, without surplus noise, beyond which a sketch is not worth sending: as if epsilon were halved."""

_LEAST_UNITS = 64.0  # of 2^-24 that a coordinate has, or truncation to them would shorten updates


@dataclass(frozen=True, slots=True)
class Target:
    """What has to be proven: (epsilon, delta) after so many rounds."""

    epsilon: Fraction
    delta: Fraction
    rounds: int
    adjacency: Adjacency = Adjacency.ZERO_OUT

    @property
    def multiplier(self) -> float:
        """The noise multiplier z of central Gaussian noise that does the same."""
        return gaussian_multiplier(float(self.epsilon), float(self.delta), self.rounds, self.adjacency)


@dataclass(frozen=True, slots=True)
class Choice:
    """Constants and what they are predicted to cost."""

    instance: Instance
    sums: Sums
    costs: Costs


class _Setting(NamedTuple):
    """What is tried; the least rank is the best."""

    rank: float
    bits: int
    variance: float
    bound: float
    squared_norm: float
    sums: Sums


def choose(
    target: Target,
    sums: Sums,
    budget_bits: float,
    *,
    bits: int | None = None,
    fraction: float | None = None,
) -> Choice:
    """The constants with the least predicted error within a budget.

    Parameters
    ----------
    target : Target
        What has to be proven.
    sums : Sums
        What is unmasked. Of its layout only the size counts.
    budget_bits : float
        Bits per parameter that the words of an update may take, with what frames them.
    bits : int, optional
        b; the best one if not given.
    fraction : float, optional
        f; the largest one within the budget if not given.

    Returns
    -------
    Choice
        ``instance.squared_norm`` is a guess, which `certified` replaces.

    Raises
    ------
    InvalidValueError
        Nothing fits the budget, or what does is hardly worth sending.
    """
    z, size = target.multiplier, sums.layout.size
    if bits is not None and vector_bytes(1, bits) is None:
        known = ", ".join(str(width) for width in _WIDTHS if vector_bytes(1, width))
        raise InvalidValueError(f"expected bits to be one of {known}, as secure aggregation adds, got bits={bits}")
    found: list[_Setting] = []
    for width in _WIDTHS if bits is None else (bits,):
        layout = _layout(size, width, budget_bits, fraction)
        if layout is not None:
            found += _settings(target, replace(sums, layout=layout), width, z)
    for setting in sorted(found, key=lambda setting: setting.rank):
        instance = _instance(target, setting)
        if instance is not None:
            sketched = setting.sums
            costs = costs_of(instance, sketched, z)
            if costs.total - costs.surplus > _WORST:
                raise InvalidValueError(
                    f"expected a mean squared error of at most {_WORST:g} times that of central noise, got "
                    f"{costs.total - costs.surplus:.3g} within {budget_bits:g} bits per parameter: the sketch costs "
                    f"{costs.sketch:.3g}, rounding {costs.rounding:.3g}, sums that wrap {costs.wrap:.3g}"
                )
            return Choice(instance, sketched, costs)
    if found:
        raise InvalidValueError(
            f"expected noise that tables cover, got {sums.honest} honest shares in a sum: so few would need shares of "
            f"more noise than tables have, whose variance is at most {MAX_VARIANCE}"
        )
    raise InvalidValueError(
        f"expected room for a sketch whose coordinates 2^-{FRACTION_BITS} can resolve, got {budget_bits:g} bits for "
        f"each of {size} parameters at epsilon={float(target.epsilon):g} over {target.rounds} rounds"
    )


def costs_of(instance: Instance, sums: Sums, multiplier: float) -> Costs:
    """What an instance is predicted to cost."""
    table = instance.table
    squares = sum(value * value * count for value, count in enumerate(table, -(len(table) // 2)))
    variance = instance.survivors * squares / 2.0**instance.resolution
    return predict(sums, instance.bits, variance, float(instance.squared_norm), float(instance.bound), multiplier)


def certified(choice: Choice, target: Target) -> tuple[Instance, Certificate]:
    """The largest c^2 whose epsilon is certified to be at most the target's, and what it proves; takes seconds.

    Raises
    ------
    InvalidValueError
        There is none.
    """
    instance = choose_squared_norm(choice.instance, target.epsilon, target.adjacency)
    return instance, certify(instance)


def vector_bytes(words: int, bits: int) -> int | None:
    """Bytes in which secure aggregation sends so many words; ``None`` where it does not add modulo 2^bits.

    It must not add words of b bits modulo anything larger: how often their sum passes 2^b would be seen, of which the
    theorem says nothing.
    """
    try:
        return Session(run="plan", round=0, length=words, bits=bits, min_survivors=2).nbytes + FRAME
    except InvalidValueError:
        return None


def _layout(size: int, bits: int, budget_bits: float, fraction: float | None) -> BlockLayout | None:
    """The largest sketch within a budget."""

    def fits(rows: int) -> bool:
        sent = vector_bytes(BlockLayout(size, BLOCK, rows / BLOCK).kept, bits)
        return sent is not None and 8 * sent <= budget_bits * size

    if fraction is not None:
        rows = math.ceil(fraction * BLOCK)
    else:
        low, rows = 0, BLOCK + 1
        while rows - low > 1:
            middle = (low + rows) // 2
            low, rows = (middle, rows) if fits(middle) else (low, middle)
        rows = low
    return BlockLayout(size, BLOCK, rows / BLOCK) if rows and fits(rows) else None


@lru_cache(maxsize=len(_WIDTHS))
def _rates(bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Variances to choose from, and their rates for all bounds and orders."""
    variances = (2.0**bits / _WIDEST) ** 2 * 2 ** (-np.arange(_STEPS) / 2)
    return variances, coordinate_rates(bits, variances, _BOUNDS, _ORDERS)


def _settings(target: Target, sums: Sums, bits: int, multiplier: float) -> Iterator[_Setting]:
    """One setting per variance."""
    variances, rates = _rates(bits)
    squared_norm = largest_squared_norm(
        rates, _ORDERS, float(target.epsilon), float(target.delta), target.rounds, target.adjacency
    )
    units = np.sqrt(squared_norm / sums.layout.kept) * 2.0**FRACTION_BITS
    if not (units >= _LEAST_UNITS).any():
        return
    costs = predict(sums, bits, variances[:, None], squared_norm, _BOUNDS, multiplier)
    total = np.where(units >= _LEAST_UNITS, costs.total + (_TAIL - 1) * costs.wrap, np.inf)
    for i, row in enumerate(total):
        j = int(np.argmax(row <= row.min() * _SPARE))  # the largest bound that is nearly best
        if math.isfinite(row[j]):
            rank = float(row[j]) * (1.0 if bits == 8 else _BYTES)
            yield _Setting(rank, bits, float(variances[i]), float(_BOUNDS[j]), float(squared_norm[i, j]), sums)


def _instance(target: Target, setting: _Setting) -> Instance | None:
    """The instance of a setting, unless its noise is out of what tables and certificates cover."""
    bits, honest = setting.bits, setting.sums.honest
    scale = Fraction(2) ** (8 - math.frexp(setting.variance / honest)[1])  # eight significant bits will do
    share = round(Fraction(setting.variance / honest) * scale) / scale
    if share > MAX_VARIANCE:
        return None
    table = skellam_table(share)
    if honest * table.reach < 1 << (bits - 1):  # some residue would never be taken
        return None
    try:
        return Instance(
            bits=bits,
            table=table.counts,
            resolution=RESOLUTION,
            survivors=honest,
            bound=Fraction(setting.bound),
            squared_norm=Fraction(setting.squared_norm),
            transmissions=target.rounds,
            delta=target.delta,
            orders=_CERTIFIED_ORDERS,
        )
    except CertificateError:
        return None
