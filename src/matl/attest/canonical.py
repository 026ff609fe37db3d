"""Canonical texts: what is signed, with exactly one spelling for every value.

A text is lines joined by one newline, with none at the end. The first line names what it is, such as
``matl-update/2``, so that a signature on one kind of text is never one on another; then comes ``key=value`` for every
field, in a fixed order. Values have narrow grammars of visible ASCII, which is also UTF-8: no text looks like another
one, whatever is done with Unicode. Reading accepts only what writing produces, so that
``parse(text).to_bytes() == text`` and ``parse(value.to_bytes()) == value``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from matl.errors import InvalidValueError, ProtocolError

__all__ = [
    "COUNT",
    "DIGEST",
    "IDENTIFIER",
    "LARGEST_COUNT",
    "CanonicalText",
    "Grammar",
    "check_identifier",
    "line",
    "unix_ms",
]

LARGEST_COUNT = 2**53 - 1
"""The largest number in a text, which the numbers of every language hold exactly (RFC 7493, section 2.2)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How one kind of value is spelled.

    Parameters
    ----------
    words : str
        What is allowed, for messages.
    pattern : str
        Regular expression of the whole spelling; it matches ASCII alone.
    longest : int
        Characters of the longest spelling.
    kind : type
        The value's type, exactly: ``True`` is no whole number.
    encode, decode : callable
        Between value and spelling. ``decode`` gets only what matches the pattern, and may raise ValueError.
    optional : bool
        Whether there may be no value, ``None``, which is spelled as nothing.
    """

    words: str
    pattern: str
    longest: int
    kind: type = str
    encode: Callable[[Any], str] = str
    decode: Callable[[str], Any] = str
    optional: bool = False

    def write(self, key: str, value: Any) -> str:
        """The spelling of a value.

        Raises
        ------
        ProtocolError
            There is none.
        """
        if value is None and self.optional:
            return ""
        if type(value) is not self.kind:
            raise self._refusal(key, f"a {type(value).__name__}")
        # Before it is spelled: Python refuses to spell an integer of 5,000 digits.
        if isinstance(value, int) and not 0 <= value <= LARGEST_COUNT:
            raise self._refusal(key, f"one of {value.bit_length()} bits, or a negative one")
        text = self.encode(value)
        if not self._matches(text):
            raise self._refusal(key, f"{text[:32]!a}, {len(text)} characters")
        return text

    def read(self, key: str, text: str) -> Any:
        """The value of a spelling.

        Raises
        ------
        ProtocolError
            It is not the one spelling of any value.
        """
        if not text and self.optional:
            return None
        if self._matches(text):
            try:
                value = self.decode(text)
            except ValueError:
                pass
            else:
                if self.write(key, value) == text:
                    return value
        raise self._refusal(key, f"{text[:32]!a}, {len(text)} characters")

    def _matches(self, text: str) -> bool:
        return len(text) <= self.longest and re.fullmatch(self.pattern, text) is not None

    def _refusal(self, key: str, got: str) -> ProtocolError:
        return ProtocolError("malformed", f"{key}: expected {self.words}, got {got}")


# Letters of other scripts look like these: with them two clients could have what people read as one name.
IDENTIFIER = Grammar(
    words="1 to 128 ASCII letters, digits and . _ : @ -, beginning with a letter or digit",
    pattern="[A-Za-z0-9][A-Za-z0-9._:@-]*",
    longest=128,
)
"""Ids of clients and runs."""
DIGEST = Grammar(words="64 lowercase hexadecimal digits", pattern="[0-9a-f]{64}", longest=64)
"""SHA-256."""
COUNT = Grammar(
    words=f"a whole number from 0 to {LARGEST_COUNT}, without leading zeros",
    pattern="0|[1-9][0-9]*",
    longest=len(str(LARGEST_COUNT)),
    kind=int,
    decode=int,
)
"""Whole numbers."""


def line(grammar: Grammar, key: str = "") -> Any:
    """A field of a text: how its value is spelled, and what stands before the ``=`` if not the field's own name."""
    return field(metadata={"grammar": grammar, "key": key})


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalText:
    """What all texts can do. A value that has no spelling cannot be constructed.

    Raises
    ------
    ProtocolError
        A field's grammar has no spelling for its value.
    """

    DOMAIN: ClassVar[str] = ""
    """The first line; a signature is good for texts with this line alone."""

    def __post_init__(self) -> None:
        for name, key, grammar in _lines(type(self)):
            grammar.write(key, getattr(self, name))

    def to_bytes(self) -> bytes:
        """The text."""
        lines = [self.DOMAIN] if self.DOMAIN else []
        lines += [f"{key}={grammar.write(key, getattr(self, name))}" for name, key, grammar in _lines(type(self))]
        return "\n".join(lines).encode("ascii")

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a text of this kind.

        Raises
        ------
        ProtocolError
            It is too long (``"size"``), or is not exactly what `to_bytes` writes (``"malformed"``).
        """
        layout, name = _lines(cls), cls.__name__
        longest = len(cls.DOMAIN) + sum(len(key) + 2 + grammar.longest for _, key, grammar in layout)
        if len(text) > longest:
            raise ProtocolError("size", f"{name}: expected at most {longest} bytes, got {len(text)}")
        try:
            lines = text.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProtocolError("malformed", f"{name}: byte {error.start} is not ASCII; no field needs more") from error
        domain = [cls.DOMAIN] if cls.DOMAIN else []
        if len(lines) != len(domain) + len(layout) or lines[: len(domain)] != domain:
            first = f", the first being {cls.DOMAIN!r}" if domain else ""
            raise ProtocolError(
                "malformed",
                f"{name}: expected {len(domain) + len(layout)} lines{first}, got {len(lines)}: {lines[0]!a:.40}, ...",
            )
        values = {}
        for number, (attribute, key, grammar) in enumerate(layout, start=len(domain)):
            found, equals, spelled = lines[number].partition("=")
            if found != key or not equals:
                raise ProtocolError("malformed", f"{name}: expected line {number + 1} to be {key}=, got {found!a:.40}")
            values[attribute] = grammar.read(key, spelled)
        return cls(**values)

    def differences(self, other: Self) -> list[str]:
        """Keys of the fields in which another text of this kind differs."""
        return [key for name, key, _ in _lines(type(self)) if getattr(self, name) != getattr(other, name)]


def _lines(kind: type[CanonicalText]) -> tuple[tuple[str, str, Grammar], ...]:
    """Attribute, key and grammar of every line, in order."""
    return tuple((item.name, item.metadata["key"] or item.name, item.metadata["grammar"]) for item in fields(kind))


def check_identifier(**values: str) -> None:
    """Each value, which is of our own side, can be the id of a client, a run or an operator.

    Raises
    ------
    InvalidValueError
        One cannot.
    """
    for name, value in values.items():
        try:
            IDENTIFIER.write(name, value)
        except ProtocolError as error:
            raise InvalidValueError(str(error)) from error


def unix_ms(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down.

    Raises
    ------
    InvalidValueError
        The moment has no time zone.

    Examples
    --------
    >>> unix_ms(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    1700000000000
    """
    if moment.tzinfo is None:
        raise InvalidValueError(f"expected a time with a time zone, got {moment}; datetime.now(UTC) has one")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
