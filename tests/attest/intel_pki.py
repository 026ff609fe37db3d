"""A platform of one's own: root, certificates, revocation lists, collateral and quotes as Intel would issue them."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from tests.attest.chains import der, der_integer, der_oid

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISSUED, NEXT_UPDATE = NOW - timedelta(days=1), NOW + timedelta(days=29)
FMSPC, PCE_ID, CPU_SVN, PCE_SVN = bytes.fromhex("00906ed50000"), b"\0\0", bytes([5] * 16), 13
MRSIGNER_QE = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
SGX, TDX = 0, 0x81
BODY_SIZES = {"sgx": 384, "td10": 584, "td15": 648}


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common), x509.NameAttribute(NameOID.COUNTRY_NAME, "US")])


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def sgx_extension(sgx_type: int = 0) -> bytes:
    """The Intel SGX extension of a PCK certificate (Intel, *SGX PCK Certificate and CRL Specification*, 1.3.5)."""
    base = "1.2.840.113741.1.13.1"

    def entry(suffix: str, value: bytes) -> bytes:
        return der(0x30, der_oid(base + suffix) + value)

    tcb = b"".join(entry(f".2.{i + 1}", der_integer(svn)) for i, svn in enumerate(CPU_SVN))
    tcb += entry(".2.17", der_integer(PCE_SVN)) + entry(".2.18", der(4, CPU_SVN))
    fields = entry(".1", der(4, bytes(16))) + entry(".2", der(0x30, tcb)) + entry(".3", der(4, PCE_ID))
    return der(0x30, fields + entry(".4", der(4, FMSPC)) + entry(".5", der(0x0A, bytes([sgx_type]))))


@dataclass
class Platform:
    """Certificates and keys of one machine and its maker."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.ca_key, self.pck_key, self.tcb_key, self.attestation_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(4)
        )
        self.root = self.certificate("Own SGX Root CA", "Own SGX Root CA", self.key, self.key, authority=True)
        self.ca = self.certificate(
            "Intel SGX PCK Platform CA", "Own SGX Root CA", self.ca_key, self.key, authority=True
        )
        self.pck = self.certificate("Own PCK", "Intel SGX PCK Platform CA", self.pck_key, self.ca_key, sgx=True)
        self.tcb = self.certificate("Intel SGX TCB Signing", "Own SGX Root CA", self.tcb_key, self.key)

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(Encoding.DER)

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        sgx: bool = False,
    ) -> x509.Certificate:
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False
        ) | {"encipher_only": False, "decipher_only": False}
        usage |= {"key_cert_sign": authority, "crl_sign": authority, "digital_signature": not authority}
        point = x509.DistributionPoint([x509.UniformResourceIdentifier("https://example.org/crl")], None, None, None)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=365))
            .not_valid_after(NOW + timedelta(days=365))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(x509.CRLDistributionPoints([point]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if sgx:
            oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, sgx_extension()), critical=False)
        return builder.sign(signer, hashes.SHA256())

    def _crl(self, issuer: str, signer: ec.EllipticCurvePrivateKey, revoked: list[int]) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(ISSUED)
            .next_update(NEXT_UPDATE)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(ISSUED)
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)

    def tcb_info(self, tee: int, levels: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
        info: dict[str, Any] = {
            "id": "TDX" if tee else "SGX",
            "version": 3,
            "issueDate": ISSUED.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nextUpdate": NEXT_UPDATE.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fmspc": FMSPC.hex().upper(),
            "pceId": PCE_ID.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
        }
        if tee:
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            identity = {"id": "TDX_01", **module, "tcbLevels": [_level({"isvsvn": 2}, "UpToDate")]}
            info |= {"tdxModule": module, "tdxModuleIdentities": [identity]}
        info["tcbLevels"] = levels or [tcb_level(tee)]
        return info | changes

    def collateral(
        self,
        tee: int = SGX,
        *,
        tcb_info: dict[str, Any] | None = None,
        qe_status: str = "UpToDate",
        revoked_pck: bool = False,
        revoked_ca: bool = False,
        **qe_changes: Any,
    ) -> dict[str, str]:
        identity = {
            "id": "TD_QE" if tee else "QE",
            "version": 2,
            "issueDate": ISSUED.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nextUpdate": NEXT_UPDATE.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": MRSIGNER_QE.hex().upper(),
            "isvprodid": 1,
            "tcbLevels": [_level({"isvsvn": 8}, qe_status)],
        } | qe_changes
        info_text = json.dumps(tcb_info or self.tcb_info(tee), separators=(",", ":"))
        identity_text = json.dumps(identity, separators=(",", ":"))
        pem = [certificate.public_bytes(Encoding.PEM).decode() for certificate in (self.ca, self.tcb, self.root)]
        return {
            "pck_crl_issuer_chain": pem[0] + pem[2],
            "root_ca_crl": self._crl("Own SGX Root CA", self.key, [self.ca.serial_number] if revoked_ca else []).hex(),
            "pck_crl": self._crl(
                "Intel SGX PCK Platform CA", self.ca_key, [self.pck.serial_number] if revoked_pck else []
            ).hex(),
            "tcb_info_issuer_chain": pem[1] + pem[2],
            "tcb_info": info_text,
            "tcb_info_signature": raw_signature(self.tcb_key, info_text.encode()).hex(),
            "qe_identity_issuer_chain": pem[1] + pem[2],
            "qe_identity": identity_text,
            "qe_identity_signature": raw_signature(self.tcb_key, identity_text.encode()).hex(),
        }

    def quote(self, body: bytes, kind: str, version: int, *, key_type: int = 2, qe_debug: bool = False) -> bytes:
        """A signed quote around a report body."""
        tee = SGX if kind == "sgx" else TDX
        header = struct.pack("<HHIHH16s20s", version, key_type, tee, 0, 0, VENDOR, bytes(20))
        if version == 5:
            header += struct.pack("<HI", {"sgx": 1, "td10": 2, "td15": 3}[kind], len(body))
        qe_auth = bytes(range(32))
        bound = hashlib.sha256(raw_point(self.attestation_key) + qe_auth).digest()
        qe_report = sgx_body(
            mrenclave=bytes(32),
            mrsigner=MRSIGNER_QE,
            report_data=bound + bytes(32),
            attributes=bytes([0x13 if qe_debug else 0x11]) + bytes(15),
            prod_id=1,
            svn=8,
        )
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (self.pck, self.ca, self.root))
        certified = qe_report + raw_signature(self.pck_key, qe_report) + struct.pack("<H", len(qe_auth)) + qe_auth
        certified += struct.pack("<HI", 5, len(chain)) + chain
        if version > 3:
            certified = struct.pack("<HI", 6, len(certified)) + certified
        signed = header + body
        auth = raw_signature(self.attestation_key, signed) + raw_point(self.attestation_key) + certified
        return signed + struct.pack("<I", len(auth)) + auth


def _level(tcb: dict[str, Any], status: str) -> dict[str, Any]:
    return {"tcb": tcb, "tcbDate": "2025-11-12T00:00:00Z", "tcbStatus": status}


def tcb_level(
    tee: int,
    status: str = "UpToDate",
    sgx: bytes = CPU_SVN,
    tdx: bytes = bytes([2, 1] + [0] * 14),
    pce_svn: int = PCE_SVN,
    advisories: tuple[str, ...] = (),
) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in sgx], "pcesvn": pce_svn}
    if tee:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in tdx]
    return _level(tcb, status) | ({"advisoryIDs": list(advisories)} if advisories else {})


def sgx_body(
    *,
    mrenclave: bytes,
    mrsigner: bytes,
    report_data: bytes,
    attributes: bytes = bytes([0x05]) + bytes(15),
    prod_id: int = 0,
    svn: int = 0,
) -> bytes:
    return struct.pack(
        "<16sI28x16s32s32x32s96xHH60x64s", CPU_SVN, 0, attributes, mrenclave, mrsigner, prod_id, svn, report_data
    )


def td_body(
    *,
    mrtd: bytes,
    report_data: bytes,
    rtmrs: bytes = bytes(192),
    attributes: bytes = bytes([0, 0, 0, 0x10, 0, 0, 0, 0]),
    tee_tcb_svn: bytes = bytes([2, 1] + [0] * 14),
    seam_signer: bytes = bytes(48),
    seam_attributes: bytes = bytes(8),
    service: bytes | None = None,
) -> bytes:
    """TDREPORT body of TDX 1.0, or of 1.5 if a service TD is named."""
    body = struct.pack(
        "<16s48s48s8s8s8s48s144x192s64s",
        tee_tcb_svn,
        bytes([7] * 48),
        seam_signer,
        seam_attributes,
        attributes,
        bytes.fromhex("e702060000000000"),
        mrtd,
        rtmrs,
        report_data,
    )
    return body if service is None else body + tee_tcb_svn + service
