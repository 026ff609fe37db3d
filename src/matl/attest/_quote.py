"""What stands in an Intel quote, read but not yet believed.

Layouts: Intel, *SGX ECDSA QuoteLib Reference: DCAP API* (version 3), *TDX DCAP Quoting Library API* (versions 4 and 5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from matl.errors import AttestationError

__all__ = ["RTMRS", "Domain", "Enclave", "read_quote"]

RTMRS = 4
"""Runtime measurement registers of a TDX domain."""

_ECDSA_P256 = 2  # attestation key type
_SGX, _TDX = 0, 0x81  # TEE type
_HEADER = struct.Struct("<H H I 40x")
_BODY = struct.Struct("<H I")  # version 5: type and size of the body
_SGX_BODY = struct.Struct("<48x 16s 32s 32x 32s 96x H H 60x 64s")
_TD_BODY = struct.Struct("<120x Q 8x 48s 48s 48s 48x 48s 48s 48s 48s 64s")
_TD_SIZES = {2: _TD_BODY.size, 3: _TD_BODY.size + 64}  # type 3, of TDX 1.5, ends in another TCB SVN and MRSERVICETD
_SGX_DEBUG = 0x02
_TD_UNDER_DEBUG = 0xFF  # TD_ATTRIBUTES.TUD, bits 7:0: any of them makes the domain untrusted


@dataclass(frozen=True, slots=True)
class Enclave:
    """Report of an SGX enclave."""

    version: int
    debug: bool
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes

    def details(self) -> dict[str, str | int]:
        """Plain data for people and logs."""
        return {
            "tee": "sgx",
            "quote_version": self.version,
            "mrsigner": self.mrsigner.hex(),
            "isv_prod_id": self.isv_prod_id,
            "isv_svn": self.isv_svn,
        }


@dataclass(frozen=True, slots=True)
class Domain:
    """Report of a TDX domain."""

    version: int
    debug: bool
    mrtd: bytes
    rtmrs: tuple[bytes, ...]
    mrconfigid: bytes
    mrowner: bytes
    report_data: bytes

    def details(self) -> dict[str, str | int]:
        """Plain data for people and logs."""
        return {
            "tee": "tdx",
            "quote_version": self.version,
            "mrconfigid": self.mrconfigid.hex(),
            "mrowner": self.mrowner.hex(),
            **{f"rtmr{register}": value.hex() for register, value in enumerate(self.rtmrs)},
        }


def read_quote(quote: bytes) -> Enclave | Domain:
    """The report in a quote of SGX (version 3) or TDX (versions 4 and 5).

    A quote ends where it says; zeros may follow, since quotes are handed out in buffers of a fixed size.

    Raises
    ------
    AttestationError
        ``"format"`` or ``"version"``: it is no such quote.
    """
    if len(quote) < _HEADER.size + _BODY.size:
        raise AttestationError("format", f"a quote of {len(quote)} bytes is cut short")
    version, key_type, tee = _HEADER.unpack_from(quote)
    if key_type != _ECDSA_P256:
        raise AttestationError("format", f"attestation key type {key_type} is not ECDSA P-256")
    at, size = _HEADER.size, _SGX_BODY.size if tee == _SGX else _TD_BODY.size
    if version == 5 and tee == _TDX:
        kind, size = _BODY.unpack_from(quote, at)
        at += _BODY.size
        if _TD_SIZES.get(kind) != size:
            raise AttestationError("version", f"a body of type {kind} and {size} bytes is not known")
    elif (version, tee) not in ((3, _SGX), (4, _TDX)):
        raise AttestationError("version", f"quote version {version} for TEE type {tee:#x} is not known")
    end = at + size
    if len(quote) < end + 4:
        raise AttestationError("format", f"a quote of {len(quote)} bytes is cut short")
    behind = end + 4 + int.from_bytes(quote[end : end + 4], "little")
    if len(quote) < behind or any(quote[behind:]):
        raise AttestationError("format", "the quote is cut short, or something follows it")
    return _enclave(version, quote[at:end]) if tee == _SGX else _domain(version, quote[at:end])


def _enclave(version: int, body: bytes) -> Enclave:
    attributes, mrenclave, mrsigner, prod_id, svn, report_data = _SGX_BODY.unpack(body)
    return Enclave(version, bool(attributes[0] & _SGX_DEBUG), mrenclave, mrsigner, prod_id, svn, report_data)


def _domain(version: int, body: bytes) -> Domain:
    attributes, mrtd, mrconfigid, mrowner, *rtmrs, report_data = _TD_BODY.unpack_from(body)
    debug = bool(attributes & _TD_UNDER_DEBUG)
    return Domain(version, debug, mrtd, tuple(rtmrs), mrconfigid, mrowner, report_data)
