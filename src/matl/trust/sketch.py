"""Linear sketches: short vectors that keep the angles between long ones, for histories and for comparing all pairs."""

from __future__ import annotations

import numpy as np

from matl import validate
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["Sketch"]


class Sketch:
    """Count sketch of vectors of length d into ``width`` numbers.

    Coordinate j is given a random sign and added to one of the buckets. Consecutive runs of ``width`` coordinates are
    laid over the buckets by a random rotation each, so that two coordinates of one run never meet, and vectors with
    d <= width keep their angles exactly.

    Parameters
    ----------
    size : int
        Length d of the vectors.
    seed : int
        Draws signs and rotations. The same seed gives the same sketch everywhere.
    width : int
        Length of the sketch. The error of a cosine has a standard deviation of about ``(1 - cos^2) / sqrt(width)``.

    Notes
    -----
    Cost O(nd). Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002.

    Examples
    --------
    >>> sketch = Sketch(10_000, seed=1)
    >>> a = np.random.default_rng(0).normal(size=(1, 10_000)).astype(np.float32)
    >>> bool(np.allclose(sketch(UpdateMatrix(a)), -sketch(UpdateMatrix(-a))))
    True
    """

    def __init__(self, size: int, seed: int, width: int = 512) -> None:
        validate.at_least(1, size=size, width=width)
        rng = np.random.default_rng([seed, size, width])
        self.size, self.width = size, width
        self._signs = rng.choice(np.array([-1.0, 1.0], np.float32), size=size)
        self._shifts = rng.integers(width, size=-(-size // width))

    def __call__(self, X: UpdateMatrix) -> Float32:
        """Sketch every row of an (n, d) matrix; float32 of shape (n, width)."""
        out = np.zeros((len(X), self.width), np.float32)
        for run, (start, shift) in enumerate(zip(range(0, self.size, self.width), self._shifts, strict=True)):
            stop = min(start + self.width, self.size)
            block = X.columns(start, stop) * self._signs[start:stop]
            shift = 0 if run == 0 else int(shift)
            room = self.width - shift
            out[:, shift : shift + min(room, stop - start)] += block[:, :room]
            if stop - start > room:
                out[:, : stop - start - room] += block[:, room:]
        return out
