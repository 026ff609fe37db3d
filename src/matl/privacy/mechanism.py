"""Mechanisms: who adds noise to the sum of a round's updates, what the server sees, and what that proves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec import FixedWidth
from matl.errors import InvalidValueError, LayoutError
from matl.params import Float32
from matl.privacy.accounting import (
    Adjacency,
    Guarantee,
    RdpCurve,
    certified_curve,
    gaussian_curve,
    sampled_gaussian_curve,
)
from matl.privacy.discrete_gaussian import MAX_SIGMA, discrete_gaussian
from matl.privacy.encoder import Encoder, clipped, fit
from matl.privacy.words import Words

__all__ = ["Central", "Distributed", "Local", "Mechanism"]

_GRID = 1 << 14
"""Default sigma of discrete Gaussian noise: grid steps per standard deviation."""

Ints = NDArray[Any]


class Mechanism(ABC):
    """A way to make sums of updates private.

    A client calls `encode` for its update, the server `total` for what arrives, and `decode_sum` for the total. Which
    of these may see what is what mechanisms differ in.

    **Adjacency** is zero-out: a client's data against zeros in their place; it takes part either way. `account` gives
    the figure against any other data as well. **Sensitivity**: an update counts with a norm of at most ``clip``, which
    is enforced in integers. **Bad input**: NaN, infinities and zeros are encoded as zeros.
    """

    sees: ClassVar[str]
    """What the server sees of a client."""

    @property
    @abstractmethod
    def clip(self) -> float:
        """Largest norm of an update: the sensitivity of a sum of updates."""

    @property
    @abstractmethod
    def words(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of what a client sends, packed."""

    def packed(self, sent: Ints) -> Ints:
        """What `encode` gave, in as few bytes as there are bits."""
        return sent

    def unpacked(self, words: Ints) -> Ints:
        """What was packed."""
        return words

    @property
    @abstractmethod
    def release(self) -> RdpCurve:
        """What one round costs a client that takes part in it, zero-out."""

    @abstractmethod
    def encode(self, update: Float32, seed: int, *, words: Words | None = None) -> Ints:
        """What a client sends, integers of shape (m,), for its update of shape (d,); ``seed`` is the round's."""

    @abstractmethod
    def total(self, sent: Iterable[Ints]) -> Ints:
        """The sum of what clients sent; whoever sends too much has its part reduced, or the sum wraps around."""

    @abstractmethod
    def decode_sum(self, total: Ints, seed: int, *, words: Words | None = None) -> Float32:
        """The private sum of updates, float32 of shape (d,), of a total."""

    def account(self, rounds: int, delta: Fraction, adjacency: Adjacency = Adjacency.ZERO_OUT) -> Guarantee:
        """(epsilon, delta) of a client after so many rounds."""
        curve = self.release.times(rounds)
        return (curve if adjacency is Adjacency.ZERO_OUT else curve.replaced()).guarantee(delta)


@dataclass(frozen=True)
class Distributed(Mechanism):
    """Every client adds its share of the noise; the server sees only the sum, by secure aggregation.

    Parameters
    ----------
    encoder : Encoder
        The certified encoder.

    Notes
    -----
    The guarantee needs ``encoder.instance.survivors`` honest clients in every sum, which clients have to enforce, and
    holds for as many transmissions as the instance says. See docs/privacy/theorem.md.
    """

    sees: ClassVar[str] = "nothing but the sum"

    encoder: Encoder

    @property
    def clip(self) -> float:
        """See `Mechanism.clip`."""
        return self.encoder.clip

    @property
    def words(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Mechanism.words`; unsigned, modulo M."""
        kept, bits = self.encoder.layout.kept, self.encoder.instance.bits
        return (kept if bits >= 8 else -(-kept * bits // 8),), self.encoder.dtype

    def packed(self, sent: Ints) -> Ints:
        """See `Mechanism.packed`."""
        bits = self.encoder.instance.bits
        if bits >= 8:
            return sent
        signed = (sent.astype(np.int8) << (8 - bits)) >> (8 - bits)  # the packer takes signed words
        return np.frombuffer(FixedWidth().pack(signed, bits), np.uint8)

    def unpacked(self, words: Ints) -> Ints:
        """See `Mechanism.unpacked`."""
        bits = self.encoder.instance.bits
        if bits >= 8:
            return words
        signed = FixedWidth().unpack(words.tobytes(), self.encoder.layout.kept, bits)
        return signed.view(np.uint8) & np.uint8((1 << bits) - 1)

    @cached_property
    def release(self) -> RdpCurve:
        """See `Mechanism.release`."""
        return certified_curve(self.encoder.instance)

    def encode(self, update: Float32, seed: int, *, words: Words | None = None) -> Ints:
        """See `Mechanism.encode`; unsigned words modulo M."""
        return self.encoder.encode(update, seed, words=words)

    def total(self, sent: Iterable[Ints]) -> Ints:
        """See `Mechanism.total`; the sum modulo M, as secure aggregation computes it."""
        total = np.zeros(self.encoder.layout.kept, self.encoder.dtype)
        for words in sent:
            total += words  # wraps, which is addition modulo 2^8 or 2^16, and so modulo M
        total &= total.dtype.type((1 << self.encoder.instance.bits) - 1)  # of what is beyond M nothing is proven
        return total

    def decode_sum(self, total: Ints, seed: int, *, words: Words | None = None) -> Float32:
        """See `Mechanism.decode_sum`; there is no noise left to add, and ``words`` are not used."""
        return self.encoder.decode_sum(total, seed)


@dataclass(frozen=True)
class _Grid(Mechanism):
    """Updates on a grid of integers, and discrete Gaussian noise.

    Parameters
    ----------
    size : int
        Length d of updates.
    clip_norm : float
        Largest norm C of an update; longer ones are shortened.
    multiplier : Fraction
        z: standard deviation of the noise over the sensitivity.
    sigma : int
        Grid steps per standard deviation of the noise, up to `MAX_SIGMA`. A fine grid costs nothing but bits.
    """

    size: int
    clip_norm: float
    multiplier: Fraction
    sigma: int = _GRID

    def __post_init__(self) -> None:
        validate.whole(1, size=self.size, sigma=self.sigma)
        validate.positive(clip_norm=self.clip_norm, multiplier=float(self.multiplier))
        if self.sigma > MAX_SIGMA:
            raise InvalidValueError(f"expected sigma <= {MAX_SIGMA}, got sigma={self.sigma}")
        if self._allowed < 1 or self._steps > 1 << 24:
            raise InvalidValueError(
                f"expected 1 to 2^24 grid steps to the clipping norm, got sigma={self.sigma} over "
                f"multiplier={float(self.multiplier):g}, which makes {self._steps:g}; choose another sigma"
            )

    @property
    def clip(self) -> float:
        """See `Mechanism.clip`."""
        return self.clip_norm

    @property
    def _steps(self) -> float:
        """Delta: grid steps to the clipping norm."""
        return self.sigma / float(self.multiplier)

    @property
    def _allowed(self) -> int:
        """Largest sum of squares of a client's integers, floor(Delta^2)."""
        return math.floor((self.sigma / Fraction(self.multiplier)) ** 2)

    def _rounded(self, update: Float32, stream: Words) -> NDArray[np.int32]:
        """An update on the grid, rounded at random, within the norm."""
        from matl.privacy import _encode

        if update.shape != (self.size,):
            raise LayoutError("shape", f"expected an update of shape ({self.size},), got {update.shape}")
        X = np.zeros(self.size, np.int32)
        short = clipped(update, self.clip_norm)
        if short is not None:
            _encode.round_to_grid(short[0], short[1] * self._steps / self.clip_norm, stream.take(self.size), X)
            fit(X, self._allowed)
        return X


@dataclass(frozen=True)
class Central(_Grid):
    """A trusted or attested server sees every update, sums what it has re-clipped, and adds the noise itself.

    Parameters
    ----------
    size, clip_norm, multiplier, sigma
        See `_Grid`.
    rate : Fraction or None
        Probability with which every client is drawn, independently for every round, and kept secret: then the noise
        protects more (Theorem C). ``None`` for everyone, or for a choice that others may know. A sum of a sample is
        divided by the *expected* number of clients, never by that of the sample.

    Examples
    --------
    >>> mechanism = Central(1000, clip_norm=1.0, multiplier=Fraction(7, 2))
    >>> updates = np.full((50, 1000), 0.01, np.float32)
    >>> total = mechanism.total(mechanism.encode(update, seed=0) for update in updates)
    >>> mechanism.decode_sum(total, seed=0).shape
    (1000,)
    >>> round(mechanism.account(30, Fraction(1, 100_000)).epsilon, 2)
    7.98
    """

    sees: ClassVar[str] = "every update"

    rate: Fraction | None = None

    @property
    def words(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Mechanism.words`."""
        return (self.size,), np.dtype(np.int32)

    @cached_property
    def release(self) -> RdpCurve:
        """See `Mechanism.release`."""
        z = self.multiplier
        return gaussian_curve(z) if self.rate is None else sampled_gaussian_curve(self.rate, z)

    def encode(self, update: Float32, seed: int, *, words: Words | None = None) -> Ints:
        """See `Mechanism.encode`; int32 without noise. A client may send its update in any other way instead."""
        return self._rounded(update, Words() if words is None else words)

    def total(self, sent: Iterable[Ints]) -> Ints:
        """See `Mechanism.total`; int64. Each part is re-clipped here: nobody else's privacy depends on its sender."""
        total = np.zeros(self.size, np.int64)
        for integers in sent:
            if integers.shape != (self.size,):
                raise LayoutError("shape", f"expected integers of shape ({self.size},), got {integers.shape}")
            X = np.clip(integers, -(1 << 24), 1 << 24).astype(np.int32)
            fit(X, self._allowed)
            total += X
        return total

    def decode_sum(self, total: Ints, seed: int, *, words: Words | None = None) -> Float32:
        """See `Mechanism.decode_sum`; adds the noise, so that it is to be called once for a round."""
        noisy = total + discrete_gaussian(self.size, self.sigma, words)
        return (noisy * (self.clip_norm / self._steps)).astype(np.float32)


@dataclass(frozen=True)
class Local(_Grid):
    """Every client adds all the noise that it needs; nobody has to be trusted, and the sum has the noise of everyone.

    With some hundreds of clients and 100,000 parameters little can be learned in this way; the planner says how little.
    What is done to the words afterwards, such as rounding them to fewer bits, costs no privacy.

    Parameters
    ----------
    size, clip_norm, multiplier, sigma
        See `_Grid`.
    """

    sees: ClassVar[str] = "every update, with noise"

    @property
    def words(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `Mechanism.words`."""
        return (self.size,), np.dtype(np.int64)

    @cached_property
    def release(self) -> RdpCurve:
        """See `Mechanism.release`."""
        return gaussian_curve(self.multiplier)

    def encode(self, update: Float32, seed: int, *, words: Words | None = None) -> Ints:
        """See `Mechanism.encode`; int64 with noise."""
        stream = Words() if words is None else words
        return self._rounded(update, stream) + discrete_gaussian(self.size, self.sigma, stream)

    def total(self, sent: Iterable[Ints]) -> Ints:
        """See `Mechanism.total`; int64. Numbers that no honest client sends are cut down."""
        total = np.zeros(self.size, np.int64)
        farthest = math.ceil(self._steps) + 64 * self.sigma
        for integers in sent:
            total += np.clip(integers, -farthest, farthest)
        return total

    def decode_sum(self, total: Ints, seed: int, *, words: Words | None = None) -> Float32:
        """See `Mechanism.decode_sum`; ``words`` are not used."""
        return (total * (self.clip_norm / self._steps)).astype(np.float32)
