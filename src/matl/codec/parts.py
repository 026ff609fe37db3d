"""What the parts of a codec share: a registry each, and their description on the wire."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.registry import Registry

__all__ = ["PACKERS", "QUANTISERS", "TRANSFORMS", "Packer", "Quantiser", "Transform", "Words", "spec_of", "word_type"]

Words: TypeAlias = NDArray[Any]
"""What a quantiser makes of numbers: int8, int16 or, where nothing is rounded, float32."""


class Transform:
    """From a vector to the numbers that are sent, and back."""

    registry: ClassVar[Registry[Transform]]

    linear: ClassVar[bool] = False
    """Whether it is a linear map that a public seed determines, so that transforms can be added."""

    @property
    def contracts(self) -> bool:
        """Whether ``backward(forward(x))`` is never farther from x than the zero vector is."""
        return True

    def length(self, size: int) -> int:
        """How many numbers are sent for a vector of ``size``."""
        return size

    def forward(self, x: Float32, seed: int) -> Float32:
        """The numbers, float32 of shape (length(d),), of a finite float32 vector of shape (d,)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def backward(self, values: Float32, size: int, seed: int) -> Float32:
        """The vector, float32 of shape (size,), of numbers of shape (length(size),)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement backward")


class Quantiser:
    """From numbers to words of few bits, with scales beside them, and back."""

    registry: ClassVar[Registry[Quantiser]]

    sums: ClassVar[bool] = False
    """Whether words of several senders may be added: they are integers on one grid, which is public."""

    @property
    def bits(self) -> int:
        """Bits of a word: 1 to 8, 16, or 32 for float32."""
        raise NotImplementedError(f"{type(self).__name__} does not say its bits")

    @property
    def contracts(self) -> bool:
        """Whether what comes back is never farther from the numbers than zeros are."""
        return False

    @property
    def draws(self) -> bool:
        """Whether it rounds at random."""
        return False

    def scales(self, count: int) -> int:
        """How many float32 scales go with ``count`` words."""
        raise NotImplementedError(f"{type(self).__name__} does not implement scales")

    def quantise(self, values: Float32, key: int) -> tuple[Words, Float32]:
        """Words and scales of float32 numbers; ``key``, of 64 bits, seeds the rounding."""
        raise NotImplementedError(f"{type(self).__name__} does not implement quantise")

    def restore(self, words: Words, scales: Float32) -> Float32:
        """Numbers of words and scales."""
        raise NotImplementedError(f"{type(self).__name__} does not implement restore")


class Packer:
    """From words to bytes and back, without loss."""

    registry: ClassVar[Registry[Packer]]

    most: ClassVar[int] = 32
    """The most bits a word may have."""

    def pack(self, words: Words, bits: int) -> bytes:
        """Bytes of words."""
        raise NotImplementedError(f"{type(self).__name__} does not implement pack")

    def unpack(self, data: bytes, count: int, bits: int) -> Words:
        """The ``count`` words of bytes that anybody may have sent.

        Raises
        ------
        ContainerError
            They are not the bytes of so many words.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement unpack")

    def most_bytes(self, count: int, bits: int) -> int:
        """Bytes that the packing of ``count`` words never exceeds."""
        raise NotImplementedError(f"{type(self).__name__} does not implement most_bytes")


TRANSFORMS: Registry[Transform] = Registry("transform")
QUANTISERS: Registry[Quantiser] = Registry("quantiser")
PACKERS: Registry[Packer] = Registry("packer")
Transform.registry, Quantiser.registry, Packer.registry = TRANSFORMS, QUANTISERS, PACKERS


def word_type(bits: int) -> np.dtype[Any]:
    """The little-endian type that holds words of so many bits in memory.

    Examples
    --------
    >>> word_type(3), word_type(16)
    (dtype('int8'), dtype('int16'))
    """
    return np.dtype("<f4" if bits == 32 else "<i2" if bits > 8 else "i1")


def spec_of(part: Any) -> dict[str, Any]:
    """Name and options of a part as its registry takes them, every option spelt out.

    Examples
    --------
    >>> from matl.codec import Hadamard
    >>> spec_of(Hadamard(fraction=0.5))
    {'name': 'hadamard', 'block': 4096, 'fraction': 0.5}
    """
    name = next(name for name in part.registry if part.registry.get(name) is type(part))
    return {"name": name} | {item.name: getattr(part, item.name) for item in dataclasses.fields(part)}
