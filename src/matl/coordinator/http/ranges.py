"""What a client wants of bytes that it may have already: `Range`, `If-Range` and `If-None-Match` (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from matl.protocol.problems import Code, refusal

__all__ = ["unchanged", "wanted"]

_ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


def unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client has it already, by `If-None-Match`.

    Examples
    --------
    >>> unchanged({"if-none-match": '"old", W/"new"'}, '"new"'), unchanged({}, '"new"')
    (True, False)
    """
    known = {tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")}
    return bool(known & {etag, "*"})


def wanted(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """The bytes ``(start, stop)`` that are asked for; ``None`` for all, also where what is asked for is not one range.

    Raises
    ------
    ServiceError
        ``"invalid"``, reason ``"range"``: nothing is there.

    Examples
    --------
    >>> [wanted({"range": f"bytes={words}"}, '"tag"', 100) for words in ("10-19", "90-", "-5", "0-1000", "0-1,5-6")]
    [(10, 20), (90, 100), (95, 100), (0, 100), None]
    >>> wanted({"range": "bytes=10-19", "if-range": '"older"'}, '"tag"', 100) is None
    True
    """
    match = _ONE_RANGE.fullmatch(headers.get("range", ""))
    if match is None or headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None  # not a range at all: RFC 9110, section 14.1.1
    elif last:
        start, stop = max(size - int(last), 0), size
    else:
        return None
    if start >= stop:
        words = f"expected a range within 0-{size - 1}, got {headers['range']!r}"
        raise refusal(Code.INVALID, words, reason="range")
    return start, stop
