"""Private encoders that are each wrong in one way, for the audit to find. All of them run the real kernels."""

import functools
import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np

from matl.privacy.encoder import Encoder
from matl.privacy.table import skellam_table
from matl.privacy.words import KEY_BYTES, Words

KEY = bytes(KEY_BYTES)
LOW, HIGH = np.uint64((1 << 24) - 1), np.uint64((1 << 64) - (1 << 24))  # bits that round, bits that draw the noise


class Changed(Words):
    """Fresh words, changed before they are used."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def take(self, count):
        return self.change(super().take(count))


class Restarted(Words):
    """The same words again whenever some are taken."""

    def __init__(self):
        super().__init__()
        self.key = np.random.default_rng().bytes(KEY_BYTES)

    def take(self, count):
        return Words(self.key).take(count)


class MissingShare(Encoder):
    """One client in h adds no noise: its word draws the middle of the table."""

    calls = itertools.count()

    def randomise(self, X, *, words=None):
        silent = next(self.calls) % self.instance.survivors == 0
        return super().randomise(X, words=Changed(lambda w: w & LOW | np.uint64(1 << 63)) if silent else None)


class SharedSeed(Encoder):
    """All clients have the same key."""

    def randomise(self, X, *, words=None):
        return super().randomise(X, words=Words(KEY))


class KeyLeftIn(Encoder):
    """A key for test vectors stayed in `encode`."""

    def encode(self, update, seed, *, words=None):
        return super().encode(update, seed, words=Words(KEY))


class Antithetic(Encoder):
    """Clients share keys in pairs, one of them with all bits inverted, so that their noise cancels."""

    calls, keys = itertools.count(), []

    def randomise(self, X, *, words=None):
        if next(self.calls) % 2 == 0:
            self.keys[:] = [np.random.default_rng().bytes(KEY_BYTES)]
            return super().randomise(X, words=Words(self.keys[0]))
        inverted = Words(self.keys[0])
        take, inverted.take = inverted.take, lambda count: ~take(count)
        return super().randomise(X, words=inverted)


class RestartedStream(Encoder):
    """Every chunk of coordinates has the same words."""

    def randomise(self, X, *, words=None):
        return super().randomise(X, words=Restarted())


class ReusedBits(Encoder):
    """The bits that round a coordinate are also the first of those that draw its noise."""

    def randomise(self, X, *, words=None):
        return super().randomise(X, words=Changed(lambda w: w << np.uint64(40) | w & np.uint64((1 << 40) - 1)))


class NeighboursBits(Encoder):
    """The bits that round a coordinate are those that draw the noise of the one before."""

    lag = 1

    def randomise(self, X, *, words=None):
        return super().randomise(X, words=Changed(lambda w: w & HIGH | np.roll(w, self.lag) >> np.uint64(40)))


class PairedWords(Encoder):
    """One client in h draws every second word by inverting the one before."""

    calls = itertools.count()

    def randomise(self, X, *, words=None):
        broken = next(self.calls) % self.instance.survivors == 0
        return super().randomise(X, words=Changed(self.pair) if broken else None)

    @staticmethod
    def pair(words):
        words[1::2] = ~words[: len(words) // 2 * 2 : 2]
        return words


class LastTransmissionsBits(NeighboursBits):
    """The bits that round a coordinate drew its noise in the transmission before."""

    lag = 16


class UnevenBits(Encoder):
    """The first of the bits that round is 1 in a quarter of all words."""

    def randomise(self, X, *, words=None):
        first = np.uint64(1 << 23)
        return super().randomise(X, words=Changed(lambda w: w & (w >> np.uint64(1) | ~first)))


class NoRefinement(Encoder):
    """The search for the noise ends where it begins, with the first 12 of 40 bits."""

    def randomise(self, X, *, words=None):
        return super().randomise(X, words=Changed(lambda w: w & (LOW | np.uint64(0xFFF << 52))))


class AlwaysUp(Encoder):
    """What is not 0 is rounded away from it."""

    def randomise(self, X, *, words=None):
        return super().randomise(np.sign(X) << 24)


class Nearest(Encoder):
    """Numbers are rounded to the nearest integer."""

    def randomise(self, X, *, words=None):
        return super().randomise(np.sign(X) * (np.abs(X) >= 1 << 23) << 24)


class OffByOne(Encoder):
    """The noise is one larger than it should be."""

    def randomise(self, X, *, words=None):
        return super().randomise(X) + 1 & self.dtype.type((1 << self.instance.bits) - 1)


class TruncatedTable(Encoder):
    """The noise stays within -3 .. 3."""

    def randomise(self, X, *, words=None):
        middle = len(self.instance.table) // 2
        return with_table(self, cut(self.instance.table[middle - 3 : middle + 4])).randomise(X)


class LessNoise(Encoder):
    """The noise's variance is 5 % short."""

    def randomise(self, X, *, words=None):
        return with_table(self, less_noise()).randomise(X)


class NoNormLimit(Encoder):
    """Sketches up to 1.25 times as long as c are sent as they are."""

    def fixed_point(self, update, seed):
        looser = replace(self.instance, squared_norm=self.instance.squared_norm * Fraction(25, 16))
        return Encoder(looser, self.layout, self.clip * 1.25).fixed_point(update, seed)


class TooLarge(Encoder):
    """Everything is 1.25 times as large as it should be, and so is the limit c."""

    def fixed_point(self, update, seed):
        looser = replace(self.instance, squared_norm=self.instance.squared_norm * Fraction(25, 16))
        return Encoder(looser, self.layout, self.clip).fixed_point(update, seed)


class NoCoordinateLimit(Encoder):
    """Coordinates up to 1 are sent as they are."""

    def fixed_point(self, update, seed):
        return Encoder(replace(self.instance, bound=Fraction(1)), self.layout, self.clip).fixed_point(update, seed)


def with_table(encoder, table):
    return Encoder(replace(encoder.instance, table=table), encoder.layout, encoder.clip)


@functools.cache
def less_noise():
    return skellam_table(Fraction(95, 100) * Fraction(3, 4)).counts


def cut(table):
    """What is missing goes to the middle."""
    middle = len(table) // 2
    return (*table[:middle], (1 << 40) - 2 * sum(table[:middle]), *table[middle + 1 :])


CAUGHT_BY = {
    MissingShare: "shares sums",
    SharedSeed: "sums repeats attack",
    Antithetic: "sums attack",
    RestartedStream: "repeats",
    ReusedBits: "rounding",
    NeighboursBits: "neighbours",
    PairedWords: "neighbours",
    LastTransmissionsBits: "successors",
    UnevenBits: "rounding",
    NoRefinement: "shares",
    AlwaysUp: "rounding",
    Nearest: "rounding",
    OffByOne: "shares",
    TruncatedTable: "shares",
    LessNoise: "shares",
    NoNormLimit: "norm",
    TooLarge: "rounding norm",
    NoCoordinateLimit: "coordinate",
}
"""Checks that have to find them; others may as well."""
