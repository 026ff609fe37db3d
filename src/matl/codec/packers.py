"""From words to bytes: fixed width, zstd, or an entropy coder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec.container import ContainerError
from matl.codec.parts import PACKERS, Packer, Words, word_type
from matl.errors import InvalidValueError, MissingExtraError

__all__ = ["Ans", "FixedWidth", "Zstd"]


@PACKERS.register("fixed_width")
@dataclass(frozen=True, slots=True)
class FixedWidth(Packer):
    """Every word in its own bits, without gaps; those of 8, 16 and 32 bits are whole little-endian numbers.

    Words are in two's complement. The first is in the lowest bits of the first byte; unused bits at the end are zero.

    Examples
    --------
    >>> FixedWidth().pack(np.array([1, -1, 3], np.int8), bits=3).hex()
    'f900'
    """

    def pack(self, words: Words, bits: int) -> bytes:
        """See `Packer.pack`."""
        if bits >= 8:
            return _raw(words, bits)
        from matl.codec import _packing

        out = np.empty(self.most_bytes(words.size, bits), np.uint8)
        _packing.pack_bits(words, bits, out)
        return out.tobytes()

    def unpack(self, data: bytes, count: int, bits: int) -> Words:
        """See `Packer.unpack`."""
        if bits >= 8:
            return _from_raw(data, count, bits)
        from matl.codec import _packing

        _check_length(data, self.most_bytes(count, bits))
        words = np.empty(count, np.int8)
        _packing.unpack_bits(np.frombuffer(bytearray(data), np.uint8), bits, words)
        return words

    def most_bytes(self, count: int, bits: int) -> int:
        """See `Packer.most_bytes`; it always takes so many."""
        return -(-count * bits // 8)


@PACKERS.register("zstd")
@dataclass(frozen=True, slots=True)
class Zstd(Packer):
    """Whole little-endian words, compressed by zstd.

    It finds repetitions, such as long runs of zeros, that an entropy coder of single words does not.

    Parameters
    ----------
    level : int
        1 (fast) to 19 (small).

    Raises
    ------
    MissingExtraError
        zstandard is not installed.

    References
    ----------
    Collet, Kucherawy, "Zstandard Compression and the 'application/zstd' Media Type", RFC 8878.
    """

    level: int = 3

    def __post_init__(self) -> None:
        validate.whole(1, level=self.level)
        if self.level > 19:  # above, the decoder needs windows beyond what is commonly allowed
            raise InvalidValueError(f"expected level <= 19, got level={self.level}")
        _zstandard()

    def pack(self, words: Words, bits: int) -> bytes:
        """See `Packer.pack`."""
        compressor = _zstandard().ZstdCompressor(level=self.level, write_content_size=True)
        packed: bytes = compressor.compress(_raw(words, bits))
        return packed

    def unpack(self, data: bytes, count: int, bits: int) -> Words:
        """See `Packer.unpack`; the size that the frame declares is checked before anything is decompressed."""
        zstandard = _zstandard()
        due = count * word_type(bits).itemsize
        try:
            declared = zstandard.get_frame_parameters(data).content_size
            if declared != due:
                raise ContainerError(f"the zstd frame declares {declared} bytes, {due} are due")
            raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=due, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ContainerError(f"the zstd frame cannot be read: {error}") from error
        return _from_raw(raw, count, bits)

    def most_bytes(self, count: int, bits: int) -> int:
        """See `Packer.most_bytes`: zstd's own bound."""
        size = count * word_type(bits).itemsize
        return size + (size >> 8) + 64


@PACKERS.register("ans")
@dataclass(frozen=True, slots=True)
class Ans(Packer):
    """Entropy coding by asymmetric numeral systems (rANS): each word costs what its frequency says, H bits on average.

    Notes
    -----
    The lowest word l (int8) and the number s of values from the lowest to the highest, less one (uint8); the s + 1
    frequencies, which sum to 2^14, as LEB128; four states (uint32); 16-bit words; all little-endian. Word j is decoded
    from state x = states[j mod 4]: the symbol k is the one whose slots c_k <= x mod 2^14 < c_k + f_k (c: cumulated
    frequencies), x becomes f_k floor(x / 2^14) + x mod 2^14 - c_k, and if that is below 2^16, 2^16 x + the next 16-bit
    word. Every state ends as 2^16.

    It is our own so that it needs no further package, and so that this page alone fixes the format. A million words
    take about 3 ms either way.

    References
    ----------
    Duda, "Asymmetric numeral systems", arXiv:1311.2540.
    """

    most: ClassVar[int] = 8

    def pack(self, words: Words, bits: int) -> bytes:
        """See `Packer.pack`."""
        from matl.codec import _packing

        counts = np.zeros(256, np.int64)
        _packing.count(words, counts)
        present = np.flatnonzero(counts)
        low, high = int(present[0]), int(present[-1])
        frequencies = _frequencies(counts[low : high + 1], 1 << _packing.PRECISION)
        states = np.full(4, _packing.START, np.uint64)
        code = np.empty(words.size, np.uint16)
        start = _packing.ans_encode(words, low - 128, frequencies.astype(np.uint64), _starts(frequencies), states, code)
        table = bytes([low ^ 128, high - low]) + b"".join(_leb128(int(f)) for f in frequencies)
        return table + states.astype("<u4").tobytes() + code[start:].astype("<u2", copy=False).tobytes()

    def unpack(self, data: bytes, count: int, bits: int) -> Words:
        """See `Packer.unpack`."""
        from matl.codec import _packing

        low, frequencies, at = _read_table(data, 1 << _packing.PRECISION)
        if len(data) < at + 16 or (len(data) - at) % 2:
            raise ContainerError(f"the code has {len(data) - at} bytes, not 16 for its states and 2 for every word")
        states = np.frombuffer(data, "<u4", 4, at).astype(np.uint64)
        code = np.frombuffer(data, "<u2", offset=at + 16).astype(np.uint16)
        words = np.empty(count, np.int8)
        slots = np.repeat(np.arange(frequencies.size, dtype=np.uint8), frequencies)
        read = _packing.ans_decode(code, low, frequencies.astype(np.uint64), _starts(frequencies), slots, states, words)
        if read != code.size or (states != _packing.START).any():
            raise ContainerError("the code is not that of so many words")
        return words

    def most_bytes(self, count: int, bits: int) -> int:
        """See `Packer.most_bytes`: the table, the states, and one 16-bit word per word."""
        return 2 + 2 * 256 + 16 + 2 * count


def _frequencies(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole numbers, about in proportion to counts, that sum to ``total``; what occurs has at least one."""
    frequencies: NDArray[np.int64] = counts * total // counts.sum()
    frequencies[(counts > 0) & (frequencies == 0)] = 1
    while gap := int(total - frequencies.sum()):  # less than one step per symbol; the most frequent feels it least
        frequencies[frequencies.argmax()] += 1 if gap > 0 else -1
    return frequencies


def _starts(frequencies: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (np.cumsum(frequencies) - frequencies).astype(np.uint64)


def _leb128(number: int) -> bytes:
    """A number below 2^14 + 1, seven bits per byte, lowest first; the top bit of a byte says that more follow."""
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _read_table(data: bytes, total: int) -> tuple[int, NDArray[np.int64], int]:
    """The lowest word, the frequencies, and where the table ends."""
    if len(data) < 2:
        raise ContainerError(f"the code has {len(data)} bytes, too few for a table")
    low, span, at = int.from_bytes(data[:1], signed=True), data[1], 2
    if low + span > 127:
        raise ContainerError(f"the table goes from {low} to {low + span}, words go up to 127")
    frequencies = np.zeros(span + 1, np.int64)
    for k in range(span + 1):
        shift = 0
        while True:
            if at == len(data) or shift > 14:
                raise ContainerError("the table of frequencies is cut short or malformed")
            byte, at = data[at], at + 1
            frequencies[k] += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
    if frequencies.sum() != total:
        raise ContainerError(f"frequencies sum to {frequencies.sum()}, {total} are due")
    return low, frequencies, at


def _raw(words: Words, bits: int) -> bytes:
    return words.astype(word_type(bits), copy=False).tobytes()


def _from_raw(data: bytes, count: int, bits: int) -> Words:
    _check_length(data, count * word_type(bits).itemsize)
    return np.frombuffer(bytearray(data), word_type(bits))


def _check_length(data: bytes, due: int) -> None:
    if len(data) != due:
        raise ContainerError(f"{len(data)} bytes of words, {due} are due")


def _zstandard() -> ModuleType:
    try:
        return import_module("zstandard")
    except ImportError as error:
        raise MissingExtraError("zstandard", extra="codec") from error
