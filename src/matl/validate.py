"""Argument checks with one wording for all.

Checks are called with keyword arguments, so a message names the argument by itself.

Examples
--------
>>> positive(alpha=-1.0)
Traceback (most recent call last):
    ...
matl.errors.InvalidValueError: expected alpha > 0, got alpha=-1.0
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError

__all__ = [
    "at_least",
    "finite",
    "finite_matrix",
    "fraction",
    "non_negative",
    "positive",
    "sample_weights",
    "vector",
    "whole",
]


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidValueError(f"expected {name} to be finite, got {name}={value}")


def finite(**values: float) -> None:
    """Each value is neither NaN nor infinite."""
    for name, value in values.items():
        _finite(name, value)


def positive(**values: float) -> None:
    """Each value is finite and > 0."""
    for name, value in values.items():
        _finite(name, value)
        if not value > 0:
            raise InvalidValueError(f"expected {name} > 0, got {name}={value}")


def non_negative(**values: float) -> None:
    """Each value is finite and >= 0."""
    for name, value in values.items():
        _finite(name, value)
        if not value >= 0:
            raise InvalidValueError(f"expected {name} >= 0, got {name}={value}")


def at_least(minimum: float, **values: float) -> None:
    """Each value is finite and >= ``minimum``."""
    for name, value in values.items():
        _finite(name, value)
        if not value >= minimum:
            raise InvalidValueError(f"expected {name} >= {minimum}, got {name}={value}")


def whole(minimum: int, **values: Any) -> None:
    """Each value is a whole number >= ``minimum``; ``True`` and ``3.0`` are none."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < minimum:
            raise InvalidValueError(f"expected {name} to be a whole number >= {minimum}, got {name}={value!r}")


def fraction(**values: float) -> None:
    """Each value lies in [0, 1]."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise InvalidValueError(f"expected 0 <= {name} <= 1, got {name}={value}")


def vector(size: int | None = None, **values: NDArray[Any]) -> None:
    """Each value is a finite one-dimensional array, of ``size`` entries if that is given."""
    for name, value in values.items():
        if value.ndim != 1 or (size is not None and value.size != size):
            wanted = "(d,)" if size is None else f"({size},)"
            raise InvalidValueError(f"expected {name} of shape {wanted}, got shape {value.shape}")
        if not np.isfinite(value).all():
            raise InvalidValueError(f"expected {name} to be finite, got {_count_bad(value)} non-finite entries")


def finite_matrix(**values: NDArray[Any]) -> None:
    """Each value is a finite (n, d) array with n >= 1 and d >= 1."""
    for name, value in values.items():
        if value.ndim != 2 or 0 in value.shape:
            raise InvalidValueError(
                f"expected {name} of shape (n, d) with n, d >= 1, got shape {value.shape}; one row per client"
            )
        # Finite sums of squares prove every entry finite without an n x d mask; overflowing ones prove nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            quick = np.isfinite(np.vecdot(value, value)).all()
        if not quick and not np.isfinite(value).all():
            rows = np.flatnonzero(~np.isfinite(value).all(axis=1))
            raise InvalidValueError(
                f"expected {name} to be finite, got NaN or infinity in row(s) {rows[:5].tolist()}; "
                "mend or leave out such samples, and screen such updates"
            )


def sample_weights(size: int, **values: NDArray[Any]) -> None:
    """Each value holds ``size`` finite weights, all >= 0 and not all zero, with a finite sum."""
    for name, value in values.items():
        vector(size, **{name: value})
        if (value < 0).any() or not value.any() or not np.isfinite(value.sum()):
            raise InvalidValueError(
                f"expected {name} >= 0 and not all zero, got minimum {value.min(initial=0.0)} and sum {value.sum()}"
            )


def _count_bad(value: NDArray[Any]) -> int:
    return int(np.size(value) - np.isfinite(value).sum())
