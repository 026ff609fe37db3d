"""The private encoder: from a client's update to words whose sum, and nothing else, may be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec.sketch import BlockLayout, HadamardSketch
from matl.errors import InvalidValueError, LayoutError
from matl.params import Float32
from matl.privacy.certificate import FRACTION_BITS, RESOLUTION, Instance
from matl.privacy.timing import BLOCK_WORDS, Stopwatch, timed
from matl.privacy.words import Words

__all__ = ["Encoder", "clipped", "fit"]

_ONE = 1 << FRACTION_BITS
_PARTS = 1 << 12  # of the noise's 40 bits, in which a search for it begins
_CHUNK = 1 << 14  # coordinates whose squares are summed in 63 bits
_AT_ONCE = 1 << 15  # coordinates that are rounded at a time: their words stay in the second-level cache
_HUGE = 1e30  # norms beyond which float32 may overflow in a transform


@dataclass(frozen=True)
class Encoder:
    """Clip, sketch, re-clip in integers, round, add a share of the noise, reduce modulo M.

    ``encode`` is what the theorem of docs/privacy/theorem.md speaks of, with the constants of its ``instance``; up to
    `fixed_point` everything may be done in floating point, because what it returns is checked in integers.

    Parameters
    ----------
    instance : Instance
        The certified constants; its table must have a resolution of 40 bits.
    layout : BlockLayout
        Length d of updates, and how much of every block is sent: m numbers.
    clip : float
        Largest norm C of an update; longer ones are shortened. Public, or accounted for elsewhere.
    slack : float
        By how much less than c the sketch is scaled to. A sketch is as long as the vector only on average, and what is
        too long is shortened by the re-clip; ``3 sqrt((1 - f) / 2 m)`` avoids that nearly always, 0 bears it.
    stopwatch : Stopwatch, optional
        Times what `encode` does.
    terms : str
        SHA-256 of the manifest that the constants are from, for secure aggregations of what is encoded; ``""`` if none.

    Notes
    -----
    **Guarantee.** Zero-out adjacency: see `matl.privacy.certificate.Certificate`. **NaN or infinite updates** are taken
    for zeros, and so is, for want of a better answer, one that cannot be re-clipped; a client that sends zeros is
    protected like any other. **Timing** of the noise's search depends on what is drawn; whoever measures it on the same
    machine is out of scope.

    Examples
    --------
    >>> from fractions import Fraction
    >>> table = (1 << 38, 1 << 39, 1 << 38)  # far too little noise for any privacy; for show
    >>> shown = Instance(8, table, 40, 4, Fraction(1, 8), Fraction(20), 1, Fraction(1, 100000))
    >>> encoder = Encoder(shown, BlockLayout(1000), clip=1.0)
    >>> update = np.full(1000, 0.01, np.float32)
    >>> words = encoder.encode(update, seed=3)
    >>> words.dtype, words.shape
    (dtype('uint8'), (1024,))
    >>> encoder.decode_sum(words, seed=3).shape
    (1000,)
    """

    instance: Instance
    layout: BlockLayout
    clip: float
    slack: float = 0.0
    stopwatch: Stopwatch | None = field(default=None, compare=False, repr=False)
    terms: str = ""

    def __post_init__(self) -> None:
        validate.positive(clip=self.clip)
        validate.non_negative(slack=self.slack)
        if self.instance.resolution != RESOLUTION:
            raise InvalidValueError(
                f"expected a noise table with a resolution of {RESOLUTION} bits, got {self.instance.resolution}; "
                "make one with matl.privacy.table.skellam_table"
            )
        if not 1 / _HUGE <= self.clip <= _HUGE:
            raise InvalidValueError(f"expected {1 / _HUGE:g} <= clip <= {_HUGE:g}, got clip={self.clip}")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Type of the words: uint8 up to 8 bits, or else uint16."""
        return np.dtype(np.uint8 if self.instance.bits <= 8 else np.uint16)

    @cached_property
    def scale(self) -> float:
        """What a number of the sketch is multiplied with, so that an update of norm C has norm c."""
        kept = self.layout.kept / self.layout.padded
        return math.sqrt(self.instance.squared_norm) / (self.clip * math.sqrt(kept) * (1 + self.slack))

    def fixed_point(self, update: Float32, seed: int) -> NDArray[np.int32]:
        """The sketch in units of 2^-24, int32 of shape (m,), within the certified bounds.

        Parameters
        ----------
        update : float32 array of shape (d,)
            What the client learned.
        seed : int
            Public, of the round; all clients have the same.

        Raises
        ------
        LayoutError
            The update has another length.
        """
        from matl.privacy import _encode

        if update.shape != (self.layout.size,):
            raise LayoutError("shape", f"expected an update of shape ({self.layout.size},), got {update.shape}")
        X = np.zeros(self.layout.kept, np.int32)
        short = clipped(update, self.clip)
        if short is None:
            return X
        sketch = self._sketch(seed).forward(short[0])
        limit = math.floor(self.instance.bound * _ONE)
        _encode.to_fixed_point(sketch, self.scale * short[1] * _ONE, np.int64(limit), X)
        if int(X.max()) > limit or int(X.min()) < -limit:  # before squaring: of what is within it no square overflows
            X[:] = 0
        fit(X, math.floor(self.instance.squared_norm * _ONE * _ONE))
        return X

    def encode(self, update: Float32, seed: int, *, words: Words | None = None) -> NDArray[np.unsignedinteger]:
        """One transmission: the words of an update, unsigned of shape (m,).

        Parameters
        ----------
        update, seed
            See `fixed_point`.
        words : Words, optional
            Randomness, for test vectors and audits; the operating system's unless it is given.
        """
        with timed(self.stopwatch, "encode"):
            return self.randomise(self.fixed_point(update, seed), words=words)

    def randomise(self, X: NDArray[np.int32], *, words: Words | None = None) -> NDArray[np.unsignedinteger]:
        """Rounding and one share of the noise for what `fixed_point` returned."""
        from matl.privacy import _encode

        stream = Words() if words is None else words
        starts, thresholds = self._search
        out = np.empty(len(X), self.dtype)
        least, mask = -(len(self.instance.table) // 2), (1 << self.instance.bits) - 1
        block = None if self.stopwatch is None else self.stopwatch.block(len(X))
        for start, end in pairwise(_edges(len(X), block)):
            with timed(self.stopwatch if start == block else None, "noise"):
                drawn = stream.take(end - start)
                _encode.round_and_add_noise(X[start:end], drawn, starts, thresholds, least, mask, out[start:end])
        return out

    def decode_sum(self, total: NDArray[np.unsignedinteger], seed: int) -> Float32:
        """The sum of updates, float32 of shape (d,), of a sum of words modulo M.

        Parameters
        ----------
        total : unsigned array of shape (m,)
            Sum of what clients sent; further bits than M's are ignored.
        seed : int
            Of the round.

        Raises
        ------
        LayoutError
            The sum has another length.
        """
        from matl.privacy import _encode

        if total.shape != (self.layout.kept,):
            raise LayoutError("shape", f"expected a sum of shape ({self.layout.kept},), got {total.shape}")
        y = np.empty(self.layout.kept, np.float32)
        half = 1 << (self.instance.bits - 1)
        _encode.centre(total & np.asarray(2 * half - 1, total.dtype), half, np.float32(1 / self.scale), y)
        return self._sketch(seed).backward(y)

    def _sketch(self, seed: int) -> HadamardSketch:
        return HadamardSketch.draw(self.layout, seed)

    @cached_property
    def _search(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Where the search for the noise begins, and its thresholds; see `_encode.round_and_add_noise`."""
        reached, thresholds = 0, []
        for count in self.instance.table[:-1]:
            reached += count
            thresholds.append(reached)
        thresholds.append(1 << 63)
        found = np.array(thresholds, np.uint64)
        firsts = np.arange(_PARTS, dtype=np.uint64) * np.uint64((1 << RESOLUTION) // _PARTS)
        return np.searchsorted(found, firsts, side="right").astype(np.int64), found


def _edges(size: int, block: int | None) -> list[int]:
    """Where the parts that are rounded at a time begin and end; one is the block that begins at ``block``, if any."""
    if block is None:
        return [*range(0, size, _AT_ONCE), size]
    return [*range(0, block, _AT_ONCE), block, *range(block + BLOCK_WORDS, size, _AT_ONCE), size]


def clipped(update: Float32, clip: float) -> tuple[Float32, float] | None:
    """A vector and a factor whose product has a norm of at most ``clip``; ``None`` for zeros and what is not finite."""
    from matl.codec._rounding import add_squares

    update = np.ascontiguousarray(update, np.float32)
    sums = np.empty(-(-update.size // _CHUNK), np.float64)
    add_squares(update, _CHUNK, sums)
    norm = math.sqrt(float(sums.sum()))
    if norm == 0 or not math.isfinite(norm):
        return None
    if norm <= _HUGE:
        return update, min(1.0, clip / norm)
    return (update / np.float64(norm)).astype(np.float32), clip


def fit(X: NDArray[np.int32], allowed: int) -> None:
    """Shorten integers in place until their squares add up to at most ``allowed``, which is checked, not presumed.

    None of them may be beyond 2^24: then the squares of a chunk add up to less than 2^63.
    """
    from matl.privacy import _encode

    if (total := _squares(X)) <= allowed:
        return
    _encode.shrink(X, math.sqrt(allowed / total) * (1 - 2.0**-40))
    if _squares(X) > allowed:
        X[:] = 0


def _squares(X: NDArray[np.int32]) -> int:
    from matl.privacy import _encode

    sums = np.empty(-(-len(X) // _CHUNK), np.int64)
    _encode.squares(X, _CHUNK, sums)
    return sum(sums.tolist())
