"""What users hand to a rule, as a matrix, and the way back; torch is touched only where its tensors come in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["matrix_of"]


def matrix_of(X: Any) -> tuple[UpdateMatrix, Callable[[Float32], Any]]:
    """A matrix of n rows, and what turns a vector of d numbers into the kind of array that ``X`` was made of.

    Raises
    ------
    InvalidValueError
        It is not n rows of d numbers each.
    """
    if isinstance(X, UpdateMatrix):
        return X, _as_is
    torch = sys.modules.get("torch")  # who hands over tensors has imported it
    first = X[0] if isinstance(X, list | tuple) and X else X
    if isinstance(X, list | tuple):
        lengths = [len(row) if hasattr(row, "__len__") else 1 for row in X]
        if len(set(lengths)) > 1:
            odd = next(length for length in lengths if length != lengths[0])
            raise InvalidValueError(
                f"expected X to hold n rows of d numbers each, got rows of length {lengths[0]} and {odd}"
            )
    if torch is None or not isinstance(first, torch.Tensor):
        return UpdateMatrix.of(X), _as_is
    tensor: Any = X if isinstance(X, torch.Tensor) else torch.stack(tuple(X))
    if not tensor.is_floating_point():
        raise InvalidValueError(
            f"expected tensors of floating-point numbers, got {tensor.dtype}; convert them by .float()"
        )

    def restore(vector: Float32) -> Any:
        return torch.from_numpy(vector).to(device=tensor.device, dtype=tensor.dtype)

    return UpdateMatrix.of(tensor.detach().to(device="cpu", dtype=torch.float32).numpy()), restore


def _as_is(vector: Float32) -> np.ndarray[Any, Any]:
    return vector
