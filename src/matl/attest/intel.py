"""Intel SGX and TDX quotes (DCAP), verified with ``dcap-qvl`` and by checks of our own that it leaves to its caller.

Evidence is `matl.attest.evidence.pack_evidence` of ``quote`` (as the quoting library wrote it), ``collateral`` (the
JSON of ``dcap_qvl.get_collateral``: TCB info, quoting enclave identity, revocation lists and their issuers) and, if a
key is to be vouched for, ``key``. Collateral is signed by Intel, so the attester may bring it; it is valid for about 30
days.

``dcap-qvl`` checks the certificates up to the root, both revocation lists, every signature, the quoting enclave and the
TCB level. It accepts collateral that *any* certificate below Intel's root has signed, a TCB info made for another
provisioning enclave, and bytes behind the quote; here none of them passes.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, TypeAlias

from matl.attest import _roots
from matl.attest._quote import RTMRS, Domain, Enclave, read_quote
from matl.attest._x509 import Certificate
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.evidence import MAX_KEY, among, binding, check_digests, unpack_evidence
from matl.errors import AttestationError, InvalidValueError, MissingExtraError
from matl.validate import whole

__all__ = ["IntelPolicy", "IntelVerifier", "SgxPolicy", "TdxPolicy"]

_FIELDS = {"quote": 16_384, "collateral": 262_144}
_TCB_SIGNER = b"Intel SGX TCB Signing"
# So narrow that dcap-qvl cannot take another certificate for the first one than is looked at here.
_PEM = re.compile(r"(-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*){1,4}", re.ASCII)
_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)

# What dcap-qvl's messages mean, the first that fits; anything else is a signature or a chain that does not hold.
_REASONS = (
    ("invalidcrlsignature", "root"),
    ("unknownissuer", "root"),
    ("failed to decode", "format"),
    ("failed to parse", "format"),
    ("unsupported", "format"),
    ("debug mode", "debug"),
    ("revoked", "revoked"),
    ("expired", "expired"),
    ("in the future", "expired"),
    ("notvalidyet", "expired"),
    ("no matching tcb level", "version"),
    ("below minimum", "version"),
    ("hash mismatch", "signature"),
    ("mismatch", "policy"),
    ("attributes", "policy"),
    ("migration", "policy"),
    ("sept_ve_disable", "policy"),
    ("service td", "policy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxPolicy:
    """What an SGX enclave has to prove. One in debug mode is never accepted.

    Parameters
    ----------
    mrenclaves : frozenset of str
        Measurements (32 bytes, hex) that may run: exactly this code. Empty only if ``mrsigners`` is given.
    mrsigners : frozenset of str
        Digests (32 bytes, hex) of the keys that may have signed the enclave; then ``isv_prod_id`` says which product.
    isv_prod_id : int, optional
        The signer's number for the product.
    min_isv_svn : int
        The oldest security version of the enclave.
    statuses : frozenset of str
        TCB states allowed. ``"Revoked"`` never is.
    min_tcb_evaluation : int
        The oldest ``tcbEvaluationDataNumber`` of the collateral. Collateral stays valid for a while after Intel has
        published newer, and an attester may choose; this sets the floor.

    Raises
    ------
    InvalidValueError
        Nothing is pinned, or a value is out of range.
    """

    mrenclaves: frozenset[str] = frozenset()
    mrsigners: frozenset[str] = frozenset()
    isv_prod_id: int | None = None
    min_isv_svn: int = 0
    statuses: frozenset[str] = frozenset({"UpToDate"})
    min_tcb_evaluation: int = 0

    def __post_init__(self) -> None:
        _check_tcb_policy(self.statuses, self.min_tcb_evaluation)
        whole(0, min_isv_svn=self.min_isv_svn)
        if self.mrenclaves or not self.mrsigners:
            check_digests(32, mrenclaves=self.mrenclaves)
        if self.mrsigners:
            check_digests(32, mrsigners=self.mrsigners)
            if self.isv_prod_id is None:
                raise InvalidValueError("expected isv_prod_id with mrsigners: one key signs several products")


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxPolicy:
    """What a TDX domain has to prove. One in debug mode is never accepted.

    Parameters
    ----------
    mrtds : frozenset of str
        Measurements (48 bytes, hex) of what the domain started from, usually its firmware.
    rtmrs : mapping of int to frozenset of str
        For each runtime register (0 to 3) that matters, the values (48 bytes, hex) it may have. Kernel, command line
        and application are measured there and not in MRTD; an empty mapping trusts any of them.
    statuses, min_tcb_evaluation
        As in `SgxPolicy`.

    Raises
    ------
    InvalidValueError
        Nothing is pinned, or a value is out of range.
    """

    mrtds: frozenset[str]
    rtmrs: Mapping[int, frozenset[str]]
    statuses: frozenset[str] = frozenset({"UpToDate"})
    min_tcb_evaluation: int = 0

    def __post_init__(self) -> None:
        _check_tcb_policy(self.statuses, self.min_tcb_evaluation)
        check_digests(48, mrtds=self.mrtds)
        for register, values in self.rtmrs.items():
            if register not in range(RTMRS):
                raise InvalidValueError(f"expected rtmrs of registers 0 to {RTMRS - 1}, got {register!r}")
            check_digests(48, **{f"rtmrs[{register}]": values})


IntelPolicy: TypeAlias = SgxPolicy | TdxPolicy


class IntelVerifier:
    """Checks SGX quotes of version 3, and TDX quotes of versions 4 and 5.

    Parameters
    ----------
    root : bytes, optional
        Root certificate (DER) instead of Intel's; then `Claims.hardware_root` is false.
    """

    format: ClassVar[str] = "intel-dcap"

    def __init__(self, root: bytes | None = None) -> None:
        self._root = _roots.INTEL_CERTIFICATE if root is None else root
        self._pinned = root is None

    def verify(self, evidence: bytes, nonce: bytes, policy: IntelPolicy, clock: Clock = system_clock) -> Claims:
        """What a quote proves about an enclave or a domain that was asked with ``nonce`` (1 to 64 bytes).

        Its report data has to be `matl.attest.evidence.binding` of the nonce and the evidence's key.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        MissingExtraError
            ``dcap-qvl`` is not installed.
        """
        parts = unpack_evidence(evidence, _FIELDS, {"key": MAX_KEY})
        key = parts.get("key", b"")
        expected = binding(nonce, key)
        report = read_quote(parts["quote"])
        if report.debug:
            raise AttestationError("debug", "it runs in debug mode: its host can read and change its memory")

        tcb = _verify_quote(parts["quote"], parts["collateral"], self._root, int(clock().timestamp()))
        if not hmac.compare_digest(report.report_data, expected):
            raise AttestationError("nonce", "the quote answers another nonce, or vouches for another key")
        match report, policy:
            case Enclave(), SgxPolicy():
                _check_enclave(report, policy)
                measurement = report.mrenclave
            case Domain(), TdxPolicy():
                _check_domain(report, policy)
                measurement = report.mrtd
            case _:
                raise AttestationError("policy", f"{type(policy).__name__} is not for this kind of quote")
        _check_tcb(tcb, policy)
        return Claims(
            format=self.format,
            hardware_root=self._pinned,
            measurement=measurement.hex(),
            key=key or None,
            report_data=report.report_data,
            details=MappingProxyType(
                {
                    **report.details(),
                    "tcb_status": tcb.status,
                    "tcb_evaluation": tcb.evaluation,
                    "advisories": ", ".join(tcb.advisories),
                    "fmspc": tcb.fmspc,
                }
            ),
        )


@dataclass(frozen=True, slots=True)
class _Tcb:
    status: str
    advisories: tuple[str, ...]
    evaluation: int
    fmspc: str


def _verify_quote(quote: bytes, collateral: bytes, root: bytes, now: int) -> _Tcb:
    """What Intel says about the platform, after every signature was checked."""
    qvl = _dcap_qvl()
    try:
        parsed = qvl.QuoteCollateralV3.from_json(collateral.decode("utf-8"))
    except ValueError as error:
        raise AttestationError("format", f"collateral cannot be read: {error}") from error
    for chain in (parsed.tcb_info_issuer_chain, parsed.qe_identity_issuer_chain):
        _check_signer(chain, root)
    try:
        verified = qvl.verify_with_root_ca(quote, parsed, root, max(now, 0))
    except ValueError as error:
        raise AttestationError(_reason(str(error)), f"dcap-qvl: {error}") from error
    info: dict[str, Any] = json.loads(parsed.tcb_info)  # believed from here on: Intel signed this text
    identity: dict[str, Any] = json.loads(parsed.qe_identity)
    platform = qvl.parse_quote(quote).pck_extension()
    if info["pceId"].lower() != platform.pce_id.hex():
        raise AttestationError("policy", f"TCB info for the provisioning enclave {info['pceId']}, not the quote's")
    evaluation = min(info["tcbEvaluationDataNumber"], identity["tcbEvaluationDataNumber"])
    return _Tcb(verified.status, tuple(verified.advisory_ids), evaluation, platform.fmspc.hex())


def _reason(message: str) -> str:
    lowered = message.lower()
    return next((code for words, code in _REASONS if words in lowered), "signature")


def _check_signer(chain: str, root: bytes) -> None:
    """TCB info and identities are signed by the one certificate that is for it, directly below the root."""
    if not _PEM.fullmatch(chain):
        raise AttestationError("format", "the signer of the collateral is not in certificates in PEM, and nothing else")
    text = chain.split("-----")[2]
    try:
        signer = Certificate.parse(b64decode("".join(text.split()), validate=True), "collateral signer")
    except ValueError as error:
        raise AttestationError("format", f"the signer of the collateral cannot be read: {error}") from error
    try:
        signer.check_signed_by(Certificate.parse(root, "root").key())
    except AttestationError as error:
        raise AttestationError("root", "the signer of the collateral is not directly below the pinned root") from error
    if _TCB_SIGNER not in signer.subject:
        raise AttestationError("signature", "the collateral is signed by a certificate that is not for collateral")


def _check_domain(report: Domain, policy: TdxPolicy) -> None:
    if not among(report.mrtd, policy.mrtds):
        raise AttestationError("measurement", f"MRTD {report.mrtd.hex()} is not pinned")
    for register, values in policy.rtmrs.items():
        if not among(report.rtmrs[register], values):
            raise AttestationError("measurement", f"RTMR{register} {report.rtmrs[register].hex()} is not pinned")


def _check_enclave(report: Enclave, policy: SgxPolicy) -> None:
    if policy.mrenclaves and not among(report.mrenclave, policy.mrenclaves):
        raise AttestationError("measurement", f"MRENCLAVE {report.mrenclave.hex()} is not pinned")
    if policy.mrsigners and not among(report.mrsigner, policy.mrsigners):
        raise AttestationError("measurement", f"MRSIGNER {report.mrsigner.hex()} is not pinned")
    if policy.isv_prod_id not in (None, report.isv_prod_id):
        raise AttestationError("measurement", f"product {report.isv_prod_id}, {policy.isv_prod_id} asked for")
    if report.isv_svn < policy.min_isv_svn:
        raise AttestationError("version", f"enclave version {report.isv_svn}, expected {policy.min_isv_svn} or above")


def _check_tcb(tcb: _Tcb, policy: IntelPolicy) -> None:
    if tcb.status not in policy.statuses:
        code = "version" if tcb.status.startswith("OutOfDate") else "policy"
        advisories = ", ".join(tcb.advisories) or "no advisories"
        raise AttestationError(
            code, f"TCB status {tcb.status} ({advisories}); allowed: {', '.join(sorted(policy.statuses))}"
        )
    if tcb.evaluation < policy.min_tcb_evaluation:
        raise AttestationError(
            "version", f"collateral of evaluation {tcb.evaluation}, expected {policy.min_tcb_evaluation} or above"
        )


def _check_tcb_policy(statuses: frozenset[str], min_tcb_evaluation: int) -> None:
    whole(0, min_tcb_evaluation=min_tcb_evaluation)
    if not statuses or not statuses <= set(_STATUSES):
        raise InvalidValueError(
            f"expected statuses among {', '.join(_STATUSES)}, got {', '.join(sorted(statuses)) or 'none'}"
        )


def _dcap_qvl() -> ModuleType:
    try:
        return import_module("dcap_qvl")
    except ImportError as error:
        raise MissingExtraError("dcap-qvl", extra="attest") from error
