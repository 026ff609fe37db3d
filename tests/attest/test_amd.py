from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.chains import (
    NOT_AFTER,
    NOT_BEFORE,
    NOW,
    PSS_SHA384,
    Authority,
    authority,
    der,
    der_integer,
    extension,
    p256,
    p384,
    rsa_key,
    spki,
)
from tests.attest.samples import SECOND, at, refused

from matl.attest.amd import AmdVerifier, SnpPolicy, SnpTcb
from matl.attest.claims import Claims
from matl.attest.evidence import binding, pack_evidence
from matl.errors import AttestationError, InvalidValueError

NONCE, MEASUREMENT, CHIP = b"nonce of the one who asks", bytes([3] * 48), bytes(range(64))
TCB = SnpTcb(boot_loader=4, tee=1, snp=22, microcode=213)
ARK, ASK = Authority("ARK", rsa_key(0)), Authority("ASK", rsa_key(1))
VCEK_KEY = p384()
OID = "1.3.6.1.4.1.3704.1."
SMT_ALLOWED, MIGRATION, DEBUG = 1 << 16, 1 << 18, 1 << 19


def vcek_extensions(product: str = "Milan-B0", tcb: SnpTcb = TCB, hardware_id: bytes = CHIP) -> dict[str, bytes]:
    levels = {"3.1": tcb.boot_loader, "3.2": tcb.tee, "3.3": tcb.snp, "3.8": tcb.microcode, "3.9": tcb.fmc}
    return {
        "1": der_integer(1),
        "2": der(0x16, product.encode()),
        **{number: der_integer(level) for number, level in levels.items()},
        "4": hardware_id,
    }


def vcek_of(extensions: dict[str, bytes], key: bytes | None = None, signer: Authority = ASK, **options: Any) -> bytes:
    listed = [extension(OID + number, value) for number, value in extensions.items()]
    return signer.issue("VCEK", key or spki(VCEK_KEY), algorithm=PSS_SHA384, extensions=listed, **options)


ASK_CERTIFICATE = ARK.issue("ASK", ASK.spki, algorithm=PSS_SHA384, extensions=authority(0), serial=5)
VCEK = vcek_of(vcek_extensions())


def tcb_bytes(tcb: SnpTcb, product: str = "Milan") -> bytes:
    if product == "Turin":
        return bytes([tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode])
    return bytes([tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode])


def report_of(key: ec.EllipticCurvePrivateKey = VCEK_KEY, **changes: Any) -> bytes:
    """A signed report; the layout is written out anew, field by field."""
    tcb = tcb_bytes(TCB)
    fields = {
        "version": struct.pack("<I", 2),
        "guest_svn": struct.pack("<I", 6),
        "policy": struct.pack("<Q", 1 << 17 | SMT_ALLOWED),
        "ids": bytes(32),
        "vmpl": struct.pack("<I", 0),
        "algorithm": struct.pack("<I", 1),
        "current_tcb": tcb,
        "platform": struct.pack("<Q", 1),
        "key_info": bytes(8),
        "report_data": binding(NONCE),
        "measurement": MEASUREMENT,
        "host_data": bytes(32),
        "digests": bytes(96),
        "report_ids": bytes(64),
        "reported_tcb": tcb,
        "cpuid": bytes(24),
        "chip_id": CHIP,
        "committed_tcb": tcb,
        "builds": bytes(8),
        "launch_tcb": tcb,
        "reserved": bytes(168),
    } | changes
    signed = b"".join(fields.values())
    assert len(signed) == 0x2A0
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    return signed + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)


def evidence_of(report: bytes | None = None, vcek: bytes = VCEK, ask: bytes = ASK_CERTIFICATE, **key: bytes) -> bytes:
    return pack_evidence(report=report or report_of(), vcek=vcek, ask=ask, **key)


GOOD = evidence_of()
VERIFIER = AmdVerifier(roots={"Milan": ARK.spki, "Turin": ARK.spki})


def policy_of(**changes: Any) -> SnpPolicy:
    options = {
        "measurements": frozenset({MEASUREMENT.hex()}),
        "min_tcb": {"Milan": TCB, "Turin": TCB},
        "revoked": frozenset(),
    }
    return SnpPolicy(**(options | changes))


def verify(evidence: bytes = GOOD, nonce: bytes = NONCE, moment: Any = NOW, **changes: Any) -> Claims:
    return VERIFIER.verify(evidence, nonce, policy_of(**changes), at(moment))


def test_a_report_proves_what_runs() -> None:
    claims = verify()
    assert (claims.format, claims.measurement, claims.key) == ("amd-sev-snp", MEASUREMENT.hex(), None)
    assert claims.report_data == NONCE.ljust(64, b"\0")
    assert not claims.hardware_root  # the root is not AMD's
    expected = {"product": "Milan", "version": 2, "guest_svn": 6, "vmpl": 0, "chip_id": CHIP.hex(), "tcb_snp": 22}
    assert claims.details.items() >= expected.items()


def test_a_key_is_vouched_for() -> None:
    key = spki(p256())
    bound = report_of(report_data=binding(NONCE, key))
    assert verify(evidence_of(bound, key=key)).key == key
    with refused("nonce"):
        verify(evidence_of(bound, key=spki(p256())))
    with refused("nonce"):
        verify(evidence_of(bound))
    with refused("nonce"):
        verify(evidence_of(report_of(), key=key))


def test_a_turin_report_has_its_own_layout() -> None:
    tcb = SnpTcb(boot_loader=4, tee=1, snp=22, microcode=213, fmc=2)
    vcek = vcek_of(vcek_extensions("Turin", tcb, der(4, CHIP[:8])))
    raw = tcb_bytes(tcb, "Turin")
    chip = {"chip_id": CHIP[:8] + bytes(56), "version": struct.pack("<I", 5)}
    report = report_of(reported_tcb=raw, launch_tcb=raw, **chip)
    claims = verify(evidence_of(report, vcek), min_tcb={"Turin": tcb})
    assert claims.details["tcb_fmc"] == 2
    with refused("version", "at launch"):
        verify(
            evidence_of(report_of(reported_tcb=raw, launch_tcb=tcb_bytes(TCB, "Turin"), **chip), vcek),
            min_tcb={"Turin": tcb},
        )


def test_both_encodings_of_the_hardware_id_are_read() -> None:
    wrapped = vcek_of(vcek_extensions(hardware_id=der(4, CHIP)))
    assert verify(evidence_of(vcek=wrapped)).details["chip_id"] == CHIP.hex()


def test_another_nonce_is_refused() -> None:
    for nonce in (b"another", NONCE[:-1], NONCE + b"x"):
        with refused("nonce"):
            verify(nonce=nonce)


@pytest.mark.parametrize("bit", [*range(0, 0x2A0 * 8, 173), 19 + 64])
def test_every_signed_bit_counts(bit: int) -> None:
    report = bytearray(report_of())
    report[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AttestationError) as caught:
        verify(evidence_of(bytes(report)))
    assert caught.value.code in {"signature", "version", "format"}


@pytest.mark.parametrize("at_byte", [0x2A0, 0x2D0, 0x2E8, 0x318, 0x330, 0x49F])
def test_every_byte_of_the_signature_field_counts(at_byte: int) -> None:
    report = bytearray(report_of())
    report[at_byte] ^= 1
    with pytest.raises(AttestationError) as caught:
        verify(evidence_of(bytes(report)))
    assert caught.value.code in {"signature", "format"}


def test_signatures_are_little_endian_and_the_vcek_s() -> None:
    report = report_of()
    swapped = report[:0x2A0] + report[0x2A0:0x2D0][::-1] + bytes(24) + report[0x2E8:0x318][::-1] + bytes(24 + 368)
    with refused("signature"):
        verify(evidence_of(swapped))
    with refused("signature"):
        verify(evidence_of(report[:0x2A0] + bytes(512)))
    with refused("signature"):
        verify(evidence_of(report_of(key=p384())))


def test_only_pinned_roots_count() -> None:
    with refused("root"):
        AmdVerifier().verify(GOOD, NONCE, policy_of(), at(NOW))
    other = Authority("ARK", rsa_key(2))
    ask = other.issue("ASK", ASK.spki, algorithm=PSS_SHA384, extensions=authority(0))
    with refused("root"):
        verify(evidence_of(ask=ask))
    with refused("root", "no root key is known for the product 'Rome'"):
        verify(evidence_of(vcek=vcek_of(vcek_extensions("Rome-B0"))))
    with refused("root"):
        AmdVerifier({"Milan": other.spki, "Turin": ARK.spki}).verify(GOOD, NONCE, policy_of(), at(NOW))


def test_the_chain_is_that_of_the_vcek() -> None:
    other = Authority("ASK", rsa_key(2))
    with refused("signature"):
        verify(evidence_of(ask=ARK.issue("ASK", other.spki, algorithm=PSS_SHA384, extensions=authority(0))))
    with refused("signature", "was issued by"):
        verify(evidence_of(ask=ARK.issue("ASK", ASK.spki, algorithm=PSS_SHA384)))
    with refused("revoked"):
        verify(revoked=frozenset({5}))


@pytest.mark.parametrize("moment", [NOT_BEFORE - SECOND, NOT_AFTER + SECOND])
def test_the_chain_is_valid_now(moment: Any) -> None:
    verify(moment=NOT_BEFORE)
    verify(moment=NOT_AFTER)
    with refused("expired"):
        verify(moment=moment)


def test_a_key_on_another_curve_is_refused() -> None:
    for key in (spki(p256()), ARK.spki):
        with refused("format", "P-384"):
            verify(evidence_of(vcek=vcek_of(vcek_extensions(), key)))
    with refused("format"):
        verify(evidence_of(vcek=vcek_of(vcek_extensions(), spki(ec.generate_private_key(ec.SECP256K1())))))


def test_the_vcek_is_that_of_the_chip() -> None:
    for hardware_id in (bytes(64), CHIP[:8], b"", der(4, bytes(64)), CHIP + b"\0"):
        with refused("signature", "another chip"):
            verify(evidence_of(vcek=vcek_of(vcek_extensions(hardware_id=hardware_id))))


@pytest.mark.parametrize("part", ["boot_loader", "tee", "snp", "microcode"])
def test_the_vcek_is_that_of_the_firmware(part: str) -> None:
    levels = {name: getattr(TCB, name) for name in ("boot_loader", "tee", "snp", "microcode")}
    other = SnpTcb(**(levels | {part: levels[part] + 1}))
    with refused("version", "the VCEK is for"):
        verify(evidence_of(vcek=vcek_of(vcek_extensions(tcb=other))))


@pytest.mark.parametrize("missing", ["2", "3.1", "3.8"])
def test_the_vcek_says_what_it_is_for(missing: str) -> None:
    extensions = {number: value for number, value in vcek_extensions().items() if number != missing}
    with refused("format"):
        verify(evidence_of(vcek=vcek_of(extensions)))


def packed(layout: str, value: int) -> bytes:
    return struct.pack(layout, value)


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({"policy": packed("<Q", 1 << 17 | DEBUG)}, {}, "debug"),
        ({"policy": packed("<Q", 1 << 17 | MIGRATION)}, {}, "policy"),
        ({"vmpl": packed("<I", 1)}, {}, "policy"),
        ({"vmpl": packed("<I", 0xFFFFFFFF)}, {"max_vmpl": 3}, "policy"),
        ({}, {"measurements": frozenset({"00" * 48})}, "measurement"),
        ({}, {"min_guest_svn": 7}, "version"),
        ({}, {"min_version": 3}, "version"),
        ({}, {"min_tcb": {"Turin": TCB}}, "policy"),
        ({"version": packed("<I", 1)}, {}, "version"),
        ({"version": packed("<I", 6)}, {}, "version"),
        ({"algorithm": packed("<I", 2)}, {}, "format"),
        ({"key_info": packed("<Q", 1 << 2)}, {}, "format"),
        ({"launch_tcb": tcb_bytes(SnpTcb(boot_loader=4, tee=1, snp=21, microcode=213))}, {}, "version"),
    ],
)
def test_less_than_the_policy_asks_for_is_refused(changes: Any, options: Any, code: str) -> None:
    with refused(code):
        verify(evidence_of(report_of(**changes)), **options)


@pytest.mark.parametrize("part", ["boot_loader", "tee", "snp", "microcode"])
def test_old_firmware_is_refused(part: str) -> None:
    levels = {name: getattr(TCB, name) for name in ("boot_loader", "tee", "snp", "microcode")}
    newer = SnpTcb(**(levels | {part: levels[part] + 1}))
    with refused("version", "the firmware reported"):
        verify(min_tcb={"Milan": newer})


def test_a_policy_can_ask_for_less() -> None:
    verify(evidence_of(report_of(policy=packed("<Q", 1 << 17 | MIGRATION))), allow_migration=True)
    verify(evidence_of(report_of(vmpl=packed("<I", 2))), max_vmpl=2)
    verify(evidence_of(report_of(version=packed("<I", 5))), min_version=5)
    verify(measurements=frozenset({"00" * 48, MEASUREMENT.hex()}))


@pytest.mark.parametrize(
    "changes",
    [
        {"measurements": frozenset()},
        {"measurements": frozenset({"00" * 32})},
        {"min_tcb": {}},
        {"min_tcb": {"Rome": TCB}},
        {"max_vmpl": -1},
        {"min_version": 1},
    ],
)
def test_a_policy_pins_something(changes: Any) -> None:
    with pytest.raises(InvalidValueError):
        policy_of(**changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[:-1],
        lambda e: e + b"\0",
        lambda _: evidence_of(report_of()[:-1]),
        lambda _: evidence_of(bytes(1184)),
        lambda _: evidence_of(vcek=b""),
        lambda _: evidence_of(vcek=VCEK + VCEK),
        lambda _: evidence_of(ask=VCEK[:700]),
        lambda _: b"",
        lambda _: bytes(1 << 20),
        lambda _: pack_evidence(report=bytes(1 << 20), vcek=b"", ask=b""),
        lambda _: b"\x81\xa6report" * 5000,
    ],
)
def test_malformed_evidence_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(AttestationError) as caught:
        verify(change(GOOD))
    assert caught.value.code in {"format", "version"}


@settings(max_examples=80)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(index: int, change: int) -> None:
    data = bytearray(GOOD)
    data[index] ^= change
    with pytest.raises(AttestationError):
        verify(bytes(data))


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused_in_one_way(data: bytes, inside: bool) -> None:
    with pytest.raises(AttestationError):
        verify(pack_evidence(report=report_of(), vcek=data, ask=data) if inside else data)
