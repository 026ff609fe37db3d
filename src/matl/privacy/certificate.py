"""Check that a privacy manifest proves the epsilon it states: one file, and nothing but Python's standard library.

::

    python certificate.py MANIFEST.json

Nothing here is an estimate. The law of the noise is enclosed between whole numbers; everything after it is an integer
that counts units of 2^-384 and is rounded up, so that what comes out is an upper bound of what the theorem speaks of.
Lemmas are numbered as in docs/privacy/theorem.md. Python 3.11 or newer; a manifest takes seconds.
"""

from __future__ import annotations

import argparse
import decimal
import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "FORMAT",
    "FRACTION_BITS",
    "MAX_BYTES",
    "ORDERS",
    "RESOLUTION",
    "UNIT",
    "VERSION",
    "Certificate",
    "CertificateError",
    "Document",
    "Figure",
    "Instance",
    "Law",
    "bounds",
    "canonical",
    "certify",
    "check",
    "epsilon",
    "fewer_survivors",
    "fraction",
    "instance_of",
    "law",
    "log_up",
    "main",
    "order_grid",
    "read",
    "replaced",
    "sha256",
    "shortfall",
    "statement",
    "tightest",
    "tightest_replace_one",
]

FORMAT, VERSION = "matl privacy manifest", 2
FRACTION_BITS, RESOLUTION = 24, 40  # one 64-bit word rounds a coordinate, and draws its noise
ORDERS = ((16, 8), (4, 16), (1, 64))  # multiples of 1/16 up to 8, then of 1/4 up to 16, then whole ones up to 64

_PRECISION = 384
UNIT = 1 << _PRECISION  # the fixed-point number 1
_GUARD = 32  # more bits within a logarithm
_PLACES = 9  # decimals of a stated epsilon
_ROOTS = 6  # orders are multiples of 2^-6: a square root is taken at most six times
MAX_BYTES = 1 << 18  # of a manifest; the longest table takes a quarter of it
_LAW_PLACES = 160  # decimals of a law, at first
_LAW_DIGITS = 120  # that the rarest residue has to have of them: more than 2^-384 has
_MOST_LAW_PLACES = 640  # at 12 bits these are tens of seconds of multiplication, and below a second up to 8


class CertificateError(ValueError):
    """A manifest cannot be read, lies outside what the theorem covers, or states what it does not prove."""


def _require(holds: bool, expected: str, seen: object) -> None:
    if not holds:
        text = str(seen)
        raise CertificateError(f"expected {expected}, got {text if len(text) <= 80 else text[:77] + '...'}")


@dataclass(frozen=True, slots=True)
class Instance:
    """The constants of the theorem, and how finely it is evaluated; refuses those for which it says nothing.

    Parameters
    ----------
    bits : int
        b: messages are added modulo M = 2^b.
    table : tuple of int
        The law of one noise share, in units of 2^-resolution, on the values -t .. t; symmetric.
    resolution : int
        R: the table adds up to 2^R.
    survivors : int
        h: noise shares of honest clients in every sum that is ever unmasked, the client's own among them.
    bound, squared_norm : Fraction
        B and c^2: what the client enforces of its vector x before it rounds, every |x_j| <= B and sum x_j^2 <= c^2.
    transmissions : int
        T: how often the client sends, ever.
    delta : Fraction
        The delta of (epsilon, delta).
    orders : tuple of (int, int)
        Rényi orders, see `order_grid`.
    cells : int
        Parts of [0, B] on which the divergence of a coordinate is bounded separately (Lemma 3); 1 is the plain
        end-point bound.
    corrupt : int
        c: clients of a sum that may be dishonest, at most, so that their noise is not relied on. What is proven
        does not depend on it, but whether it holds does: a client cannot tell who is honest, and sees to h honest ones
        by unmasking no sum over fewer than h + c.
    """

    bits: int
    table: tuple[int, ...]
    resolution: int
    survivors: int
    bound: Fraction
    squared_norm: Fraction
    transmissions: int
    delta: Fraction
    orders: tuple[tuple[int, int], ...] = ORDERS
    cells: int = 8
    corrupt: int = 0

    def __post_init__(self) -> None:
        _require(2 <= self.bits <= 12, "2 to 12 bits", self.bits)
        _require(1 <= self.resolution <= RESOLUTION, f"a resolution of 1 to {RESOLUTION} bits", self.resolution)
        length = len(self.table)
        _require(length % 2 == 1 and length < 1 << 12, "a table on -t .. t with t < 2048", f"{length} entries")
        _require(self.table == self.table[::-1], "a symmetric table", "one whose halves differ")
        _require(min(self.table) >= 0, "a table without negative numbers", min(self.table))
        _require(sum(self.table) == 1 << self.resolution, f"a table with the sum 2^{self.resolution}", sum(self.table))
        _require(1 <= self.survivors <= 1 << 20, "1 to 2^20 survivors", self.survivors)
        _require(0 <= self.corrupt <= 1 << 20, "0 to 2^20 corrupt clients", self.corrupt)
        _require(0 < self.bound <= 1, "0 < bound <= 1", self.bound)
        # Below 2^15 the client's sum of squares, in units of 2^-48, fits 63 bits.
        _require(0 < self.squared_norm < 1 << 15, "0 < squared_norm < 2^15", self.squared_norm)
        _require(1 <= self.transmissions <= 10**6, "1 to 1000000 transmissions", self.transmissions)
        _require(Fraction(1, 1 << 256) <= self.delta < 1, "2^-256 <= delta < 1", self.delta)
        _require(1 <= self.cells <= 64, "1 to 64 cells", self.cells)
        order_grid(self.orders)

    @property
    def min_survivors(self) -> int:
        """Clients that a sum has to be over so that h of them are honest: h + c."""
        return self.survivors + self.corrupt


@dataclass(frozen=True, slots=True)
class Figure:
    """An upper bound of epsilon, in units of 2^-384, and the Rényi order that it comes from."""

    units: int
    order: Fraction

    def __str__(self) -> str:
        whole, rest = divmod(_up(self.units * 10**_PLACES, UNIT), 10**_PLACES)
        return f"{whole}.{rest:0{_PLACES}}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an instance proves of one client: against nothing in its place, and against anything in its place.

    ``curve`` maps orders to the Rényi divergence of all transmissions, zero-out, in units of 2^-384.
    """

    zero_out: Figure
    replace_one: Figure
    curve: Mapping[Fraction, int]


def order_grid(segments: Sequence[Sequence[int]]) -> tuple[Fraction, ...]:
    """Rényi orders > 1, ascending: multiples of 1/denominator up to the order ``last``, then those of the next pair.

    Examples
    --------
    >>> [str(order) for order in order_grid([(2, 3), (1, 5)])]
    ['3/2', '2', '5/2', '3', '4', '5']
    """
    orders: list[Fraction] = []
    for denominator, last in segments:
        _require(
            denominator in (1, 2, 4, 8, 16, 32, 64), "a power of two up to 64 as an order's denominator", denominator
        )
        _require(1 < last <= 256, "orders of at most 256", last)
        first = (math.floor(orders[-1] * denominator) if orders else denominator) + 1
        orders += [Fraction(i, denominator) for i in range(first, last * denominator + 1)]
    _require(2 <= len(orders) <= 1024, "2 to 1024 orders", len(orders))
    return tuple(orders)


# Fixed point: every operation rounds up, and all factors are >= 0


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _scaled(value: int, factor: Fraction) -> int:
    return _up(value * factor.numerator, factor.denominator)


def _times(a: int, b: int) -> int:
    return -(-a * b >> _PRECISION)


def _root(a: int) -> int:
    return math.isqrt((a << _PRECISION) - 1) + 1


def log_up(x: Fraction) -> int:
    """An upper bound of the natural logarithm of x > 0, too large by less than 2^-380.

    Examples
    --------
    >>> math.isclose(log_up(Fraction(1, 3)) / UNIT, -math.log(3))
    True
    """
    binary = x.numerator.bit_length() - x.denominator.bit_length()
    rest = x / Fraction(2) ** binary  # within (1/2, 2), so that both series have |y| <= 1/3
    value = binary * _twice_atanh(Fraction(1, 3)) + _twice_atanh((rest - 1) / (rest + 1))
    return _up(value + (abs(binary) + 1 << 16), 1 << _GUARD)


def _twice_atanh(y: Fraction) -> int:
    """``2 atanh(y)``, |y| <= 1/3, in units of 2^-416: 132 terms at most, each off by less than 4, and so by < 2^16."""
    shift = _PRECISION + _GUARD
    power = (abs(y.numerator) << shift) // y.denominator
    square, total, n = power * power >> shift, 0, 1
    while power:
        total += power // n
        power, n = power * square >> shift, n + 2
    return 2 * total if y > 0 else -2 * total


# The law of the noise

_REACHING = "noise that reaches every residue (more shares, or a finer table)"


class Law(NamedTuple):
    """A law on Z_M, enclosed: t has a probability from ``numerators[t]`` to ``short`` more than that, over ``total``.

    It is exact where nothing is short.
    """

    numerators: Sequence[int]
    total: int
    short: int = 0


def law(table: Sequence[int], survivors: int, modulus: int, places: int = _LAW_PLACES) -> Law:
    """The law of a sum of noise shares on Z_M, the cyclic power of the table, to so many decimals (Lemma 8).

    One long number holds all numerators, so that one product is a convolution. It has decimal digits, because `decimal`
    multiplies long numbers in nearly linear time and `int` does not, and since text is cut where it should be rounded
    down; a digit that is lost in any other way raises `decimal.Inexact`.

    Those of one share are too low by less than 1. Those of A + B are too low by less than those of A, those of B and 1
    together, since neither add up to more than the total: at h shares, by less than 2 h - 1.

    Examples
    --------
    >>> found = law([1, 2, 1], survivors=2, modulus=4)
    >>> [16 * numerator / found.total for numerator in found.numerators], found.short
    ([6.0, 4.0, 2.0, 4.0], 3)
    """
    folded, one, width = [0] * modulus, 10**places, 2 * places + len(str(modulus))
    for value, count in enumerate(table, -(len(table) // 2)):
        folded[value % modulus] += count
    exact = decimal.Context(decimal.MAX_PREC, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[decimal.Inexact])
    with decimal.localcontext(exact):

        def digits(number: decimal.Decimal, count: int) -> list[str]:
            text = str(number).zfill(width * modulus)
            return [text[start : start + count] for start in range(0, width * modulus, width)]

        def product(a: decimal.Decimal, b: decimal.Decimal) -> decimal.Decimal:
            text = str(a * b)
            around = decimal.Decimal(text[-width * modulus :]) + decimal.Decimal(text[: -width * modulus] or 0)
            return decimal.Decimal("".join(part.zfill(width) for part in digits(around, width - places)))

        shares = (decimal.Decimal(count * one // sum(folded)) for count in reversed(folded))
        base = power = decimal.Decimal("".join(str(share).zfill(width) for share in shares))
        for bit in f"{survivors:b}"[1:]:
            power = product(power, power)
            if bit == "1":
                power = product(power, base)
        return Law([int(decimal.Decimal(part)) for part in reversed(digits(power, width))], one, 2 * survivors - 1)


def _resolved(table: Sequence[int], survivors: int, modulus: int) -> Law:
    """The law to so many decimals that what is cut off does not count."""
    missed = modulus - 1 - 2 * survivors * (len(table) // 2)
    _require(missed <= 0, _REACHING, f"{missed} it never takes")
    places = _LAW_PLACES
    while True:
        noise = law(table, survivors, modulus, places)
        if min(noise.numerators) >= noise.short * 10**_LAW_DIGITS:
            return noise
        places *= 2
        rare = f"one that it takes with a probability below 10^-{places // 2 - _LAW_DIGITS - len(str(noise.short))}"
        _require(places <= _MOST_LAW_PLACES, _REACHING, rare)


# Lemmas 2 to 4: one coordinate


def bounds(noise: Law, bound: Fraction, orders: Sequence[Fraction], cells: int = 1) -> dict[Fraction, int]:
    """K_a of every order a: the Rényi divergences of a coordinate x, 0 < abs(x) <= B, are at most K_a x^2.

    Only that of P_x from W is bounded; since W is symmetric, that of W from P_x is never larger (Lemma 4).

    Parameters
    ----------
    noise : Law
        W, the symmetric law of the noise on Z_M.
    bound : Fraction
        B, in (0, 1].
    orders : sequence of Fraction
        Ascending orders > 1, multiples of 1/64.
    cells : int
        Parts into which [0, B] is divided.

    Returns
    -------
    dict of Fraction to int
        Upper bounds in units of 2^-384.

    Raises
    ------
    CertificateError
        The noise never takes some residue, so that a divergence is infinite.
    """
    weights, total, short = noise
    zeros = sum(weight == 0 for weight in weights)
    _require(zeros == 0, _REACHING, f"{zeros} it never takes")
    _require(list(weights[1:]) == list(weights[:0:-1]), "a symmetric law", "another")
    pairs = list(zip(weights, [weights[-1], *weights[:-1]], strict=True))  # W(t), W(t - 1)
    # E g^2 and E g^3 of g = W(t - 1) / W(t) - 1, from the moments of that ratio, whose mean is 1.
    second = sum(_up((b + short) ** 2 << _PRECISION, w * total) for w, b in pairs)
    second_down = sum((b * b << _PRECISION) // ((w + short) * total) for w, b in pairs)
    third = sum(_up((b + short) ** 3 << _PRECISION, w * w * total) for w, b in pairs)
    variance, skew = second - UNIT, third - 3 * second_down + 2 * UNIT
    nodes = [bound * i / cells for i in range(1, cells + 1)]
    density = [_up(w + short << _PRECISION, total) for w, _ in pairs]
    heights = []
    for n, d in (x.as_integer_ratio() for x in nodes):
        ratios = [_up((d - n) * w + n * (b + short) << _PRECISION, d * w) for w, b in pairs]  # of P_x and W
        moments = _moments(density, ratios, orders)
        heights.append([_scaled(moment - UNIT, Fraction(d, n) ** 2) for moment in moments])  # h_a(x)
    found = {}
    for i, a in enumerate(orders):
        at_zero = _scaled(variance, a * (a - 1) / 2)
        ends = [at_zero, *(row[i] for row in heights)]
        if 2 < a < 3:  # there h is concave, and its tangent at 0 lies above it
            ends = [at_zero + max(0, _scaled(skew, a * (a - 1) * (a - 2) / 6 * x)) for x in (Fraction(0), *nodes)]
        found[a] = _scaled(_largest(nodes, ends), 1 / (a - 1))
    return found


def _moments(density: Sequence[int], ratios: Sequence[int], powers: Sequence[Fraction]) -> list[int]:
    """Upper bounds of E ratio^power for ascending powers > 1."""
    steps = [divmod(int(power * (1 << _ROOTS)), 1 << _ROOTS) for power in powers]
    parts = sorted({part for _, part in steps})
    totals = [0] * len(steps)
    for weight, ratio in zip(density, ratios, strict=True):
        roots = [ratio]
        while len(roots) <= _ROOTS:
            roots.append(_root(roots[-1]))
        fractional = {}
        for part in parts:
            fractional[part] = UNIT
            for k in range(1, _ROOTS + 1):
                if part >> (_ROOTS - k) & 1:
                    fractional[part] = _times(fractional[part], roots[k])
        done, power = 0, weight
        for i, (whole, part) in enumerate(steps):
            while done < whole:
                power, done = _times(power, ratio), done + 1
            totals[i] += _times(power, fractional[part]) if part else power
    return totals


def _largest(nodes: Sequence[Fraction], heights: Sequence[int]) -> int:
    """Upper bound of log(1 + x^2 h(x)) / x^2, where h is below the larger of the heights at the ends of every cell."""
    found = max(heights[:2])
    for x, low, high in zip(nodes, heights[1:], heights[2:], strict=False):  # the last node begins no cell
        if max(low, high) > found:  # else log(1 + v) <= v says enough
            square = x * x
            found = max(found, _scaled(log_up(1 + square * Fraction(max(low, high), UNIT)), 1 / square))
    return found


# Lemmas 5 to 7: all coordinates and transmissions, and epsilon


def epsilon(order: Fraction, divergence: int, delta: Fraction) -> int:
    """The epsilon of delta if the Rényi divergence of an order is at most this, both in units of 2^-384 (Lemma 7)."""
    rest = _scaled(log_up(1 / (delta * order)), 1 / (order - 1))
    return max(0, divergence + log_up(1 - 1 / order) + rest)


def tightest(curve: Mapping[Fraction, int], delta: Fraction) -> Figure:
    """The smallest epsilon that any order gives."""
    return min((Figure(epsilon(a, r, delta), a) for a, r in curve.items()), key=lambda figure: figure.units)


def tightest_replace_one(curve: Mapping[Fraction, int], delta: Fraction) -> Figure:
    """The same between any two inputs, from a curve between an input and zero, whichever comes first."""
    return tightest(replaced(curve), delta)


def replaced(curve: Mapping[Fraction, int]) -> dict[Fraction, int]:
    """The curve between any two inputs: at half of every order that is 1 above another (Lemma 6)."""
    found = {a / 2: _scaled(curve[a - 1], a / (a - 1)) + r for a, r in curve.items() if a - 1 in curve}
    _require(bool(found), "two orders that differ by 1", "none")
    return found


@functools.lru_cache(maxsize=16)
def certify(instance: Instance) -> Certificate:
    """What an instance proves; remembered, since it takes a second, as is what does not depend on c^2, T and delta.

    Raises
    ------
    CertificateError
        Nothing: its noise never takes some residue.
    """
    rates = _rates(instance.table, instance.survivors, instance.bits, instance.bound, instance.orders, instance.cells)
    spent = instance.transmissions * instance.squared_norm
    curve = {a: _scaled(rate, spent) for a, rate in rates.items()}
    return Certificate(tightest(curve, instance.delta), tightest_replace_one(curve, instance.delta), curve)


@functools.lru_cache(maxsize=16)
def _rates(
    table: tuple[int, ...], survivors: int, bits: int, bound: Fraction, orders: tuple[tuple[int, int], ...], cells: int
) -> dict[Fraction, int]:
    return bounds(_resolved(table, survivors, 1 << bits), bound, order_grid(orders), cells)


def fewer_survivors(instance: Instance, counts: Sequence[int] | None = None) -> dict[int, Figure | None]:
    """Zero-out epsilon if only so many honest shares are in every sum; None where there is no bound at all.

    The counts are 15/16, 25/32, 1/2 and 1/4 of the survivors unless they are given.
    """
    if counts is None:
        h = instance.survivors
        counts = sorted({h * 30 // 32, h * 25 // 32, h // 2, h // 4} - {0, h}, reverse=True)
    figures: dict[int, Figure | None] = {}
    for count in counts:
        try:
            figures[count] = certify(replace(instance, survivors=count)).zero_out
        except CertificateError:
            figures[count] = None
    return figures


# The file


_KEYS = {field.name for field in fields(Instance)} | {"format", "version", "fraction_bits", "epsilon", "public"}


def canonical(body: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest that are hashed and signed: JSON with sorted keys, no spaces, ASCII, no floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def sha256(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical bytes."""
    return hashlib.sha256(canonical(body)).hexdigest()


class Document(NamedTuple):
    """The parts of a manifest's file; the signature is not looked at here."""

    body: dict[str, Any]
    sha256: str
    signature: object


def read(document: bytes) -> Document:
    """Take a manifest's file apart.

    Raises
    ------
    CertificateError
        It is too large, is no JSON of the right form, or has not the hash that it states.
    """
    _require(len(document) <= MAX_BYTES, f"at most {MAX_BYTES} bytes", len(document))
    try:
        content = json.loads(
            document, object_pairs_hook=_object, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CertificateError(f"this is no JSON: {error}") from error
    body = _field(content, "manifest", dict)
    found = sha256(body)
    _require(_field(content, "sha256", str) == found, f"the SHA-256 {found} of its content", content["sha256"])
    return Document(body, found, content.get("signature"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(pairs)) == len(pairs), "every key once", sorted(key for key, _ in pairs))
    return dict(pairs)


def _integer(text: str) -> int:
    _require(len(text) <= 20, "whole numbers of at most 20 digits", text)
    return int(text)


def _refuse(text: str) -> None:
    raise CertificateError(f"expected whole numbers, and fractions as text such as '1/3', got {text}")


def _field(content: Any, name: str, kind: type) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    _require(type(value) is kind, f"{name!r}, a JSON {kind.__name__}", repr(value))
    return value


def fraction(body: Mapping[str, Any], name: str) -> Fraction:
    """A field of a JSON object that is a fraction >= 0 in lowest terms, such as ``"137/1024"``."""
    text = _field(body, name, str)
    fits = re.fullmatch(r"(0|[1-9][0-9]{0,79})(/[1-9][0-9]{0,79})?", text)
    _require(fits is not None and str(Fraction(text)) == text, f"{name!r} as a fraction in lowest terms", text)
    return Fraction(text)


def instance_of(body: dict[str, Any]) -> Instance:
    """The constants of a manifest.

    Raises
    ------
    CertificateError
        One is missing, malformed or not covered by the theorem, or the manifest is of another version.
    """
    known = body.get("format") == FORMAT and body.get("version") == VERSION
    older = " (version 1 does not say how many clients may be corrupt; have a new one made)"
    _require(known, f"a {FORMAT} of version {VERSION}{older}", f"{body.get('format')} {body.get('version')}")
    odd = sorted(body.keys() ^ _KEYS)
    _require(not odd, "all fields of a manifest and no others", f"{odd} too many or missing")
    _require(body.get("fraction_bits") == FRACTION_BITS, f"{FRACTION_BITS} fraction_bits", body.get("fraction_bits"))
    table, orders = _field(body, "table", list), _field(body, "orders", list)
    _require(all(type(count) is int for count in table), "a table of whole numbers", table)
    pairs = all(type(pair) is list and [type(item) for item in pair] == [int, int] for pair in orders)
    _require(pairs, "orders as pairs of whole numbers", orders)
    return Instance(
        bits=_field(body, "bits", int),
        table=tuple(table),
        resolution=_field(body, "resolution", int),
        survivors=_field(body, "survivors", int),
        bound=fraction(body, "bound"),
        squared_norm=fraction(body, "squared_norm"),
        transmissions=_field(body, "transmissions", int),
        delta=fraction(body, "delta"),
        orders=tuple((denominator, last) for denominator, last in orders),
        cells=_field(body, "cells", int),
        corrupt=_field(body, "corrupt", int),
    )


def check(document: bytes, pinned: str | None = None) -> tuple[Instance, Certificate, str]:
    """Read a manifest and prove what it states; returns its constants, the proof's figures and its SHA-256.

    Raises
    ------
    CertificateError
        It cannot be read or proves nothing, it is not the one whose hash is pinned, or it states another epsilon.
    """
    body, digest, _ = read(document)
    _require(pinned in (None, digest), f"the manifest with SHA-256 {pinned}", digest)
    instance = instance_of(body)
    certificate = certify(instance)
    stated = _field(body, "epsilon", dict)
    for name, figure in (("zero_out", certificate.zero_out), ("replace_one", certificate.replace_one)):
        _require(stated.get(name) == str(figure), f"the certified {name} epsilon {figure}", stated.get(name))
    return instance, certificate, digest


def statement(instance: Instance, certificate: Certificate, digest: str) -> str:
    """What was proven, in words."""
    zero, other, modulus, honest = certificate.zero_out, certificate.replace_one, 1 << instance.bits, instance.survivors
    return f"""\
manifest {digest}: its content has this hash, and proves what it states

CERTIFIED for one client: all its data, its at most {instance.transmissions} transmissions, delta = {instance.delta}
  epsilon <= {zero}  against sending zeros instead (zero-out; Rényi order {zero.order})
  epsilon <= {other}  against any other data in its place (replace-one; Rényi order {other.order})
PROVIDED THAT in every transmission
  the client enforces |x_j| <= {instance.bound} and sum x_j^2 <= {instance.squared_norm} in integers, before it rounds;
  only a sum modulo {modulus} is unmasked, with the noise of {honest} honest clients or more, itself included:
    it unmasks none over fewer than {instance.min_survivors} clients, of whom at most {instance.corrupt} are dishonest;
  nothing else that depends on its data leaves the client.
NOT PROTECTED: that the client takes part. NOT CHECKED HERE: signatures, secure aggregation, the client's code.
"""


def shortfall(figures: Mapping[int, Figure | None]) -> str:
    """What `fewer_survivors` found, in words."""
    lines = [
        f"  {count:>7}  epsilon <= {figure}" if figure else f"  {count:>7}  unbounded"
        for count, figure in figures.items()
    ]
    return "\n".join(["IF FEWER HONEST CLIENTS SURVIVE in every transmission, zero-out becomes", *lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the manifest that the command line names; returns 0, or 2 if it is refused."""
    parser = argparse.ArgumentParser(description="Check that a privacy manifest proves the epsilon it states.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--sha256", help="refuse any manifest but the one with this hash")
    options = parser.parse_args(arguments)
    try:
        with options.manifest.open("rb") as stream:
            instance, certificate, digest = check(stream.read(MAX_BYTES + 1), options.sha256)
    except (CertificateError, OSError) as error:
        sys.stderr.write(f"REFUSED: {options.manifest}: {error}\n")
        return 2
    sys.stdout.write(statement(instance, certificate, digest) + shortfall(fewer_survivors(instance)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
