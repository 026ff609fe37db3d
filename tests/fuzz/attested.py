"""Decoders of evidence, keys and sealed boxes, with samples of what they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.attest import test_amd as amd
from tests.attest import test_android as android
from tests.attest import test_apple as apple
from tests.attest import test_endorsement as endorsement
from tests.attest.chains import NOW, p256, p384, rsa_key, spki
from tests.attest.samples import at
from tests.attest.tpm_forge import KEY, MEASUREMENT, NONCE, Forge, attest_bytes

from matl.attest._cbor import read_cbor, read_cbor_sequence
from matl.attest._der import SEQUENCE, SET, Der
from matl.attest._event_log import parse_log, write_log
from matl.attest._quote import read_quote
from matl.attest._tpm_structures import PublicArea, Quote
from matl.attest._x509 import Certificate, load_key, read_certificates, verify_chain
from matl.attest.endorsement import challenge_endorsement
from matl.attest.evidence import pack_evidence, unpack_evidence
from matl.attest.keys import PublicKey, SigningKey
from matl.attest.revocation import revoked_serials
from matl.attest.sealing import read_sealing_key, seal, unseal
from matl.attest.software import SoftwarePolicy, SoftwareVerifier, sign_software
from matl.attest.tpm import MAX_LOG, TpmPolicy, TpmVerifier, measured
from matl.errors import MatlError

__all__ = ["targets"]

Row = tuple[Callable[[bytes], object], tuple[bytes, ...], tuple[type[Exception], ...], str]

FORGE, SIGNER, ORACLE = Forge(), SigningKey.generate(), X25519PrivateKey.generate()
TPM = TpmPolicy(measurements=frozenset({MEASUREMENT.digest}), require_hardware=False)
SOFTWARE = SoftwarePolicy(measurements=frozenset({MEASUREMENT.digest}))


def _walk(data: bytes) -> int:
    """All that a reader of DER can be asked, at every place."""
    count, waiting = 0, [Der(data, "DER")]
    while waiting:
        reader = waiting.pop()
        while not reader.done and count < 1000:
            count += 1
            tag = reader.peek()
            reads = {
                b"\x01": reader.boolean, b"\x02": reader.integer, b"\x03": reader.bits, b"\x04": reader.octets,
                b"\x06": reader.oid, b"\x0a": reader.enumerated, b"\x17": reader.time, b"\x18": reader.time,
            }  # fmt: skip
            if tag in (SEQUENCE, SET):
                waiting.append(reader.enter(tag))
            else:
                reads.get(tag, partial(reader.take, tag))()
        if reader.done:
            reader.finish()
    return count


def _chain(data: bytes) -> object:
    chain = read_certificates(data, 6)
    return verify_chain(chain, [android.ROOT.spki], NOW, revoked=(), known=(android.DESCRIPTION,))


def _tpm(**parts: bytes) -> object:
    return TpmVerifier().verify(FORGE.evidence(**parts), NONCE, TPM, at(NOW))


def _software(data: bytes) -> object:
    return SoftwareVerifier().verify(data, NONCE, SOFTWARE, at(NOW))


def _amd_report(data: bytes) -> object:
    """A report of these bytes, signed."""
    changed = data[:0x2A0].ljust(0x2A0, b"\0")
    return amd.verify(amd.evidence_of(amd.report_of(**_fields(changed))))


def _fields(report: bytes) -> dict[str, bytes]:
    """The report as one field, the others being empty."""
    names = [
        "version", "guest_svn", "policy", "ids", "vmpl", "algorithm", "current_tcb", "platform", "key_info",
        "report_data", "measurement", "host_data", "digests", "report_ids", "reported_tcb", "cpuid", "chip_id",
        "committed_tcb", "builds", "launch_tcb", "reserved",
    ]  # fmt: skip
    return dict.fromkeys(names, b"") | {"version": report}


def _android(data: bytes) -> object:
    """A description of a key that the phone's chain vouches for."""
    return android.verify(android.evidence_of(android.leaf_of(data[:4096]), android.ISSUED, android.CARRIER))


def _apple(data: bytes) -> object:
    """Authenticator data that Apple's chain vouches for."""
    return apple.verify(apple.attestation_of(data))


def _intel() -> dict[str, Row]:
    if find_spec("dcap_qvl") is None:
        return {}
    from tests.attest import test_intel as intel

    declared = (MatlError,)

    def collateral(data: bytes) -> object:
        return intel.verify(pack_evidence(quote=intel.SGX_QUOTE, collateral=data[: 1 << 16]))

    texts = json.dumps(intel.COLLATERAL[intel.SGX]).encode()
    return {
        "intel.sgx": (intel.verify, (intel.GOOD,), declared, "msgpack"),
        "intel.tdx": (intel.verify_td, (intel.GOOD_TD,), declared, "msgpack"),
        "intel.quote": (read_quote, (intel.SGX_QUOTE, intel.TD_QUOTE), declared, "bytes"),
        "intel.collateral": (collateral, (texts,), declared, "json"),
    }


def targets() -> dict[str, Row]:
    """Decoder, samples, what it may raise, and the form of the samples, by name."""
    tpm, parts = FORGE.evidence(), msgpack.unpackb(FORGE.evidence())
    sealing = seal(ORACLE.public_key(), b"update", b"info")
    key = ORACLE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys = tuple(spki(each) for each in (p256(), p384(), rsa_key(0)))
    software = sign_software(MEASUREMENT, NONCE, KEY, SIGNER)
    identity = endorsement.identity()
    chain = android.leaf_of() + android.ISSUED + android.CARRIER
    status_list = b'{"entries": {"ff": {"status": "REVOKED"}, "10": {"status": "SUSPENDED"}}}'
    plain: dict[str, Any] = {
        "evidence": (lambda data: unpack_evidence(data, {"a": 9}, {"b": 9}), (pack_evidence(a=b"1", b=b"2"),)),
        "tpm": (lambda data: TpmVerifier().verify(data, NONCE, TPM, at(NOW)), (tpm,)),
        "tpm.attest": (lambda data: _tpm(attest=data[:9999]), (parts["attest"],)),
        "tpm.public": (lambda data: _tpm(public=data[:9999]), (FORGE.public(), Forge(rsa_key(0), 0x14).public())),
        "tpm.signature": (lambda data: _tpm(signature=data[:9999]), (parts["signature"],)),
        "tpm.log": (lambda data: _tpm(log=data), (write_log([measured(MEASUREMENT)]),)),
        "tpm.Quote": (Quote.parse, (attest_bytes(),)),
        "tpm.PublicArea": (PublicArea.parse, (FORGE.public(), Forge(rsa_key(0), 0x16).public())),
        "tpm.parse_log": (lambda data: parse_log(data, MAX_LOG), (write_log([measured(MEASUREMENT)]),)),
        "endorsement": (
            lambda data: challenge_endorsement(data, endorsement.VENDOR.roots, clock=lambda: endorsement.MIDDLE),
            (identity,),
        ),
        "software": (_software, (software,)),
        "amd": (amd.verify, (amd.GOOD,)),
        "amd.report": (_amd_report, (amd.report_of()[:0x2A0],)),
        "amd.vcek": (lambda data: amd.verify(amd.evidence_of(vcek=data[:4096])), (amd.VCEK,)),
        "android": (android.verify, (android.GOOD,)),
        "android.description": (_android, (android.description(),)),
        "android.status": (revoked_serials, (status_list,)),
        "apple": (apple.verify, (apple.GOOD,)),
        "apple.assertion": (apple.verify_assertion, (apple.ASSERTION,)),
        "apple.authenticator": (_apple, (apple.credential_of(),)),
        "x509.certificate": (Certificate.parse, (android.leaf_of(), amd.VCEK, apple.ISSUED)),
        "x509.chain": (_chain, (chain, android.ISSUED)),
        "x509.key": (load_key, keys),
        "der": (_walk, (android.description(), android.leaf_of())),
        "cbor": (read_cbor, (apple.GOOD, apple.ASSERTION)),
        "cbor.sequence": (lambda data: read_cbor_sequence(data, 4), (apple.ASSERTION * 2,)),
        "key.der": (PublicKey, (SIGNER.public.der, keys[0])),
        "key.pem": (PublicKey.from_pem, (SIGNER.public.pem,)),
        "sealed": (lambda data: unseal(ORACLE, data, b"info"), (sealing,)),
        "sealing_key": (read_sealing_key, (key,)),
    }
    forms = {"evidence": "msgpack", "tpm": "msgpack", "endorsement": "msgpack", "software": "msgpack", "amd": "msgpack"}
    forms |= {"android": "msgpack", "android.status": "json"}
    rows = {name: (decode, seeds, (MatlError,), forms.get(name, "bytes")) for name, (decode, seeds) in plain.items()}
    return rows | _intel()
