"""Plain-data state: what judges, optimisers and runs carry from round to round.

State is a ``dict`` of strings to numbers, strings, bytes, booleans, ``None``, NumPy arrays, lists and further dicts.
It survives `pack` and `unpack` bit for bit, so a resumed run cannot differ from one that was never stopped.
There is no pickle: a state file can hold data but never code.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, TypeAlias

import msgpack
import numpy as np

from matl.errors import StateError

__all__ = ["State", "digest", "pack", "unpack"]

State: TypeAlias = dict[str, Any]

_NDARRAY = 1  # msgpack extension code for an array
_DEEPEST = 100  # dictionaries and lists in each other; ours have less than ten
_ALLOWED_KINDS = "biufU"  # booleans, integers, floats, text; never objects


def pack(state: State) -> bytes:
    """Encode a state as msgpack bytes.

    Raises
    ------
    StateError
        A value is not plain data.

    Examples
    --------
    >>> import numpy as np
    >>> unpack(pack({"round": 3, "scores": np.array([0.5], dtype=np.float32)}))
    {'round': 3, 'scores': array([0.5], dtype=float32)}
    """
    try:
        packed: bytes = msgpack.packb(state, default=_encode, strict_types=True)
        _check(state)
    except (TypeError, ValueError, OverflowError) as error:
        raise StateError(f"state is not plain data: {error}") from error
    return packed


def unpack(data: bytes) -> State:
    """Decode what `pack` wrote.

    Raises
    ------
    StateError
        The bytes are damaged or were not written by `pack`.
    """
    try:
        state = msgpack.unpackb(data, ext_hook=_decode, strict_map_key=True)
        _check(state)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise StateError(f"state cannot be read: {str(error) or type(error).__name__}") from error
    if not isinstance(state, dict):
        raise StateError(f"state cannot be read: expected a mapping, got {type(state).__name__}")
    return state


def digest(value: Any) -> str:
    """SHA-256 (hex) of plain data, independent of the order of dictionary keys.

    Examples
    --------
    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(pack({"": _sorted(value)})).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def _check(value: Any, depth: int = _DEEPEST) -> None:
    """Refuse what msgpack takes but a state may not hold; what is packed can then always be read again."""
    if depth < 0:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be text, got {key!r}")
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, msgpack.Timestamp | msgpack.ExtType):
        raise TypeError(f"{type(value).__name__} cannot be stored")


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _ALLOWED_KINDS:
            raise TypeError(f"array of dtype {value.dtype} cannot be stored")
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        header = [little.dtype.str, list(value.shape), little.tobytes()]
        return msgpack.ExtType(_NDARRAY, msgpack.packb(header))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode(code: int, data: bytes) -> Any:
    if code != _NDARRAY:
        raise ValueError(f"unknown extension {code}")
    dtype_text, shape, raw = msgpack.unpackb(data)
    # Checked as text first: NumPy evaluates parts of what it takes for a dtype.
    if not re.fullmatch(f"[<|][{_ALLOWED_KINDS}][0-9]+", dtype_text):
        raise ValueError(f"array of dtype {dtype_text!r} is not allowed")
    dtype = np.dtype(dtype_text)
    if not (isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)):
        raise ValueError(f"array of shape {str(shape)[:80]} is not allowed")  # a product with text can fill the memory
    if len(raw) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"array of shape {shape} does not match its {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
