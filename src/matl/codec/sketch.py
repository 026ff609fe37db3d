"""The public, linear sketch: random signs, blockwise Hadamard transform, random rows of every block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["Block", "BlockLayout", "HadamardSketch", "derive_seed"]

_GAMMA, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_SMALLEST_BLOCK, _LARGEST_BLOCK = 64, 1 << 16  # one word of signs; row numbers of 16 bits


def derive_seed(seed: int, *path: int) -> int:
    """A public 64-bit seed for a round, or for a client in a round.

    Parameters
    ----------
    seed : int
        Any whole number; its low 64 bits count.
    *path : int
        Numbers such as the round; each of them leads one step on.

    Returns
    -------
    int
        For every number k of the path, word k of SplitMix64 with the state so far.

    References
    ----------
    Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.

    Examples
    --------
    >>> hex(derive_seed(0, 0)), hex(derive_seed(7, 3))
    ('0xe220a8397b1dcdaf', '0x953aeb70673e29cb')
    """
    state = seed & _MASK
    for number in path:
        state = (state + (number + 1) * _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


@dataclass(frozen=True, slots=True)
class Block:
    """Where one block lies.

    Parameters
    ----------
    x, y, signs : slice
        Its part of the vector, of the sketch (and of the rows), and of the words of signs.
    width : int
        The length w of its transform, a power of two; zeros are taken for coordinates beyond the vector's end.
    kept : int
        How many of its w rows are kept.
    """

    x: slice
    y: slice
    signs: slice
    width: int
    kept: int


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How a vector is cut into blocks, and how much of each the sketch keeps.

    Parameters
    ----------
    size : int
        Length d of the vector.
    block : int
        Width of a block, a power of two from 64 to 65536. 4096 floats stay in the first-level cache.
    fraction : float
        Share f of its rows that every block keeps, in (0, 1]; of w rows ceil(f w).

    Notes
    -----
    The last block holds what is left, padded with zeros to the next power of two: one coordinate makes a block of width
    1, not of 4096.

    Raises
    ------
    InvalidValueError
        A number is outside these ranges.

    Examples
    --------
    >>> layout = BlockLayout(10_000, fraction=0.375)
    >>> [(block.width, block.kept) for block in layout]
    [(4096, 1536), (4096, 1536), (2048, 768)]
    >>> layout.kept, layout.padded
    (3840, 10240)
    """

    size: int
    block: int = 4096
    fraction: float = 1.0

    def __post_init__(self) -> None:
        validate.whole(1, size=self.size)
        validate.whole(1, block=self.block)
        if not _SMALLEST_BLOCK <= self.block <= _LARGEST_BLOCK or self.block & (self.block - 1):
            raise InvalidValueError(
                f"expected block to be a power of two from {_SMALLEST_BLOCK} to {_LARGEST_BLOCK}, got {self.block}"
            )
        validate.positive(fraction=self.fraction)
        validate.fraction(fraction=self.fraction)

    def __len__(self) -> int:
        return -(-self.size // self.block)

    def __iter__(self) -> Iterator[Block]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Block:
        if not 0 <= i < len(self):
            raise IndexError(f"block {i} of {len(self)}")
        last = i == len(self) - 1
        width = self.tail if last else self.block
        words, rows = self.block // 64, self.rows(self.block)
        return Block(
            x=slice(i * self.block, min((i + 1) * self.block, self.size)),
            y=slice(i * rows, i * rows + self.rows(width)),
            signs=slice(i * words, i * words + max(1, width // 64)),
            width=width,
            kept=self.rows(width),
        )

    @property
    def tail(self) -> int:
        """Width of the last block."""
        return 1 << (self.size - (len(self) - 1) * self.block - 1).bit_length()

    def rows(self, width: int) -> int:
        """How many rows a block of that width keeps."""
        return math.ceil(self.fraction * width)

    @property
    def padded(self) -> int:
        """Rows of all blocks together: the size or a little more."""
        return (len(self) - 1) * self.block + self.tail

    @property
    def kept(self) -> int:
        """Length m of the sketch."""
        return (len(self) - 1) * self.rows(self.block) + self.rows(self.tail)


@dataclass(frozen=True, slots=True, eq=False)
class HadamardSketch:
    """A linear map from d to m numbers that everybody who knows its seed can draw.

    ``forward`` gives (H D x)[R] for every block: D are random signs, H is the Walsh-Hadamard matrix divided by sqrt(w),
    R is a random subset of rows. ``backward`` is its transpose times w / |R|, so that ``backward(forward(x))`` is x on
    average over seeds, and exactly x, up to rounding, where all rows are kept. Both are linear: the sum of the sketches
    of many vectors is the sketch of their sum.

    Parameters
    ----------
    layout : BlockLayout
        The blocks.
    seed : int
        Public; 64 bits. See `derive_seed`.
    signs : uint64 array
        The signs, 64 in a word; a 1 is a minus.
    rows : uint16 array of shape (m,)
        The rows that are kept, block by block, in the order of the sketch.

    Notes
    -----
    **Rows of every block.** To keep whole blocks and drop others would be as linear and as short, but nothing would
    mix: a large coordinate would be kept or lost with its block.

    **Bits.** Every output is the same tree of float32 additions everywhere, scaled once, so a seed and a vector have
    the same sketch, bit for bit, on any machine.

    **What is drawn.** Block b has a SplitMix64 generator with the state word(seed, b), where word(s, k) is SplitMix64's
    finaliser applied to s + (k + 1) 0x9E3779B97F4A7C15 mod 2^64. Its first ceil(w / 64) words are the signs: coordinate
    j of the block is negated if bit j mod 64 of word j // 64 is 1. Where fewer rows than w are kept, each further word
    gives two numbers u of 32 bits, the low half first, for a Fisher-Yates shuffle of 0 .. w - 1: for j = 0, 1, ... the
    entries j and k = j + floor(u (w - j) / 2^32) change places, and row j of the sketch is entry j. Otherwise rows are
    in order. H is in natural order: its entry (r, j) is -1 to the number of ones of r AND j.

    References
    ----------
    Ailon, Chazelle, "The Fast Johnson-Lindenstrauss Transform and Approximate Nearest Neighbors", SIAM J. Computing
    39(1), 2009.

    Examples
    --------
    >>> sketch = HadamardSketch.draw(BlockLayout(1000, fraction=0.375), seed=7)
    >>> a, b = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    >>> sketch.forward(a).shape
    (384,)
    >>> bool(np.allclose(sketch.forward(a) + sketch.forward(b), sketch.forward(a + b), atol=1e-5))
    True
    """

    layout: BlockLayout
    seed: int
    signs: NDArray[np.uint64]
    rows: NDArray[np.uint16]

    @classmethod
    def draw(cls, layout: BlockLayout, seed: int) -> HadamardSketch:
        """The sketch of a seed."""
        from matl.codec import _hadamard

        validate.whole(0, seed=seed)
        if seed > _MASK:
            raise InvalidValueError(f"expected seed < 2^64, got {seed}; derive_seed makes one of any numbers")
        signs = np.empty(layout[len(layout) - 1].signs.stop, np.uint64)
        rows = np.empty(layout.kept, np.uint16)
        _hadamard.draw_blocks(np.uint64(seed), layout.block, layout.tail, layout.rows(layout.block), signs, rows)
        signs.flags.writeable = rows.flags.writeable = False  # sketches are shared
        return cls(layout, seed, signs, rows)

    def forward(self, x: Float32) -> Float32:
        """The sketch, float32 of shape (m,), of a float32 vector of shape (d,)."""
        out = np.empty(self.layout.kept, np.float32)
        self.forward_blocks(np.require(x, requirements=["C", "W"]), out, 0, len(self.layout))
        return out

    def backward(self, y: Float32) -> Float32:
        """The vector, float32 of shape (d,), of a float32 sketch of shape (m,)."""
        out = np.empty(self.layout.size, np.float32)
        self.backward_blocks(np.require(y, requirements=["C", "W"]), out, 0, len(self.layout))
        return out

    def forward_blocks(self, x: Float32, out: Float32, first: int, last: int) -> None:
        """Write the part of the sketch that blocks ``first:last`` make; it holds no lock, so threads can share blocks.

        Parameters
        ----------
        x : float32 array of shape (d,)
            The whole vector, contiguous and writeable, though it is not written.
        out : float32 array of shape (m,)
            The whole sketch, likewise.
        first, last : int
            A range of blocks.
        """
        self._run(x, out, [1.0 / math.sqrt(width) for width in self._widths()], first, last, back=False)

    def backward_blocks(self, y: Float32, out: Float32, first: int, last: int) -> None:
        """Write the part of the vector that blocks ``first:last`` make of the sketch ``y``; see `forward_blocks`."""
        scales = [width / self.layout.rows(width) / math.sqrt(width) for width in self._widths()]
        self._run(out, y, scales, first, last, back=True)

    def _widths(self) -> tuple[int, int]:
        return self.layout.block, self.layout.tail

    def _run(self, x: Float32, y: Float32, scales: list[float], first: int, last: int, *, back: bool) -> None:
        from matl.codec import _hadamard

        layout = self.layout
        for name, array, size in (("x", x, layout.size), ("y", y, layout.kept)):  # compiled code checks no bounds
            if array.shape != (size,) or array.dtype != np.float32 or not array.flags.carray:
                raise InvalidValueError(
                    f"expected {name} to be a contiguous, writeable float32 array of shape ({size},), "
                    f"got {array.dtype} of shape {array.shape}"
                )
        if not 0 <= first <= last <= len(layout):
            raise InvalidValueError(f"expected 0 <= first <= last <= {len(layout)} blocks, got {first} and {last}")
        _hadamard.run_blocks(
            x, y, self.signs, self.rows, np.array(scales, np.float32), layout.block, layout.tail,
            layout.rows(layout.block), first, last, back,
        )  # fmt: skip
