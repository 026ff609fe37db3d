"""Small updates: transforms, quantisers and packers, made into codecs, and the format of their bytes.

Sizes, errors and formulas are in `docs/concepts/codec.md`. What makes an update private is `matl.privacy`, which uses
the sketch of this package.
"""

from __future__ import annotations

from matl.codec.codec import CODECS, Codec, decode
from matl.codec.container import ContainerError
from matl.codec.downlink import SharedModel
from matl.codec.packers import Ans, FixedWidth, Zstd
from matl.codec.parts import PACKERS, QUANTISERS, TRANSFORMS, Packer, Quantiser, Transform
from matl.codec.presets import eden, float32, grid, int8, int8_zstd, rotated, topk
from matl.codec.quantisers import FixedStep, Float, LloydMax, MaxScaled, RmsScaled
from matl.codec.sketch import Block, BlockLayout, HadamardSketch, derive_seed
from matl.codec.transforms import Hadamard, Identity, TopK

__all__ = [
    "CODECS",
    "PACKERS",
    "QUANTISERS",
    "TRANSFORMS",
    "Ans",
    "Block",
    "BlockLayout",
    "Codec",
    "ContainerError",
    "FixedStep",
    "FixedWidth",
    "Float",
    "Hadamard",
    "HadamardSketch",
    "Identity",
    "LloydMax",
    "MaxScaled",
    "Packer",
    "Quantiser",
    "RmsScaled",
    "SharedModel",
    "TopK",
    "Transform",
    "Zstd",
    "decode",
    "derive_seed",
    "eden",
    "float32",
    "grid",
    "int8",
    "int8_zstd",
    "rotated",
    "topk",
]
