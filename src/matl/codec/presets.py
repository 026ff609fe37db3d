"""Codecs by name, for configurations; `docs/concepts/codec.md` has their measured sizes and errors."""

from __future__ import annotations

from matl.codec.codec import CODECS, Codec
from matl.codec.packers import Ans, FixedWidth, Zstd
from matl.codec.quantisers import FixedStep, Float, LloydMax, MaxScaled, RmsScaled
from matl.codec.transforms import Hadamard, Identity, TopK

__all__ = ["eden", "float32", "grid", "int8", "int8_zstd", "rotated", "topk"]


@CODECS.register("float32", "none")
def float32() -> Codec:
    """Nothing is lost: 32 bits per coordinate."""
    return Codec(Identity(), Float(), FixedWidth())


@CODECS.register("int8")
def int8() -> Codec:
    """The nearest of 255 multiples of max / 127, entropy coded."""
    return Codec(Identity(), MaxScaled(), Ans())


@CODECS.register("int8_zstd")
def int8_zstd(level: int = 3) -> Codec:
    """The nearest of 255 multiples of max / 127, by zstd."""
    return Codec(Identity(), MaxScaled(), Zstd(level))


@CODECS.register("rotated")
def rotated(step: float = 1.0) -> Codec:
    """Rotation, unbiased stochastic rounding, entropy coding: steps 1, 2, 4 cost about 2.2, 1.4, .9 bits."""
    return Codec(Hadamard(), RmsScaled(step), Ans())


@CODECS.register("eden")
def eden(bits: int = 1) -> Codec:
    """Rotation and the best grid of 1 to 4 bits for what comes out of it, rescaled to be unbiased."""
    return Codec(Hadamard(), LloydMax(bits), FixedWidth())


@CODECS.register("topk")
def topk(fraction: float = 0.01) -> Codec:
    """The largest entries as int8, entropy coded with their positions; the rest is fed back into the next vector."""
    return Codec(TopK(fraction), MaxScaled(chunk=1 << 16), Ans(), feedback=True)


@CODECS.register("grid")
def grid(step: float, bits: int = 8, fraction: float = 1.0) -> Codec:
    """Rotation or sketch, and unbiased rounding to one public grid: the words of all senders can be added or masked."""
    return Codec(Hadamard(fraction=fraction), FixedStep(step, bits), FixedWidth())
