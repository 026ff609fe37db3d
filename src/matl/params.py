"""Named model arrays on one side, one flat float32 vector on the other.

Judging and aggregation work on vectors; models come as named arrays (a dict of NumPy arrays, a torch state dict, the
list of arrays that Flower passes around). `ParamLayout` is the map between the two.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matl.errors import LayoutError, UnknownNameError
from matl.state import digest

__all__ = ["Arrays", "Float32", "ParamEntry", "ParamLayout", "Role", "as_numpy", "values_hash"]

Float32: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = Mapping[str, Any] | Sequence[Any]


class Role(StrEnum):
    """What a named array is to training."""

    TRAINABLE = "trainable"  # moved by the optimiser
    BUFFER = "buffer"  # kept by the model itself, such as running statistics; averaged when it is floating point
    FROZEN = "frozen"  # never sent


@dataclass(frozen=True, slots=True)
class ParamEntry:
    """One named array of a layout.

    Parameters
    ----------
    name : str
        Its name; lists are named by position, ``"0"``, ``"1"``, ...
    shape : tuple of int
        Its shape; ``()`` for a scalar.
    dtype : str
        Its NumPy dtype name, e.g. ``"float32"``.
    role : Role
        What it is to training.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role = Role.TRAINABLE

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @property
    def in_vector(self) -> bool:
        """Whether the array is part of the flat vector: floating point, and not frozen."""
        return self.role is not Role.FROZEN and np.dtype(self.dtype).kind == "f"


@dataclass(frozen=True)
class ParamLayout:
    """An ordered description of a model's arrays.

    Integer buffers (a batch counter, say) and frozen arrays are part of the layout and of its digest but bypass the
    vector; `unflatten` takes them from ``carried``.

    Parameters
    ----------
    entries : tuple of ParamEntry
        The arrays in their fixed order. Names are unique.

    Examples
    --------
    >>> import numpy as np
    >>> model = {"weight": np.ones((2, 2), np.float16), "bias": np.zeros(2, np.float32), "steps": np.array(7)}
    >>> layout = ParamLayout.of(model, roles={"steps": "buffer"})
    >>> layout.size
    6
    >>> vector = layout.flatten(model)
    >>> back = layout.unflatten(vector * 2, carried=model)
    >>> back["weight"].dtype, back["steps"]
    (dtype('float16'), array(7))
    """

    entries: tuple[ParamEntry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise LayoutError("names", f"expected unique parameter names, got {twice} more than once")
        if not any(entry.in_vector and entry.size for entry in self.entries):
            raise LayoutError("size", "expected at least one floating-point parameter, got none")

    @classmethod
    def of(cls, arrays: Arrays, *, roles: Mapping[str, str] | None = None) -> ParamLayout:
        """Describe the arrays of a model.

        Parameters
        ----------
        arrays : mapping of str to array, or sequence of arrays
            NumPy arrays or torch tensors.
        roles : mapping of str to str, optional
            Roles that differ from the default: ``trainable`` for floating point, ``buffer`` for everything else.

        Raises
        ------
        LayoutError
            A role names no array, or nothing is trainable.
        UnknownNameError
            There is no such role.
        """
        named = {name: as_numpy(value) for name, value in _items(arrays)}
        unknown = sorted(set(roles or {}) - set(named))
        if unknown:
            raise LayoutError("names", f"roles given for unknown parameters {unknown}; known: {sorted(named)}")
        for role in (roles or {}).values():
            if role not in list(Role):
                raise UnknownNameError("role", role, [known.value for known in Role])
        entries = []
        for name, value in named.items():
            default = Role.TRAINABLE if value.dtype.kind == "f" else Role.BUFFER
            entries.append(ParamEntry(name, value.shape, value.dtype.name, Role((roles or {}).get(name, default))))
        return cls(tuple(entries))

    @cached_property
    def size(self) -> int:
        """Length d of the flat vector."""
        return sum(entry.size for entry in self.entries if entry.in_vector)

    @property
    def nbytes(self) -> int:
        """Bytes that all arrays take together, those beside the vector included."""
        return sum(entry.size * np.dtype(entry.dtype).itemsize for entry in self.entries)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each array of the vector lies in it, by name, for rules that work layer by layer."""
        result, start = {}, 0
        for entry in self.entries:
            if entry.in_vector:
                result[entry.name] = slice(start, start + entry.size)
                start += entry.size
        return result

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes, dtypes, roles and their order."""
        return digest([[e.name, list(e.shape), e.dtype, e.role.value] for e in self.entries])

    def check(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Return the arrays by name if they fit this layout exactly.

        Raises
        ------
        LayoutError
            Names, a shape or a dtype differ; ``code`` says which. Frozen arrays may be absent.
        """
        named = {name: as_numpy(value) for name, value in _items(arrays)}
        wanted = {entry.name: entry for entry in self.entries}
        missing = sorted(name for name, e in wanted.items() if name not in named and e.role is not Role.FROZEN)
        extra = sorted(set(named) - set(wanted))
        if missing or extra:
            raise LayoutError("names", f"parameter names differ: missing {missing[:5]}, unexpected {extra[:5]}")
        for name, value in named.items():
            entry = wanted[name]
            if value.shape != entry.shape:
                raise LayoutError("shape", f"parameter {name!r}: expected shape {entry.shape}, got {value.shape}")
            if value.dtype.name != entry.dtype:
                raise LayoutError("dtype", f"parameter {name!r}: expected dtype {entry.dtype}, got {value.dtype.name}")
        return named

    def flatten(self, arrays: Arrays) -> Float32:
        """Check the arrays and copy them into one float32 vector of shape (d,).

        Raises
        ------
        LayoutError
            They do not fit this layout.
        """
        named = self.check(arrays)
        vector = np.empty(self.size, dtype=np.float32)
        # A float64 beyond float32's range becomes inf here; screening rejects it as non-finite.
        with np.errstate(over="ignore"):
            for name, where in self.slices.items():
                vector[where] = named[name].ravel()
        return vector

    def unflatten(self, vector: NDArray[Any], *, carried: Arrays | None = None) -> dict[str, NDArray[Any]]:
        """Cut a vector of shape (d,) into named arrays of the layout's shapes and dtypes.

        float32 arrays are views of the vector. Arrays outside the vector come from ``carried``, and are left out
        where it has none.

        Raises
        ------
        LayoutError
            The vector has another length.
        """
        if vector.shape != (self.size,):
            raise LayoutError("size", f"expected a vector of shape ({self.size},), got {vector.shape}")
        beside = dict(_items(carried)) if carried is not None else {}
        result = {}
        for entry in self.entries:
            if entry.in_vector:
                part = vector[self.slices[entry.name]].reshape(entry.shape)
                result[entry.name] = part.astype(entry.dtype, copy=False)
            elif entry.name in beside:
                result[entry.name] = as_numpy(beside[entry.name])
        return result


def values_hash(vector: NDArray[Any]) -> str:
    """SHA-256 (hex) of the values of an array as little-endian bytes, the hash a model version goes by."""
    little = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data.cast("B") if little.size else b"").hexdigest()


def as_numpy(value: Any) -> NDArray[Any]:
    """View an array or a torch tensor (on any device, with or without gradient) as a NumPy array.

    torch is recognised by what a tensor can do, so that it is never imported here.
    """
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        if "bfloat16" in str(tensor.dtype):
            tensor = tensor.float()  # NumPy has no bfloat16; float32 holds every one of its values
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def _items(arrays: Arrays) -> Iterable[tuple[str, Any]]:
    if isinstance(arrays, Mapping):
        return arrays.items()
    return ((str(index), value) for index, value in enumerate(arrays))
