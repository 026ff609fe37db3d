"""AMD SEV-SNP attestation reports, signed by a chip's own key (VCEK) under AMD's root keys.

Evidence is `matl.attest.evidence.pack_evidence` of ``report`` (1,184 bytes as the firmware wrote them), ``vcek`` and
``ask`` (DER certificates) and, if a key is to be vouched for, ``key``. Layouts: AMD, *SEV Secure Nested Paging Firmware
ABI Specification*, document 56860 (table "ATTESTATION_REPORT"), and *Versioned Chip Endorsement Key (VCEK) Certificate
and KDS Interface Specification*, document 57230.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from matl.attest import _roots
from matl.attest._der import Der
from matl.attest._x509 import Certificate, verify_chain
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.evidence import MAX_KEY, among, binding, check_digests, unpack_evidence
from matl.attest.revocation import RevokedList
from matl.errors import AttestationError, InvalidValueError
from matl.validate import whole

__all__ = ["AmdVerifier", "SnpPolicy", "SnpTcb"]

REPORT_SIZE = 0x4A0
_SIGNED = 0x2A0
_VERSIONS = range(2, 6)  # 2: Milan and Genoa; 3 adds the CPUID; 5 (4 in drafts) mitigation vectors, in reserved places
_ECDSA_P384_SHA384 = 1
_VCEK_SIGNED = 0  # SIGNING_KEY of KEY_INFO; 1 is a cloud provider's VLEK, which does not name a chip
_MIGRATION, _DEBUG = 1 << 18, 1 << 19  # of the guest policy

_FIELDS = {"report": REPORT_SIZE, "vcek": 4096, "ask": 4096}
_OID = "1.3.6.1.4.1.3704.1."
_PRODUCT, _HARDWARE_ID = _OID + "2", _OID + "4"
# Levels that a VCEK certifies, and the byte of TCB_VERSION each stands in: before Turin, and from Turin on.
_LEVELS = {"boot_loader": _OID + "3.1", "tee": _OID + "3.2", "snp": _OID + "3.3", "microcode": _OID + "3.8"}
_FMC = {"fmc": _OID + "3.9"}
_LAYOUTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "Milan": MappingProxyType({"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7}),
        "Genoa": MappingProxyType({"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7}),
        "Turin": MappingProxyType({"fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 7}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpTcb:
    """Security versions of the firmware below a guest; each part only ever grows.

    Parameters
    ----------
    boot_loader, tee, snp, microcode : int
        Versions of the secure processor's boot loader and operating system, of the SNP firmware and of the microcode.
    fmc : int
        Version of the firmware module controller; chips before Turin have none.
    """

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    def __post_init__(self) -> None:
        whole(0, boot_loader=self.boot_loader, tee=self.tee, snp=self.snp, microcode=self.microcode, fmc=self.fmc)

    def covers(self, least: SnpTcb) -> bool:
        """Whether no part is older than in ``least``.

        Examples
        --------
        >>> old = SnpTcb(boot_loader=3, tee=0, snp=8, microcode=115)
        >>> SnpTcb(boot_loader=4, tee=0, snp=22, microcode=114).covers(old)
        False
        """
        return all(getattr(self, part) >= getattr(least, part) for part in self.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpPolicy:
    """What a SEV-SNP guest has to prove. A guest that may be debugged is never accepted.

    Parameters
    ----------
    measurements : frozenset of str
        Launch measurements (48 bytes, hex) that may run.
    min_tcb : mapping of str to SnpTcb
        The oldest firmware allowed, for each product (``"Milan"``, ``"Genoa"``, ``"Turin"``); others are refused.
    revoked : frozenset of int or RevokedList
        Serial numbers that count as revoked: `RevokedList.amd`, or of a list that the caller keeps fresh.
    max_vmpl : int
        The least privileged level (0 is the most privileged) that may have asked for the report.
    min_guest_svn : int
        The oldest security version of the guest, which its owner's signed ID block sets.
    min_version : int
        The oldest report version.
    allow_migration : bool
        Whether the guest may have a migration agent, which can move it to another machine.

    Raises
    ------
    InvalidValueError
        Nothing is pinned, or a value is out of range.
    """

    measurements: frozenset[str]
    min_tcb: Mapping[str, SnpTcb]
    revoked: frozenset[int] | RevokedList
    max_vmpl: int = 0
    min_guest_svn: int = 0
    min_version: int = 2
    allow_migration: bool = False

    def __post_init__(self) -> None:
        check_digests(48, measurements=self.measurements)
        whole(0, max_vmpl=self.max_vmpl, min_guest_svn=self.min_guest_svn)
        whole(2, min_version=self.min_version)
        if not self.min_tcb or not set(self.min_tcb) <= set(_LAYOUTS):
            raise InvalidValueError(
                f"expected min_tcb for one or more of {', '.join(_LAYOUTS)}, got {', '.join(self.min_tcb) or 'none'}"
            )


class AmdVerifier:
    """Checks SEV-SNP reports.

    Parameters
    ----------
    roots : mapping of str to bytes, optional
        Root key (DER SubjectPublicKeyInfo) of each product, instead of AMD's; then `Claims.hardware_root` is false.
    """

    format: ClassVar[str] = "amd-sev-snp"

    def __init__(self, roots: Mapping[str, bytes] | None = None) -> None:
        self._roots = _roots.AMD if roots is None else dict(roots)
        self._pinned = roots is None

    def verify(self, evidence: bytes, nonce: bytes, policy: SnpPolicy, clock: Clock = system_clock) -> Claims:
        """What a report proves about a guest that was asked with ``nonce`` (1 to 64 bytes).

        Its report data has to be `matl.attest.evidence.binding` of the nonce and the evidence's key.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        """
        parts = unpack_evidence(evidence, _FIELDS, {"key": MAX_KEY})
        key = parts.get("key", b"")
        expected = binding(nonce, key)
        vcek, ask = Certificate.parse(parts["vcek"], "VCEK"), Certificate.parse(parts["ask"], "ASK")
        product = _product(vcek)
        if product not in self._roots:
            raise AttestationError("root", f"no root key is known for the product {product!r}")
        verify_chain([vcek, ask], [self._roots[product]], clock(), revoked=policy.revoked)

        report = _read_report(parts["report"])
        _check_signature(parts["report"], report, vcek)
        if not hmac.compare_digest(report.report_data, expected):
            raise AttestationError("nonce", "the report answers another nonce, or vouches for another key")
        tcb = _check_chip(report, vcek, product)
        _check_policy(report, tcb, product, policy)
        return Claims(
            format=self.format,
            hardware_root=self._pinned,
            measurement=report.measurement.hex(),
            key=key or None,
            report_data=report.report_data,
            details=_details(report, tcb, product),
        )


class _Report(NamedTuple):
    """The fields of a report that mean the same in every version."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    chip_id: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    r: bytes
    s: bytes
    behind: bytes


_REPORT = struct.Struct(
    "<I I Q 16s 16s I I 8s Q I 4x 64s 48s 32s 48s 48s 32s 32s 8s 24x 64s 8s 8x 8s 168x 72s 72s 368s"
)


def _read_report(data: bytes) -> _Report:
    if len(data) != REPORT_SIZE:
        raise AttestationError("format", f"a report has {REPORT_SIZE} bytes, got {len(data)}")
    report = _Report._make(_REPORT.unpack(data))
    if report.version not in _VERSIONS:
        raise AttestationError("version", f"report version {report.version} is not among {list(_VERSIONS)}")
    if report.signature_algorithm != _ECDSA_P384_SHA384:
        raise AttestationError("format", f"signature algorithm {report.signature_algorithm} is not ECDSA P-384")
    if report.key_info >> 2 & 0b111 != _VCEK_SIGNED:
        raise AttestationError("format", "the report is not signed by a VCEK, the only key read here")
    return report


def _check_signature(data: bytes, report: _Report, vcek: Certificate) -> None:
    key = vcek.key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError("format", "a VCEK is a key on P-384")
    if any(report.r[48:] + report.s[48:] + report.behind):
        raise AttestationError("format", "the report's signature is followed by bytes that are not zero")
    r, s = int.from_bytes(report.r, "little"), int.from_bytes(report.s, "little")
    try:
        key.verify(encode_dss_signature(r, s), data[:_SIGNED], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise AttestationError("signature", "the report is not signed by this VCEK") from error


def _product(vcek: Certificate) -> str:
    """``Milan`` of the VCEK's ``Milan-B0``; it is believed once AMD's key for that product has signed the chain."""
    extension = Der(vcek.extensions.get(_PRODUCT, b""), "productName")
    name = extension.take(b"\x16")  # IA5String
    extension.finish()
    return name[:32].decode("ascii", "replace").split("-")[0]


def _check_chip(report: _Report, vcek: Certificate, product: str) -> SnpTcb:
    """The VCEK is that of this chip at the firmware that the report names; returns that firmware's versions."""
    hardware_id = vcek.extensions.get(_HARDWARE_ID, b"")
    if len(hardware_id) in (66, 10):  # an OCTET STRING in newer certificates, bare in older ones
        hardware_id = Der(hardware_id, "hwID").octets()
    if len(hardware_id) not in (64, 8) or not hmac.compare_digest(hardware_id.ljust(64, b"\0"), report.chip_id):
        raise AttestationError("signature", "the VCEK is that of another chip than the report names")
    certified = {}
    for part, oid in (_LEVELS | (_FMC if "fmc" in _LAYOUTS[product] else {})).items():
        level = Der(vcek.extensions.get(oid, b""), part)
        certified[part] = level.integer()
        level.finish()
    reported = _tcb(report.reported_tcb, product)
    if SnpTcb(**certified) != reported:
        raise AttestationError("version", f"the VCEK is for the firmware {certified}, the report is from {reported}")
    return reported


def _tcb(raw: bytes, product: str) -> SnpTcb:
    return SnpTcb(**{part: raw[at] for part, at in _LAYOUTS[product].items()})


def _check_policy(report: _Report, tcb: SnpTcb, product: str, policy: SnpPolicy) -> None:
    if report.policy & _DEBUG:
        raise AttestationError("debug", "the guest may be debugged: its host can read and change its memory")
    if report.version < policy.min_version:
        raise AttestationError("version", f"report version {report.version}, at least {policy.min_version} asked for")
    least = policy.min_tcb.get(product)
    if least is None:
        raise AttestationError("policy", f"{product} is not among the products allowed: {', '.join(policy.min_tcb)}")
    # Firmware reports no more than it has committed to, so these two are the oldest that the guest has met.
    for when, versions in (("reported", tcb), ("at launch", _tcb(report.launch_tcb, product))):
        if not versions.covers(least):
            raise AttestationError("version", f"the firmware {when} is {versions}, at least {least} asked for")
    if report.guest_svn < policy.min_guest_svn:
        raise AttestationError("version", f"guest version {report.guest_svn}, expected {policy.min_guest_svn} or above")
    if not among(report.measurement, policy.measurements):
        raise AttestationError("measurement", f"the launch measurement {report.measurement.hex()} is not pinned")
    if report.vmpl > policy.max_vmpl:
        raise AttestationError("policy", f"the report was asked for at VMPL {report.vmpl}, above {policy.max_vmpl}")
    if report.policy & _MIGRATION and not policy.allow_migration:
        raise AttestationError("policy", "the guest may be moved to another machine by a migration agent")


def _details(report: _Report, tcb: SnpTcb, product: str) -> Mapping[str, str | int | bool]:
    return MappingProxyType(
        {
            "product": product,
            "version": report.version,
            "guest_svn": report.guest_svn,
            "guest_policy": report.policy,
            "platform_info": report.platform_info,
            "vmpl": report.vmpl,
            "chip_id": report.chip_id.hex(),
            "host_data": report.host_data.hex(),
            "id_key_digest": report.id_key_digest.hex(),
            "author_key_digest": report.author_key_digest.hex(),
            "report_id": report.report_id.hex(),
            **{f"tcb_{part}": getattr(tcb, part) for part in tcb.__slots__},
        }
    )
