from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest import intel_pki
from tests.attest.chains import p256, spki
from tests.attest.intel_pki import (
    ISSUED,
    NEXT_UPDATE,
    NOW,
    SGX,
    TDX,
    Platform,
    sgx_body,
    tcb_level,
    td_body,
)
from tests.attest.samples import SECOND, at, refused, refused_if_at_all

from matl.attest.claims import Claims
from matl.attest.evidence import binding, pack_evidence
from matl.attest.intel import IntelPolicy, IntelVerifier, SgxPolicy, TdxPolicy, _reason
from matl.errors import AttestationError, InvalidValueError, MissingExtraError

pytest.importorskip("dcap_qvl", reason="needs dcap-qvl of the extra 'attest'")

NONCE = b"nonce of the one who asks"
MRENCLAVE, MRSIGNER, MRTD, RTMR = bytes([1] * 32), bytes([2] * 32), bytes([3] * 48), bytes([4] * 48)
PLATFORM = Platform()
COLLATERAL = {tee: PLATFORM.collateral(tee) for tee in (SGX, TDX)}


def sgx_quote(**changes: Any) -> bytes:
    body = {"mrenclave": MRENCLAVE, "mrsigner": MRSIGNER, "report_data": binding(NONCE), "prod_id": 5, "svn": 6}
    return PLATFORM.quote(sgx_body(**(body | changes)), "sgx", 3)


def td_quote(version: int = 4, kind: str = "td10", **changes: Any) -> bytes:
    body = {"mrtd": MRTD, "report_data": binding(NONCE), "rtmrs": bytes(144) + RTMR}
    return PLATFORM.quote(td_body(**(body | changes)), kind, version)


def evidence_of(quote: bytes, collateral: dict[str, str], **key: bytes) -> bytes:
    return pack_evidence(quote=quote, collateral=json.dumps(collateral).encode(), **key)


SGX_QUOTE, TD_QUOTE = sgx_quote(), td_quote()
GOOD = evidence_of(SGX_QUOTE, COLLATERAL[SGX])
GOOD_TD = evidence_of(TD_QUOTE, COLLATERAL[TDX])
VERIFIER = IntelVerifier(root=PLATFORM.root_der)


def sgx_policy(**changes: Any) -> SgxPolicy:
    return SgxPolicy(**({"mrenclaves": frozenset({MRENCLAVE.hex()})} | changes))


def tdx_policy(**changes: Any) -> TdxPolicy:
    return TdxPolicy(**({"mrtds": frozenset({MRTD.hex()}), "rtmrs": {3: frozenset({RTMR.hex()})}} | changes))


def verify(
    evidence: bytes = GOOD, nonce: bytes = NONCE, policy: IntelPolicy | None = None, moment: datetime = NOW
) -> Claims:
    return VERIFIER.verify(evidence, nonce, policy or sgx_policy(), at(moment))


def verify_td(evidence: bytes = GOOD_TD, **changes: Any) -> Claims:
    return verify(evidence, policy=tdx_policy(**changes))


def test_an_sgx_quote_proves_what_runs() -> None:
    claims = verify()
    assert (claims.format, claims.measurement, claims.key) == ("intel-dcap", MRENCLAVE.hex(), None)
    assert claims.report_data == NONCE.ljust(64, b"\0")
    assert not claims.hardware_root  # the root is not Intel's
    assert claims.details == {
        "tee": "sgx",
        "quote_version": 3,
        "mrsigner": MRSIGNER.hex(),
        "isv_prod_id": 5,
        "isv_svn": 6,
        "tcb_status": "UpToDate",
        "tcb_evaluation": 17,
        "advisories": "",
        "fmspc": "00906ed50000",
    }


@pytest.mark.parametrize(
    ("version", "kind", "more"), [(4, "td10", {}), (5, "td10", {}), (5, "td15", {"service": bytes(48)})]
)
def test_a_tdx_quote_proves_what_runs(version: int, kind: str, more: Any) -> None:
    claims = verify_td(evidence_of(td_quote(version, kind, **more), COLLATERAL[TDX]))
    assert claims.measurement == MRTD.hex()
    expected = {"tee": "tdx", "quote_version": version, "rtmr3": RTMR.hex(), "rtmr0": "00" * 48}
    assert claims.details.items() >= expected.items()


def test_a_key_is_vouched_for() -> None:
    key = spki(p256())
    quote = sgx_quote(report_data=binding(NONCE, key))
    assert verify(evidence_of(quote, COLLATERAL[SGX], key=key)).key == key
    for evidence in (
        evidence_of(quote, COLLATERAL[SGX], key=spki(p256())),
        evidence_of(quote, COLLATERAL[SGX]),
        evidence_of(SGX_QUOTE, COLLATERAL[SGX], key=key),
    ):
        with refused("nonce"):
            verify(evidence)


def test_another_nonce_is_refused() -> None:
    for nonce in (b"another", NONCE[:-1], NONCE + b"x"):
        with refused("nonce"):
            verify(nonce=nonce)


def test_only_the_pinned_root_counts() -> None:
    with refused("root"):
        IntelVerifier().verify(GOOD, NONCE, sgx_policy(), at(NOW))
    other = Platform()
    with refused("root"):
        verify(evidence_of(SGX_QUOTE, other.collateral()))
    foreign = other.quote(sgx_body(mrenclave=MRENCLAVE, mrsigner=MRSIGNER, report_data=binding(NONCE)), "sgx", 3)
    with refused("signature"):
        verify(evidence_of(foreign, COLLATERAL[SGX]))


def test_collateral_is_signed_by_the_one_certificate_that_is_for_it() -> None:
    """dcap-qvl takes any certificate below the root, even that of the platform itself."""
    forger = Platform(PLATFORM.key)
    forger.root, forger.ca, forger.ca_key = PLATFORM.root, PLATFORM.ca, PLATFORM.ca_key
    forger.tcb_key = PLATFORM.pck_key
    chain = "".join(c.public_bytes(Encoding.PEM).decode() for c in (PLATFORM.pck, PLATFORM.ca, PLATFORM.root))
    forged = forger.collateral() | {"tcb_info_issuer_chain": chain, "qe_identity_issuer_chain": chain}
    with refused("root", "not directly below the pinned root"):
        verify(evidence_of(SGX_QUOTE, forged))
    forger.tcb = forger.certificate("Another Purpose", "Own SGX Root CA", PLATFORM.pck_key, PLATFORM.key)
    with refused("signature", "not for collateral"):
        verify(evidence_of(SGX_QUOTE, forger.collateral()))


@pytest.mark.parametrize(
    "change",
    [
        lambda chain: "x" + chain,
        lambda chain: chain.replace("CERTIFICATE", "X509 CERTIFICATE"),
        lambda chain: chain.replace("\n", "\nProc-Type: 4\n\n", 1),
        lambda chain: chain + "end",
        lambda chain: chain * 3,
        lambda chain: chain.replace("MII", "M==", 1),
        lambda chain: chain.replace("MII", "AII", 1),
        lambda chain: "",
    ],
)
def test_the_signers_are_certificates_and_nothing_else(change: Callable[[str], str]) -> None:
    for field in ("tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        collateral = COLLATERAL[SGX] | {field: change(COLLATERAL[SGX][field])}
        with pytest.raises(AttestationError) as caught:
            verify(evidence_of(SGX_QUOTE, collateral))
        assert caught.value.code == "format"


@pytest.mark.parametrize("moment", [ISSUED - SECOND, NEXT_UPDATE + SECOND, datetime(1960, 1, 1, tzinfo=UTC)])
def test_collateral_is_fresh(moment: datetime) -> None:
    verify(moment=ISSUED)
    verify(moment=NEXT_UPDATE - SECOND)
    with refused("expired"):
        verify(moment=moment)


def test_every_part_of_the_collateral_is_fresh() -> None:
    past, future = ((NOW + d * timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ") for d in (-1, 1))
    for times in ({"nextUpdate": past}, {"issueDate": future}):
        for collateral in (
            PLATFORM.collateral(SGX, tcb_info=PLATFORM.tcb_info(SGX, **times)),
            PLATFORM.collateral(SGX, **times),
        ):
            with refused("expired"):
                verify(evidence_of(SGX_QUOTE, collateral))


@pytest.mark.parametrize("who", ["revoked_pck", "revoked_ca"])
def test_revoked_certificates_are_refused(who: str) -> None:
    with refused("revoked"):
        verify(evidence_of(SGX_QUOTE, PLATFORM.collateral(**{who: True})))


def with_levels(*levels: dict[str, Any], tee: int = SGX, **changes: Any) -> dict[str, str]:
    return PLATFORM.collateral(tee, tcb_info=PLATFORM.tcb_info(tee, list(levels), **changes))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("OutOfDate", "version"),
        ("OutOfDateConfigurationNeeded", "version"),
        ("SWHardeningNeeded", "policy"),
        ("ConfigurationNeeded", "policy"),
        ("ConfigurationAndSWHardeningNeeded", "policy"),
        ("Revoked", "revoked"),
    ],
)
def test_only_an_allowed_tcb_state_passes(status: str, code: str) -> None:
    evidence = evidence_of(SGX_QUOTE, with_levels(tcb_level(SGX, status, advisories=("INTEL-SA-00001",))))
    with refused(code):
        verify(evidence)
    allowed = frozenset({"UpToDate", status})
    if status == "Revoked":
        with pytest.raises(InvalidValueError, match="expected statuses among"):
            sgx_policy(statuses=allowed)
    else:
        details = verify(evidence, policy=sgx_policy(statuses=allowed)).details
        assert (details["tcb_status"], details["advisories"]) == (status, "INTEL-SA-00001")


def test_the_quoting_enclave_is_up_to_date_too() -> None:
    with refused("version", "OutOfDate"):
        verify(evidence_of(SGX_QUOTE, PLATFORM.collateral(qe_status="OutOfDate")))


def test_an_older_level_is_the_one_that_counts() -> None:
    newer = tcb_level(SGX, sgx=bytes([6] + [0] * 15))
    with refused("version", "OutOfDate"):
        verify(evidence_of(SGX_QUOTE, with_levels(newer, tcb_level(SGX, "OutOfDate"))))
    with refused("version", "No matching TCB level"):
        verify(evidence_of(SGX_QUOTE, with_levels(newer)))


def test_levels_are_compared_part_by_part() -> None:
    """The platform has 5 everywhere: more than the first part, less than the second."""
    with refused("version"):
        verify(evidence_of(SGX_QUOTE, with_levels(tcb_level(SGX, sgx=bytes([4, 9] + [0] * 14)))))
    with refused("version"):
        verify(evidence_of(SGX_QUOTE, with_levels(tcb_level(SGX, pce_svn=99))))
    with refused("version"):
        level = tcb_level(TDX, tdx=bytes([1, 1, 9] + [0] * 13))
        verify_td(evidence_of(TD_QUOTE, with_levels(level, tee=TDX)))


def test_old_collateral_can_be_ruled_out() -> None:
    verify(policy=sgx_policy(min_tcb_evaluation=17))
    with refused("version", "evaluation 17"):
        verify(policy=sgx_policy(min_tcb_evaluation=18))
    older_identity = PLATFORM.collateral(tcbEvaluationDataNumber=16)
    with refused("version", "evaluation 16"):
        verify(evidence_of(SGX_QUOTE, older_identity), policy=sgx_policy(min_tcb_evaluation=17))


@pytest.mark.parametrize(
    ("collateral", "code"),
    [
        (with_levels(tcb_level(SGX), fmspc="FF" * 6), "policy"),
        (with_levels(tcb_level(SGX), pceId="0100"), "policy"),  # dcap-qvl does not look at it
        (PLATFORM.collateral(mrsigner="00" * 32), "policy"),
        (PLATFORM.collateral(isvprodid=2), "policy"),
        (PLATFORM.collateral(id="TD_QE"), "format"),
        (COLLATERAL[TDX], "format"),
        (COLLATERAL[SGX] | {"tcb_info_signature": "00" * 64}, "signature"),
        (COLLATERAL[SGX] | {"tcb_info_signature": "00" * 63}, "signature"),
        (COLLATERAL[SGX] | {"qe_identity_signature": "00" * 64}, "signature"),
        (COLLATERAL[SGX] | {"tcb_info": COLLATERAL[SGX]["tcb_info"] + " "}, "signature"),
        (COLLATERAL[SGX] | {"tcb_info": "{}"}, "format"),
        (COLLATERAL[SGX] | {"tcb_info": "[" * 10_000}, "format"),
        (COLLATERAL[SGX] | {"root_ca_crl": "00"}, "format"),
        (COLLATERAL[SGX] | {"root_ca_crl": "zz"}, "format"),
        (COLLATERAL[SGX] | {"root_ca_crl": Platform().collateral()["root_ca_crl"]}, "root"),
        (COLLATERAL[SGX] | {"pck_crl": COLLATERAL[SGX]["root_ca_crl"]}, "signature"),
        ({}, "format"),
    ],
)
def test_collateral_of_another_kind_is_refused(collateral: dict[str, str], code: str) -> None:
    with refused(code):
        verify(evidence_of(SGX_QUOTE, collateral))


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        (bytes([0x01, 0, 0, 0x10, 0, 0, 0, 0]), "debug"),
        (bytes([0x02, 0, 0, 0x10, 0, 0, 0, 0]), "debug"),
        (bytes(8), "policy"),  # exceptions on pending pages are not disabled
        (bytes([0, 1, 0, 0x10, 0, 0, 0, 0]), "policy"),  # reserved
        (bytes([0, 0, 0, 0x30, 0, 0, 0, 0]), "policy"),  # may be migrated
    ],
)
def test_a_domain_keeps_its_host_out(attributes: bytes, code: str) -> None:
    with refused(code):
        verify_td(evidence_of(td_quote(attributes=attributes), COLLATERAL[TDX]))


@pytest.mark.parametrize(
    "changes", [{"seam_signer": bytes([1] * 48)}, {"seam_attributes": b"\1" + bytes(7)}], ids=["signer", "attributes"]
)
def test_the_tdx_module_is_intel_s(changes: Any) -> None:
    with refused("policy"):
        verify_td(evidence_of(td_quote(**changes), COLLATERAL[TDX]))


def test_a_service_domain_is_refused() -> None:
    with refused("policy"):
        verify_td(evidence_of(td_quote(5, "td15", service=bytes([1] * 48)), COLLATERAL[TDX]))


def test_an_enclave_in_debug_mode_is_refused() -> None:
    with refused("debug"):
        verify(evidence_of(sgx_quote(attributes=bytes([0x07]) + bytes(15)), COLLATERAL[SGX]))
    body = sgx_body(mrenclave=MRENCLAVE, mrsigner=MRSIGNER, report_data=binding(NONCE))
    with refused("debug"):
        verify(evidence_of(PLATFORM.quote(body, "sgx", 3, qe_debug=True), COLLATERAL[SGX]))


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (sgx_policy(mrenclaves=frozenset({"00" * 32})), "measurement"),
        (sgx_policy(mrsigners=frozenset({"00" * 32}), isv_prod_id=5), "measurement"),
        (sgx_policy(mrsigners=frozenset({MRSIGNER.hex()}), isv_prod_id=4), "measurement"),
        (SgxPolicy(mrsigners=frozenset({"00" * 32}), isv_prod_id=5), "measurement"),
        (sgx_policy(min_isv_svn=7), "version"),
        (tdx_policy(), "policy"),
    ],
)
def test_only_a_pinned_enclave_passes(policy: IntelPolicy, code: str) -> None:
    with refused(code):
        verify(policy=policy)


def test_an_enclave_may_be_pinned_by_its_signer() -> None:
    signer = SgxPolicy(mrsigners=frozenset({MRSIGNER.hex()}), isv_prod_id=5, min_isv_svn=6)
    assert verify(policy=signer).measurement == MRENCLAVE.hex()
    verify(policy=sgx_policy(mrsigners=frozenset({MRSIGNER.hex()}), isv_prod_id=5))


def test_only_a_pinned_domain_passes() -> None:
    verify_td(rtmrs={})
    pinned, other = frozenset({RTMR.hex()}), frozenset({"00" * 47 + "01"})
    for changes in ({"mrtds": other}, {"rtmrs": {3: other}}, {"rtmrs": {0: pinned, 3: pinned}}):
        with refused("measurement"):
            verify_td(**changes)
    with refused("policy", "SgxPolicy"):
        verify(GOOD_TD)


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (SgxPolicy, {}),
        (sgx_policy, {"mrenclaves": frozenset({"00" * 48})}),
        (sgx_policy, {"mrsigners": frozenset({MRSIGNER.hex()})}),
        (sgx_policy, {"statuses": frozenset()}),
        (sgx_policy, {"min_isv_svn": -1}),
        (sgx_policy, {"min_tcb_evaluation": -1}),
        (tdx_policy, {"mrtds": frozenset()}),
        (tdx_policy, {"rtmrs": {4: frozenset({RTMR.hex()})}}),
        (tdx_policy, {"rtmrs": {0: frozenset()}}),
        (tdx_policy, {"statuses": frozenset({"Fine"})}),
    ],
)
def test_a_policy_pins_something(build: Callable[..., IntelPolicy], changes: Any) -> None:
    with pytest.raises(InvalidValueError):
        build(**changes)


def version_of(quote: bytes, version: int, at_byte: int = 0) -> bytes:
    return quote[:at_byte] + struct.pack("<H", version) + quote[at_byte + 2 :]


@pytest.mark.parametrize(
    ("quote", "code"),
    [
        (b"", "format"),
        (SGX_QUOTE[:53], "format"),
        (SGX_QUOTE[:400], "format"),
        (SGX_QUOTE[:435], "format"),
        (SGX_QUOTE[:-1], "format"),
        (SGX_QUOTE + b"\1", "format"),
        (version_of(SGX_QUOTE, 2), "version"),
        (version_of(SGX_QUOTE, 4), "version"),
        (version_of(SGX_QUOTE, 5), "version"),
        (version_of(TD_QUOTE, 3), "version"),
        (version_of(td_quote(5), 4, 48), "version"),  # body of type 4
        (version_of(td_quote(5), 3, 48), "version"),  # of type 3 and the size of type 2
        (version_of(SGX_QUOTE, 3, 2), "format"),  # P-384
        (SGX_QUOTE[:432] + b"\xff\xff\xff\xff" + SGX_QUOTE[436:], "format"),
        (SGX_QUOTE.ljust(16_384, b"\0") + b"\0", "format"),
    ],
)
def test_malformed_quotes_are_refused(quote: bytes, code: str) -> None:
    with refused(code):
        verify(evidence_of(quote, COLLATERAL[SGX]))


def test_lengths_inside_the_signature_data_are_bounded() -> None:
    """Sizes of the authentication and certification data, which only dcap-qvl reads."""
    for offset in (436 + 64 + 64 + 384 + 64, 436 + 64 + 64 + 384 + 64 + 2 + 32 + 2):
        quote = bytearray(SGX_QUOTE)
        quote[offset : offset + 2] = b"\xff\xff"
        with refused("format"):
            verify(evidence_of(bytes(quote), COLLATERAL[SGX]))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Failed to verify certificate chain\n\nCaused by:\n    UnknownIssuer", "root"),
        ("Failed to verify certificate chain\n\nCaused by:\n    CertNotValidYet { ... }", "expired"),
        ("Failed to verify certificate chain\n\nCaused by:\n    InvalidSignatureForPublicKey", "signature"),
        ("QE report hash mismatch", "signature"),
        ("QE ISVSVN 8 is below minimum required 9 from QE Identity", "version"),
        ("Reserved bits in TD attributes are set", "policy"),
        ("Failed to decode TcbInfo\n\nCaused by:\n    unknown variant, expected one of `Revoked`", "format"),
        ("something that a later version says", "signature"),
    ],
)
def test_every_reason_of_dcap_qvl_has_a_code(message: str, code: str) -> None:
    assert _reason(f"Verification failed: {message}") == code


def test_zeros_may_follow_a_quote() -> None:
    verify(evidence_of(SGX_QUOTE + bytes(70), COLLATERAL[SGX]))


def test_another_vendor_s_quoting_enclave_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intel_pki, "VENDOR", bytes(16))
    with refused("signature", "vendor"):
        verify(evidence_of(sgx_quote(), COLLATERAL[SGX]))


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    with pytest.raises(MissingExtraError, match=r"dcap-qvl is not installed; .*matl\[attest\]"):
        verify()


@pytest.mark.parametrize("evidence", [b"", GOOD[:-1], GOOD + b"\0", bytes(1 << 20), b"\x81\xa5quote" * 50_000])
def test_malformed_evidence_is_refused(evidence: bytes) -> None:
    with refused("format"):
        verify(evidence)


def test_collateral_is_text() -> None:
    for collateral in (b"\xff", b"[" * 100_000, b"[]", b""):
        with refused("format"):
            verify(pack_evidence(quote=SGX_QUOTE, collateral=collateral))


@settings(max_examples=100)
@given(st.integers(0, len(SGX_QUOTE) - 1), st.integers(1, 255))
def test_every_changed_byte_of_a_quote_is_refused_or_of_no_account(index: int, change: int) -> None:
    quote = bytearray(SGX_QUOTE)
    quote[index] ^= change
    evidence = evidence_of(bytes(quote), COLLATERAL[SGX])
    if index < 1048:  # up to where the certificates begin: text, of which white space and the root's own are not used
        with pytest.raises(AttestationError):
            verify(evidence)
        return
    with refused_if_at_all():
        assert verify(evidence).measurement == MRENCLAVE.hex()


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["evidence", "quote", "body", "collateral", *COLLATERAL[SGX]]))
def test_random_bytes_are_refused_in_one_way(data: bytes, where: str) -> None:
    match where:
        case "evidence":
            evidence = data
        case "quote":
            evidence = evidence_of(data, COLLATERAL[SGX])
        case "body":
            evidence = evidence_of(SGX_QUOTE[:436] + data + SGX_QUOTE[436 + len(data) :], COLLATERAL[SGX])
        case "collateral":
            evidence = pack_evidence(quote=SGX_QUOTE, collateral=data)
        case "pck_crl_issuer_chain":  # brought along, but nobody needs it: the issuer is in the quote
            return
        case field:
            evidence = evidence_of(SGX_QUOTE, COLLATERAL[SGX] | {field: data.decode("latin-1")})
    if evidence != GOOD:
        with pytest.raises(AttestationError):
            verify(evidence)
