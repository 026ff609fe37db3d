"""Vector arithmetic that several attacks need."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32

__all__ = ["cone_mix", "jittered", "lengths", "repeated", "squared_distances", "unit"]

_TINY = 1e-12
_SWEEPS = 200  # of coordinate descent: the mixes of ten nearly orthogonal directions are settled in a tenth of that


def lengths(rows: NDArray[Any]) -> Float32:
    """Norm of every row of (m, d), shape (m, 1)."""
    return np.asarray(np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def unit(vectors: NDArray[Any]) -> Float32:
    """A vector or rows at length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, _TINY), dtype=np.float32)


def repeated(vector: NDArray[Any], count: int) -> Float32:
    """The same vector (d,) for every malicious client, shape (count, d)."""
    return np.repeat(np.asarray(vector, dtype=np.float32)[None], count, axis=0)


def jittered(rows: Float32, jitter: float, rng: np.random.Generator) -> Float32:
    """Every row plus Gaussian noise of an expected norm of ``jitter`` times its own."""
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    noise *= lengths(rows) * np.float32(jitter / np.sqrt(rows.shape[1]))
    noise += rows
    return noise


def cone_mix(targets: Float32, directions: Float32) -> NDArray[np.float64]:
    """Coefficients (m, K) >= 0 of the point of cone{directions (K, d)} nearest to each target (m, d).

    Cyclic coordinate descent on the K x K Gram matrix; all-zero directions get 0.
    """
    gram = (directions @ directions.T).astype(np.float64)
    products = (targets @ directions.T).astype(np.float64)
    mix = np.zeros_like(products)
    for _ in range(_SWEEPS):
        for k in np.flatnonzero(np.diag(gram) > 0):
            mix[:, k] = np.maximum(mix[:, k] + (products[:, k] - mix @ gram[:, k]) / gram[k, k], 0.0)
    return mix


def squared_distances(U: Float32) -> NDArray[np.float64]:
    """Between all rows of (h, d), shape (h, h); differences from the mean keep the digits raw products would lose."""
    centred = (U - U.mean(axis=0)).astype(np.float64)
    gram = centred @ centred.T
    squares = np.diag(gram)
    return np.asarray(np.maximum(squares[:, None] + squares - 2.0 * gram, 0.0))
