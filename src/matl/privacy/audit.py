"""An audit of private encoders: whether what one sends has the law of the theorem, seen from outside.

An encoder is audited as it runs, compiled and with its own randomness, through one function that turns a vector into
words. So it may be written in any language, and its words may come out of a file. docs/privacy/audit.md says what each
check sees, and what none of them can see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from matl import validate
from matl.codec.sketch import HadamardSketch
from matl.errors import ContractError, InvalidValueError, LayoutError
from matl.privacy.certificate import UNIT, Instance, certify
from matl.privacy.encoder import Encoder
from matl.privacy.leakage import coordinate_laws, exact_epsilon, frequencies, lower_bound

__all__ = ["AuditReport", "Check", "Encode", "audit", "sender"]

_Words = NDArray[np.unsignedinteger]
_Floats = NDArray[np.float64]
_Counts = NDArray[np.int64]

Encode = Callable[[_Floats, int], _Words]
"""``encode(x, n)``: words, unsigned of shape (n, m), of n transmissions of one client whose clipped and scaled sketch
is x, float64 of shape (m,). Every transmission has randomness of its own. Every call is another client. The bounds B
and c of the instance are the encoder's to enforce: some x are beyond them."""

_TOO_LONG = 1.25  # times c: what an encoder that forgets to shorten vectors is shown with
_RANDOM_CHECKS = 9  # that may fail by chance, each with the same share of `false_alarm`
_CELLS = 16  # of a word in a joint law: more would be mostly empty


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; it holds if ``value <= limit``, and otherwise ``meaning`` says what is wrong."""

    name: str
    value: float
    limit: float
    meaning: str

    @property
    def holds(self) -> bool:
        """Nothing is wrong."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Parameters
    ----------
    checks : tuple of Check
        Everything that was looked at.
    certified : float
        The certified zero-out epsilon.
    exact : (float, float)
        Lower and upper bound of the exact epsilon of the audit's canary, computed from the law.
    lower_bound : float
        The epsilon that an attack on the words has shown: an honest encoder has at least that much.
    trials : int
        Sums per case that the attack saw.
    false_alarm : float
        The probability with which an honest encoder does not pass is at most this, but for a lack of power.
    """

    checks: tuple[Check, ...]
    certified: float
    exact: tuple[float, float]
    lower_bound: float
    trials: int
    false_alarm: float

    @property
    def passed(self) -> bool:
        """Every check holds."""
        return not self.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        return tuple(
            f"{check.name}: {check.meaning} ({check.value:.5g}, allowed is {check.limit:.5g})"
            for check in self.checks
            if not check.holds
        )

    def __str__(self) -> str:
        lines = [
            f"{'PASSED' if self.passed else 'FAILED'}: epsilon >= {self.lower_bound:.3f} was shown by attack, "
            f"{self.exact[0]:.3f} to {self.exact[1]:.3f} is exact, {self.certified:.3f} is certified",
            *(f"  {check.name:12} {check.value:12.5g} of {check.limit:12.5g}" for check in self.checks),
            *(f"FINDING {finding}" for finding in self.findings),
        ]
        return "\n".join(lines)


def audit(
    encode: Encode,
    instance: Instance,
    *,
    coordinates: int = 16,
    trials: int = 1 << 18,
    power: float = 0.5,
    false_alarm: float = 1e-6,
) -> AuditReport:
    """Compare what an encoder sends with what its instance says, attack it, and check the certificate.

    Parameters
    ----------
    encode : callable
        The encoder; see `Encode`. It is called h + 4 times, for ``trials`` T transmissions each.
    instance : Instance
        What it claims to implement. Few survivors, coordinates and transmissions make a sharp audit.
    coordinates : int
        Length m of the vectors, an even number of at least c^2 / B^2.
    trials : int
        Sums that are attacked, of each case, an even number. To show half of an epsilon of 4 takes 2^18.
    power : float
        The share of the certified epsilon that the attack has to show; 0 for an audit of fewer trials.
    false_alarm : float
        How improbable it shall be that an honest encoder fails, in (0, 1].

    Returns
    -------
    AuditReport
        Nothing in it is random but what the encoder drew.

    Raises
    ------
    InvalidValueError
        A number is out of range.
    ContractError
        ``encode`` returned something else than unsigned words below M of shape (n, m).
    CertificateError
        The instance proves nothing.

    Notes
    -----
    **Fit.** Frequencies of values among n independent words are compared with their law by n times the relative
    entropy, that is half of the likelihood-ratio chi-square G. With k values, it exceeds t > k - 1 at most with
    probability ``exp(k - 1 - t) (t / (k - 1))^(k - 1)``, for every n and law, and likewise with degrees of freedom
    added up for independent samples (Agrawal 2020). No law of large numbers is relied upon, and no cell is too small.

    **Attack.** See `lower_bound`. **Means** are bounded by Bernstein's inequality. The limits of all checks together
    are exceeded at most with probability ``false_alarm``.

    References
    ----------
    Agrawal, "Finite-Sample Concentration of the Multinomial in Relative Entropy", IEEE Transactions on Information
    Theory 2020.

    Examples
    --------
    An encoder in NumPy, and what is said of it once it forgets the noise:

    >>> from fractions import Fraction
    >>> from matl.privacy.table import skellam_table
    >>> table = skellam_table("3/4").counts
    >>> shown = Instance(4, table, 40, 8, Fraction(13, 16), Fraction(25, 4), 1, Fraction(1, 1000))
    >>> def encode(x, n, noise=1):
    ...     rng = np.random.default_rng()
    ...     x = np.clip(x, -13 / 16, 13 / 16)
    ...     x = x * min(1, 2.5 / max(np.linalg.norm(x), 1e-9))
    ...     rounded = np.sign(x) * (rng.random((n, len(x))) < abs(x))
    ...     drawn = rng.choice(len(table), (n, len(x)), p=np.array(table) / 2**40) - len(table) // 2
    ...     return (rounded + noise * drawn).astype(int).astype(np.uint8) % 16
    >>> audit(encode, shown, trials=1 << 11, power=0).passed
    True
    >>> report = audit(lambda x, n: encode(x, n, noise=0), shown, trials=1 << 11, power=0)
    >>> report.findings[0]
    'shares: words of a client that has nothing to say do not have the law of the noise (..., allowed is 193.1)'
    """
    _require_sizes(instance, coordinates, trials)
    validate.fraction(power=power, false_alarm=false_alarm)
    validate.positive(false_alarm=false_alarm)
    level, certified = false_alarm / _RANDOM_CHECKS, certify(instance).zero_out.units / UNIT
    vectors, share = _Vectors.of(instance, coordinates), coordinate_laws(instance, [0.0])[0]
    drawn = instance.survivors * trials * instance.transmissions * coordinates
    window = _window(share, drawn, level)
    seen = _observe(encode, instance, vectors, trials, window)
    shown = lower_bound(seen.absent, seen.present, 1 << instance.bits, float(instance.delta), level)
    low, high = exact_epsilon(instance, coordinates)
    checks = (
        *_fits(seen, instance, vectors, level),
        Check("repeats", seen.repeats, 0, f"the same {window} words in a row were sent more than once"),
        *_limits(seen, instance, vectors, level),
        Check("attack", shown, certified, "an attack shows a larger epsilon than is certified"),
        Check("power", power * certified, shown, "the attack has to show more to mean anything: take more trials"),
        Check("certificate", low, certified, "the exact epsilon is larger than the certified one"),
    )
    return AuditReport(checks, certified, (low, high), shown, trials, false_alarm)


def sender(encoder: Encoder, seed: int = 0, *, at_once: bool = True) -> Encode:
    """MATL's own encoder as `audit` wants it: a vector becomes an update with that sketch, and goes all the way.

    Parameters
    ----------
    encoder : Encoder
        Its layout has no padding, and keeps so few rows that the sketches of some updates are 1.25 times as long as c.
    seed : int
        Of the sketch.
    at_once : bool
        Hand all transmissions of a client to one call of `Encoder.randomise`; otherwise each is a call of
        `Encoder.encode`, which takes a hundred times as long.

    Raises
    ------
    InvalidValueError
        The layout is another.
    """
    layout, kept, width = encoder.layout, encoder.layout.kept, encoder.layout.padded
    if width != layout.size or _TOO_LONG * math.sqrt(kept / width) * (1 + encoder.slack) > 1:
        raise InvalidValueError(
            f"expected a layout without padding that keeps at most {1 / _TOO_LONG**2:g} / (1 + slack)^2 of its rows, "
            f"got {kept} of {width} for a vector of {layout.size}; audit BlockLayout(64, block=64, fraction=0.25)"
        )
    sketch = HadamardSketch.draw(layout, seed)

    def encode(x: _Floats, n: int) -> _Words:
        if x.shape != (kept,):
            raise LayoutError("shape", f"expected vectors of shape ({kept},), got {x.shape}; see `coordinates`")
        update = sketch.backward((x * (kept / width / encoder.scale)).astype(np.float32))
        if at_once:
            return encoder.randomise(np.tile(encoder.fixed_point(update, seed), n)).reshape(n, kept)
        return np.stack([encoder.encode(update, seed) for _ in range(n)])

    return encode


# What is drawn


class _Vectors(NamedTuple):
    """What clients are shown with, each of shape (m,)."""

    canary: _Floats  # of length c, spread evenly
    ladder: _Floats  # values of both signs, as large as the bounds allow
    long: _Floats  # of a length beyond c
    spike: _Floats  # with a coordinate beyond B

    @classmethod
    def of(cls, instance: Instance, m: int) -> _Vectors:
        c, bound, steps = math.sqrt(instance.squared_norm), float(instance.bound), np.linspace(-1, 1, m)
        canary, first = np.full(m, c / math.sqrt(m)), np.eye(m)[0]
        return cls(canary, steps * min(bound, c / float(np.linalg.norm(steps))), _TOO_LONG * canary, 2 * bound * first)


@dataclass(frozen=True, slots=True)
class _Observed:
    """Frequencies of values, each of shape (samples, values), and sums, each of shape (trials, T m)."""

    shares: _Counts  # a sample for every client that sends zeros
    sums: _Counts
    rounding: _Counts  # a sample for every coordinate of the ladder, and one for the canary
    neighbours: _Counts  # pairs of coordinates: of zeros, and of the canary
    successors: _Counts  # pairs of transmissions: likewise
    long: _Counts  # a sample for every coordinate
    spike: _Counts
    repeats: int
    absent: _Words
    present: _Words


def _observe(encode: Encode, instance: Instance, vectors: _Vectors, trials: int, window: int) -> _Observed:
    """Call the encoder for h clients that send zeros, and for one that sends the canary in place of the last."""
    M, m, n = 1 << instance.bits, len(vectors.canary), trials * instance.transmissions

    def draw(x: _Floats) -> _Words:
        words = np.asarray(encode(x, n))
        if words.shape != (n, m) or not np.issubdtype(words.dtype, np.unsignedinteger):
            raise ContractError(f"expected unsigned words of shape {(n, m)}, got {words.dtype} of shape {words.shape}")
        if words.max() >= M:
            raise ContractError(f"expected words below M = {M}, got {words.max()}; reduce them modulo M")
        return np.ascontiguousarray(words, np.uint8 if M <= 1 << 8 else np.uint16)

    others, words = np.zeros((n, m), np.uint16), draw(np.zeros(m))
    shares, pairs, seen = frequencies([words], M), _pairs(words, M), _windows(words, window)
    for _ in range(instance.survivors - 1):
        others += words  # wraps at a multiple of M
        words = draw(np.zeros(m))
        shares = np.concatenate([shares, frequencies([words], M)])
        pairs += _pairs(words, M)
        seen += _windows(words, window)
    told = draw(vectors.canary)
    absent, present = ((others + last) & np.uint16(M - 1) for last in (words, told))
    rounding = frequencies([*draw(vectors.ladder).T, told], M)
    neighbours, successors = np.stack([pairs, _pairs(told, M)], axis=1)
    long, spike = (frequencies(draw(x).T, M) for x in (vectors.long, vectors.spike))
    return _Observed(
        shares, frequencies([absent], M), rounding, neighbours, successors, long, spike, len(seen) - len(set(seen)),
        absent.reshape(trials, -1), present.reshape(trials, -1),
    )  # fmt: skip


def _pairs(words: _Words, M: int) -> _Counts:
    """Low bits of coordinates 0 and 1, 2 and 3, ..., and of transmissions 0 and 1, 2 and 3, ..., counted together."""
    cells = min(M, _CELLS)
    low = (words & np.asarray(cells - 1, words.dtype)).astype(np.uint8)
    pairs = ((low[:, ::2], low[:, 1::2]), (low[::2], low[1::2]))
    return frequencies([np.uint8(cells) * first + second for first, second in pairs], cells * cells)


def _windows(words: _Words, length: int) -> list[bytes]:
    stream, size = words.tobytes(), length * words.itemsize
    return [stream[start : start + size] for start in range(0, len(stream) - size + 1, size)]


def _window(share: _Floats, words: int, level: float) -> int:
    """So many words in a row, a power of two, that no two of all windows agree, but for a probability of ``level``."""
    least = math.log(words**2 / level) / -math.log(float(share @ share))
    return 1 << max(0, math.ceil(math.log2(least)))


# The laws


def _fits(seen: _Observed, instance: Instance, vectors: _Vectors, level: float) -> list[Check]:
    zero, canary, *ladder = coordinate_laws(instance, [0.0, vectors.canary[0], *vectors.ladder])
    low = [shape.reshape(-1, min(len(shape), _CELLS)).sum(axis=0) for shape in (zero, canary)]
    joint = np.stack([np.outer(shape, shape).reshape(-1) for shape in low])
    expected = (
        ("shares", seen.shares, np.tile(zero, (len(seen.shares), 1)),
         "words of a client that has nothing to say do not have the law of the noise"),
        ("sums", seen.sums, coordinate_laws(instance, [0.0], instance.survivors),
         "sums over clients that have nothing to say do not have the law of their noise"),
        ("rounding", seen.rounding, np.stack([*ladder, canary]),
         "words of a client that has something to say do not have the law of rounded numbers and noise"),
        ("neighbours", seen.neighbours, joint, "neighbouring coordinates of a transmission are not independent"),
        ("successors", seen.successors, joint, "transmissions one after another are not independent"),
    )  # fmt: skip
    return [Check(name, *_fit(counts, laws, level), meaning) for name, counts, laws, meaning in expected]


def _fit(counts: _Counts, laws: _Floats, level: float) -> tuple[float, float]:
    """Total of n times relative entropies to the laws, and the limit that it keeps; see the notes of `audit`."""
    value = special.rel_entr(counts.astype(np.float64), counts.sum(axis=1, keepdims=True) * laws).sum()
    degrees = int((laws > 0).sum()) - len(laws)
    # t - k - k log(t / k) = log(1 / level) is solved by the lower branch of Lambert's W.
    branch = special.lambertw(-math.exp(math.log(level) / degrees - 1), -1) if degrees else 0.0
    return float(value), -degrees * float(np.real(branch))


# The client's bounds


def _limits(seen: _Observed, instance: Instance, vectors: _Vectors, level: float) -> list[Check]:
    expected = (
        ("norm", seen.long, vectors.long, math.sqrt(instance.squared_norm),
         f"a vector {_TOO_LONG} times as long as c is not shortened to c"),
        ("coordinate", seen.spike, vectors.spike, float(instance.bound),
         "a coordinate twice as large as B is not held at B"),
    )  # fmt: skip
    return [
        Check(name, *_reach(counts, x / np.linalg.norm(x), most, instance, level), meaning)
        for name, counts, x, most, meaning in expected
    ]


def _reach(counts: _Counts, way: _Floats, most: float, instance: Instance, level: float) -> tuple[float, float]:
    """How far words go a way of length 1 on average, and how far they may if ``sum(abs(way * x)) <= most``.

    The mean of a centred word is x, but for wrapping, which is taken into account; Bernstein's inequality says what
    chance adds to it.
    """
    M, n = counts.shape[1], int(counts[0].sum())
    values = (np.arange(M) + M // 2) % M - M // 2
    laws = coordinate_laws(instance, [0.0, 1.0, -1.0])
    (still, up, down), variance = laws @ values, (laws @ values**2).max()
    length, nats = np.abs(way).sum(), -math.log(level)
    wide = M * length * nats / 3
    chance = (wide + math.sqrt(wide * wide + 2 * n * variance * nats)) / n
    limit = most * max(abs(up - still), abs(down - still)) + length * abs(still) + chance
    return float(way @ (counts @ values)) / n, float(limit)


def _require_sizes(instance: Instance, coordinates: int, trials: int) -> None:
    validate.whole(2, coordinates=coordinates)
    validate.whole(4, trials=trials)
    least = instance.squared_norm / instance.bound**2
    if coordinates % 2 or coordinates < least:
        raise InvalidValueError(
            f"expected an even number of at least c^2 / B^2 = {float(least):g} coordinates, got {coordinates}"
        )
    if trials % 2:
        raise InvalidValueError(f"expected an even number of trials, got {trials}")
