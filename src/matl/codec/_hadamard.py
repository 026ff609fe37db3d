"""Compiled: public randomness, the Walsh-Hadamard transform of one block, and the sketch of a range of blocks.

`forward_block` and `backward_block` can be called from other compiled code; they allocate nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.jit import compiled

__all__ = ["GAMMA", "backward_block", "draw_blocks", "forward_block", "mix64", "run_blocks", "transform"]

_Floats = NDArray[np.float32]
_Words = NDArray[np.uint64]
_Rows = NDArray[np.uint16]

# SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ONE, _HALF, _LOW = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)


@compiled
def mix64(z: Any) -> Any:
    """The finaliser of SplitMix64: one 64-bit word, thoroughly mixed."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@compiled
def draw_blocks(seed: Any, block: int, tail: int, kept: int, signs: _Words, rows: _Rows) -> None:
    """Signs and rows of every block; what is drawn, and how, is specified at `matl.codec.HadamardSketch`."""
    words = block // 64
    order = np.empty(block, np.uint16)
    for i in range((signs.shape[0] + words - 1) // words):
        state = mix64(seed + np.uint64(i + 1) * GAMMA)
        some = signs[i * words : (i + 1) * words]
        for j in range(some.shape[0]):
            state += GAMMA
            some[j] = mix64(state)
        width = tail if (i + 1) * words >= signs.shape[0] else block
        chosen = rows[i * kept : (i + 1) * kept]
        for j in range(width):
            order[j] = j
        if chosen.shape[0] == width:
            chosen[:] = order[:width]
            continue
        word = np.uint64(0)
        for j in range(chosen.shape[0]):  # Fisher and Yates, stopped after the rows that are wanted
            if j % 2 == 0:
                state += GAMMA
                word = mix64(state)
            else:
                word >>= _HALF
            k = j + np.int64(((word & _LOW) * np.uint64(width - j)) >> _HALF)
            chosen[j] = order[k]
            order[k] = order[j]


@compiled
def _butterflies(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The transform of eight numbers, in registers."""
    a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
    a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
    return a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h


@compiled
def transform(work: _Floats) -> None:
    """Unnormalised Walsh-Hadamard transform in natural order, in place; the length is a power of two.

    Three layers at a time read and write the block a third as often. Every output is the same tree of additions as
    layer by layer, so it has the same bits. The first three layers have a loop of their own because a stride of one is
    too short for the other's vectors.
    """
    n, h = work.shape[0], 1
    if n >= 8:
        for i in range(n // 8):
            p = work[8 * i : 8 * i + 8]
            p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] = _butterflies(
                p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
            )
        h = 8
    while 8 * h <= n:
        for s in range(0, n, 8 * h):
            q = work[s : s + 8 * h]
            q0, q1, q2, q3 = q[:h], q[h : 2 * h], q[2 * h : 3 * h], q[3 * h : 4 * h]
            q4, q5, q6, q7 = q[4 * h : 5 * h], q[5 * h : 6 * h], q[6 * h : 7 * h], q[7 * h :]
            for j in range(h):
                q0[j], q1[j], q2[j], q3[j], q4[j], q5[j], q6[j], q7[j] = _butterflies(
                    q0[j], q1[j], q2[j], q3[j], q4[j], q5[j], q6[j], q7[j]
                )
        h *= 8
    while h < n:
        for s in range(0, n, 2 * h):
            low, high = work[s : s + h], work[s + h : s + 2 * h]
            for j in range(h):
                low[j], high[j] = low[j] + high[j], low[j] - high[j]
        h *= 2


@compiled
def forward_block(x_block: _Floats, signs: _Words, rows: _Rows, scale: Any, work: _Floats, out: _Floats) -> None:
    """``out = scale * (H (signs * x_block))[rows]`` for one block.

    Parameters
    ----------
    x_block : float32 array of shape (at most w,)
        The block's coordinates; zeros are taken for what is missing.
    signs : uint64 array of shape (ceil(w / 64),)
        Bit j mod 64 of word j // 64 is 1 where coordinate j changes its sign.
    rows : uint16 array of shape (m,)
        Rows of H to keep, each below w.
    scale : float32
        ``1 / sqrt(w)`` makes H orthonormal.
    work : float32 array of shape (w,)
        Overwritten; w, a power of two, is the block's width.
    out : float32 array of shape (m,)
        The result.
    """
    size = x_block.shape[0]
    for k in range(signs.shape[0]):
        word, x, to = signs[k], x_block[64 * k : 64 * k + 64], work[64 * k : 64 * k + 64]
        for j in range(x.shape[0]):
            to[j] = -x[j] if (word >> np.uint64(j)) & _ONE else x[j]
    work[size:] = 0
    transform(work)
    for j in range(rows.shape[0]):
        out[j] = work[rows[j]] * scale


@compiled
def backward_block(y_block: _Floats, signs: _Words, rows: _Rows, scale: Any, work: _Floats, out: _Floats) -> None:
    """``out = scale * signs * (H y)``, where y has ``y_block`` in its ``rows`` and zeros elsewhere.

    Parameters are those of `forward_block`; ``y_block`` has shape (m,), and ``out`` shape (at most w,).
    """
    work[:] = 0
    for j in range(rows.shape[0]):
        work[rows[j]] = y_block[j]
    transform(work)
    for k in range(signs.shape[0]):
        word, x, to = signs[k], work[64 * k : 64 * k + 64], out[64 * k : 64 * k + 64]
        for j in range(to.shape[0]):
            value = x[j] * scale
            to[j] = -value if (word >> np.uint64(j)) & _ONE else value


@compiled
def run_blocks(
    x: _Floats, y: _Floats, signs: _Words, rows: _Rows, scales: _Floats, block: int, tail: int, kept: int,
    first: int, last: int, back: bool,
) -> None:  # fmt: skip
    """Blocks ``first:last`` from the vector x to the sketch y, or back; ``scales``: of a full block, of the last."""
    whole = np.empty(block, np.float32)
    words = block // 64
    for i in range(first, last):
        ends = (i + 1) * words >= signs.shape[0]
        work, scale = whole[: tail if ends else block], scales[1] if ends else scales[0]
        bits, chosen = signs[i * words : (i + 1) * words], rows[i * kept : (i + 1) * kept]
        x_block, y_block = x[i * block : (i + 1) * block], y[i * kept : (i + 1) * kept]
        if back:
            backward_block(y_block, bits, chosen, scale, work, x_block)
        else:
            forward_block(x_block, bits, chosen, scale, work, y_block)
