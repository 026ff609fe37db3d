"""How evidence travels, and how a nonce and a key are bound into what hardware signs.

Evidence of Intel, AMD and Android machines is several files; they travel as one msgpack map of named byte strings, the
fields of a format in its order. There is one encoding of given parts: whatever differs from it is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping

import msgpack

from matl.errors import AttestationError, InvalidValueError

__all__ = [
    "MAX_KEY",
    "REPORT_DATA_SIZE",
    "among",
    "binding",
    "check_digests",
    "check_nonce",
    "pack_evidence",
    "unpack_evidence",
]

REPORT_DATA_SIZE = 64
"""Bytes that a guest can have signed into an SGX, TDX or SEV-SNP report."""

MAX_KEY = 1024
"""Bytes of the largest key that evidence may bring."""

_DOMAIN = b"MATL attested key, version 1\n"
_OVERHEAD = 16  # at most, per field: lengths and the map's header, beside the name


def pack_evidence(**parts: bytes) -> bytes:
    """One byte string of named ones.

    Examples
    --------
    >>> pack_evidence(report=b"r", vcek=b"v").hex()
    '82a67265706f7274c40172a47663656bc40176'
    """
    packed: bytes = msgpack.packb(dict(parts), use_bin_type=True, strict_types=True)
    return packed


def unpack_evidence(
    evidence: bytes, fields: Mapping[str, int], optional: Mapping[str, int] | None = None
) -> dict[str, bytes]:
    """Undo `pack_evidence`.

    Parameters
    ----------
    evidence : bytes
        What arrived.
    fields : mapping of str to int
        The names that must be there, in their order, and how many bytes each may have.
    optional : mapping of str to int, optional
        The names that may come behind them.

    Raises
    ------
    AttestationError
        ``"format"``: other fields, too many bytes, or not the one encoding.
    """
    limits = {**fields, **(optional or {})}
    longest = sum(len(name) + limit + _OVERHEAD for name, limit in limits.items())
    if len(evidence) > longest:
        raise AttestationError("format", f"evidence of {len(evidence)} bytes, at most {longest} allowed")
    try:
        parts = msgpack.unpackb(evidence, max_map_len=len(limits), max_array_len=0, max_ext_len=0, max_str_len=64)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise AttestationError("format", f"evidence is not msgpack: {error or type(error).__name__}") from error
    names = list(parts) if isinstance(parts, dict) else None
    if names is None or names[: len(fields)] != list(fields) or not set(names) <= set(limits):
        raise AttestationError("format", f"evidence needs the fields {', '.join(fields)} in this order")
    for name, part in parts.items():
        if not isinstance(part, bytes) or len(part) > limits[name]:
            raise AttestationError("format", f"evidence: {name} is not a byte string of at most {limits[name]} bytes")
    if pack_evidence(**parts) != evidence:
        raise AttestationError("format", "evidence is not in its one encoding")
    return dict(parts)


def binding(nonce: bytes, key: bytes = b"") -> bytes:
    """The 64 bytes of report data that answer a nonce and, if one is given, vouch for a public key.

    Without a key it is the nonce with zeros behind it; with one, SHA-512 of a fixed line, the nonce's length in one
    byte, the nonce and the key.

    Parameters
    ----------
    nonce : bytes
        1 to 64 bytes, drawn by whoever asks; 32 random ones are plenty.
    key : bytes
        A public key (DER SubjectPublicKeyInfo), or nothing.

    Raises
    ------
    InvalidValueError
        The nonce is empty or too long.

    Examples
    --------
    >>> binding(b"once").hex()[:12], len(binding(b"once", b"key"))
    ('6f6e63650000', 64)
    """
    check_nonce(nonce, REPORT_DATA_SIZE)
    if not key:
        return nonce.ljust(REPORT_DATA_SIZE, b"\0")
    return hashlib.sha512(_DOMAIN + bytes([len(nonce)]) + nonce + key).digest()


def check_nonce(nonce: bytes, longest: int) -> None:
    """A nonce is 1 to ``longest`` bytes; an empty one would be answered by every old report."""
    if not 1 <= len(nonce) <= longest:
        raise InvalidValueError(f"expected a nonce of 1 to {longest} bytes, got {len(nonce)}; draw 32 random bytes")


def check_digests(size: int, **values: Collection[str]) -> None:
    """Each value holds at least one digest of ``size`` bytes in lower-case hex, and nothing else."""
    for name, digests in values.items():
        if isinstance(digests, str | bytes) or not digests:
            raise InvalidValueError(
                f"expected {name} to name at least one digest in a set, got {digests!r}; pin what may run"
            )
        for digest in digests:
            if not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", digest):
                raise InvalidValueError(f"expected {name} to be {size} bytes in lower-case hex, got {digest!r}")


def among(digest: bytes, allowed: Collection[str]) -> bool:
    """Whether a digest is one of those in hex, in a time that does not tell which."""
    return sum(hmac.compare_digest(digest.hex(), candidate) for candidate in sorted(allowed)) > 0
