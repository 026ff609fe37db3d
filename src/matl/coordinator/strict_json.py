"""JSON of a kind that is safe to keep, whichever door it came through."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from matl.protocol.problems import Code, refusal

__all__ = ["DEEPEST", "LARGEST_JSON", "in_words", "parse"]

M = TypeVar("M", bound=BaseModel)

LARGEST_JSON = 256 << 10
"""Bytes of the largest body of JSON."""
DEEPEST = 16
"""How deep lists and objects may stand in one another."""

_LARGEST_NUMBER = 2**53  # what every reader of JSON reads exactly
_SHOWN = 8  # problems of one body that its answer names


def parse(model: type[M], data: bytes | str) -> M:
    """Read JSON that is what it says: no name twice, no infinities, no half characters, not too deep.

    Raises
    ------
    ServiceError
        ``"malformed"`` if it is not such JSON, ``"invalid"`` if it is not the model.

    Examples
    --------
    >>> from matl.protocol.messages import ActionRequest
    >>> parse(ActionRequest, b'{"reason": "noise"}')
    ActionRequest(reason='noise')
    >>> parse(ActionRequest, b'{"reason": 3}')
    Traceback (most recent call last):
        ...
    matl.errors.ServiceError: reason: Input should be a valid string
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        content = json.loads(text, object_pairs_hook=_unique)
        _check(content, DEEPEST)
    except (ValueError, RecursionError) as error:
        raise refusal(
            Code.MALFORMED, f"the body is not JSON that can be read: {error!s:.200}", reason="json"
        ) from error
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        raise refusal(Code.INVALID, in_words(error.errors(include_url=False, include_input=False))) from error


def in_words(problems: list[Any]) -> str:
    """What pydantic found, as one line that names each field."""
    lines = [f"{'.'.join(str(part) for part in one['loc']) or 'the body'}: {one['msg']}" for one in problems[:_SHOWN]]
    more = len(problems) - _SHOWN
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _check(value: Any, depth: int) -> None:
    """Refuse what databases, hashes or other readers of JSON would trip over."""
    if isinstance(value, str):
        value.encode()  # a half of a surrogate pair is a ValueError
        if "\0" in value:
            raise ValueError("a string holds the character NUL")
    elif isinstance(value, int):
        if abs(value) > _LARGEST_NUMBER:
            raise ValueError("a whole number is not within 2^53 of zero")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is not finite")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(f"nested deeper than {DEEPEST}")
        for name in value if isinstance(value, dict) else ():
            _check(name, depth - 1)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)
