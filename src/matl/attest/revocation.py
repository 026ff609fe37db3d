"""Lists of certificates that are no longer good: read anew whenever their file changes, and not believed when old.

Whoever checks evidence fetches the lists, say every hour by a timer, and puts each in place of the one before it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from matl import validate
from matl.attest import _roots
from matl.attest._der import SEQUENCE, Der, context
from matl.attest._x509 import check_signed, load_key
from matl.attest.claims import Clock, system_clock
from matl.errors import AttestationError, InvalidValueError

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

__all__ = ["DAYS", "MAX_LIST", "Listed", "RevokedList", "read_crl", "revoked_serials"]

DAYS = 7.0
"""Days after which a file that was not fetched again is old, unless something else is asked for."""
MAX_LIST = 16 << 20
"""Bytes of the longest list."""

_AHEAD = 1.0  # days that clocks may differ by
_VERSION_2 = 1
_TIMES = (b"\x17", b"\x18")


class Listed(NamedTuple):
    """What a list says.

    Attributes
    ----------
    serials : frozenset of int
        Serial numbers that are revoked.
    until : datetime or None
        When the next list is due, if this one says so.
    """

    serials: frozenset[int]
    until: datetime | None = None


class RevokedList:
    """Serial numbers in a file, for the ``revoked`` of a policy: ``serial in revoked`` looks whether the file changed.

    What cannot be known is not believed: with a list that is too old, or cannot be read, evidence is refused with the
    code ``"expired"``, whatever certificate it brings.

    Parameters
    ----------
    path : Path
        The file. Its time of modification counts as the time when it was fetched.
    read : callable
        Reads its content as `Listed`, or raises an error of ``matl.errors``; see `amd`, `crl` and `google`.
    days : float
        How old it may be, in days.
    clock : callable
        Tells the time.

    Raises
    ------
    MatlError
        The file is not such a list now.
    OSError
        It cannot be read now.
    """

    def __init__(
        self, path: Path, read: Callable[[bytes], Listed], *, days: float = DAYS, clock: Clock = system_clock
    ) -> None:
        validate.positive(days=days)
        self.path, self._read, self._days, self._clock = path, read, days, clock
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._listed = Listed(frozenset())
        self._fetched = self._look()

    def __contains__(self, serial: object) -> bool:
        return serial in self.serials

    @property
    def serials(self) -> frozenset[int]:
        """What is revoked now.

        Raises
        ------
        AttestationError
            ``"expired"``: the list is too old, or cannot be read any more.
        """
        with self._lock:
            try:
                self._fetched = self._look()
            except (OSError, InvalidValueError, AttestationError) as error:
                raise AttestationError(
                    "expired", f"the list {self.path.name} of what is revoked cannot be read: {error}; put a whole one "
                    "in its place",
                ) from error  # fmt: skip
            now = self._clock()
            age = (now - self._fetched).total_seconds() / 86400
            if age < -_AHEAD:
                raise AttestationError(
                    "expired", f"the list {self.path.name} of what is revoked is dated {-age:.1f} days ahead of this "
                    "machine's clock, and would never be old; set the clock right, or fetch the list anew",
                )  # fmt: skip
            if age > self._days:
                raise AttestationError(
                    "expired", f"the list {self.path.name} of what is revoked was fetched {age:.1f} days ago, at most "
                    f"{self._days:g} are allowed; fetch it anew",
                )  # fmt: skip
            if self._listed.until is not None and now > self._listed.until:
                raise AttestationError(
                    "expired", f"the list {self.path.name} of what is revoked was good until {self._listed.until}; "
                    "fetch it anew",
                )  # fmt: skip
            return self._listed.serials

    def _look(self) -> datetime:
        """Read the file if it is another one than last time; when it was fetched."""
        with self.path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            # Who copies a file may keep its time of modification, but not that of its change.
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                content = stream.read(MAX_LIST + 1)
                if len(content) > MAX_LIST:
                    raise InvalidValueError(f"expected a list of at most {MAX_LIST} bytes, there are more")
                self._listed = self._read(content)
                self._stamp = stamp
        return datetime.fromtimestamp(found.st_mtime, UTC)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Settings take one that is made, and nothing that could be made into one."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    @classmethod
    def google(cls, path: Path, *, days: float = DAYS, clock: Clock = system_clock) -> Self:
        """Google's list of keys of Android phones, see `revoked_serials`; the arguments are those of the class."""
        return cls(path, lambda content: Listed(revoked_serials(content)), days=days, clock=clock)

    @classmethod
    def amd(cls, path: Path, *, days: float = DAYS, clock: Clock = system_clock) -> Self:
        """AMD's list for a product, such as https://kdsintf.amd.com/vcek/v1/Milan/crl; arguments as of the class."""
        return cls.crl(path, tuple(_roots.AMD.values()), days=days, clock=clock)

    @classmethod
    def crl(cls, path: Path, keys: Collection[bytes], *, days: float = DAYS, clock: Clock = system_clock) -> Self:
        """A revocation list of X.509, as makers of chips publish them.

        Parameters
        ----------
        path : Path
            The file, DER.
        keys : collection of bytes
            Whose list it may be: keys (DER SubjectPublicKeyInfo) of authorities.
        days, clock
            See the class.
        """
        return cls(path, lambda content: read_crl(content, keys), days=days, clock=clock)


def read_crl(data: bytes, keys: Collection[bytes]) -> Listed:
    """A certificate revocation list (RFC 5280, section 5), signed by one of these keys.

    Parameters
    ----------
    data : bytes
        DER.
    keys : collection of bytes
        Keys (DER SubjectPublicKeyInfo) of authorities.

    Raises
    ------
    AttestationError
        ``"format"``: it is no such list, or says of certificates what is not understood here; ``"signature"``.
    """
    outer = Der(data, "revocation list")
    whole = outer.enter()
    outer.finish()
    signed = whole.raw(SEQUENCE)
    algorithm, signature = whole.raw(SEQUENCE), whole.whole_bits()
    whole.finish()
    body = Der(signed, "revocation list").enter()
    if body.integer() != _VERSION_2:
        raise AttestationError("format", "revocation list: only version 2 is read")
    if body.raw(SEQUENCE) != algorithm:
        raise AttestationError("format", "revocation list: two signature algorithms are named")
    body.raw(SEQUENCE)  # who issued it; the key tells
    body.time()
    until = body.time() if body.peek() in _TIMES else None
    serials = set()
    if (entries := body.optional(SEQUENCE)) is not None:
        while not entries.done:
            entry = entries.enter()
            serials.add(entry.integer())
            entry.time()
            _check_extensions(entry)
            entry.finish()
    if (tagged := body.optional(context(0))) is not None:
        _check_extensions(tagged)
        tagged.finish()
    body.finish()
    for key in keys:
        try:
            check_signed(load_key(key), algorithm, signature, signed, "the revocation list")
        except AttestationError:
            continue
        return Listed(frozenset(serials), until)
    raise AttestationError("signature", "the revocation list is not signed by any of the keys that may")


def revoked_serials(status_list: bytes) -> frozenset[int]:
    """Serial numbers named by Google's list at https://android.googleapis.com/attestation/status.

    Suspended ones count as revoked. They are lower-case hex by the list's definition; published samples also have some
    that are 64-bit decimals, so digits alone are taken both ways: a chance in 2**64 to refuse too much.

    Parameters
    ----------
    status_list : bytes
        The JSON document, at most 16 MiB.

    Raises
    ------
    InvalidValueError
        It is no such list.

    Examples
    --------
    >>> sorted(revoked_serials(b'{"entries": {"ff": {"status": "REVOKED"}, "10": {"status": "SUSPENDED"}}}'))
    [10, 16, 255]
    """
    if len(status_list) > MAX_LIST:
        raise InvalidValueError(f"expected a status list of at most {MAX_LIST} bytes, got {len(status_list)}")
    try:
        entries = json.loads(status_list)["entries"]
        statuses = {entry["status"] for entry in entries.values()}
        serials = {int(text, 16) for text in entries} | {int(text) for text in entries if text.isdecimal()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidValueError(f"not a status list of attestation keys: {error!r}") from error
    if not statuses <= {"REVOKED", "SUSPENDED"}:
        raise InvalidValueError(f"expected statuses REVOKED and SUSPENDED, got {', '.join(map(str, statuses))}")
    return frozenset(serials)


def _check_extensions(holder: Der) -> None:
    """Extensions, if there are any; a critical one would change what the list means (RFC 5280, 5.2 and 5.3)."""
    if holder.done:
        return
    extensions = holder.enter()
    while not extensions.done:
        extension = extensions.enter()
        name = extension.oid()
        if extension.peek() == b"\x01" and extension.boolean():
            raise AttestationError("format", f"revocation list: a critical extension that is not known: {name}")
        extension.octets()
        extension.finish()
