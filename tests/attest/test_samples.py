"""Published evidence, issued in the past for other software, has the verdicts that are published with it."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from tests.attest.samples import ABSENT, REASON, SECOND, at, certificates, load, read, refused

from matl.attest._der import SET, Der
from matl.attest._x509 import Certificate
from matl.attest.amd import AmdVerifier, SnpPolicy, SnpTcb
from matl.attest.android import _DESCRIPTION, AndroidPolicy, AndroidVerifier, _read_description
from matl.attest.apple import AppAttestPolicy, AppleVerifier
from matl.attest.claims import Claims
from matl.attest.evidence import pack_evidence
from matl.attest.intel import IntelVerifier, SgxPolicy, TdxPolicy
from matl.attest.revocation import revoked_serials
from matl.errors import AttestationError

if ABSENT:
    pytest.skip(REASON, allow_module_level=True)

AMD = load("amd_sev_snp/expected.json")
ANDROID = load("android_key_attestation/expected.json")["vectors"]
APPLE = {name: load(f"apple_app_attest/{name}.json") for name in ("ios-14.3", "ios-14.4")}
INTEL = load("intel_dcap/expected.json")


def window(moments: list[str]) -> tuple[datetime, datetime]:
    start, end = map(datetime.fromisoformat, moments)
    return start, end


# AMD


def amd_policy(**changes: Any) -> SnpPolicy:
    levels = {part: AMD["fields"]["reported_tcb"][part] for part in ("boot_loader", "tee", "snp", "microcode")}
    options = {
        "measurements": frozenset({AMD["fields"]["measurement"]}),
        "min_tcb": {"Milan": SnpTcb(**levels)},
        "revoked": frozenset(),
    }
    return SnpPolicy(**(options | changes))


def verify_amd(
    report: bytes | None = None, ask: str = "ask_milan.pem", moment: str | datetime | None = None, **changes: Any
) -> Claims:
    evidence = pack_evidence(
        report=report or bytes.fromhex(read("amd_sev_snp/report_milan.hex").decode()),
        vcek=read("amd_sev_snp/vcek_milan.der"),
        ask=certificates(read(f"amd_sev_snp/{ask}"))[0],
    )
    nonce = bytes.fromhex(AMD["fields"]["report_data"])
    return AmdVerifier().verify(evidence, nonce, amd_policy(**changes), at(moment or AMD["clock"]))


def test_amd_report_is_accepted() -> None:
    claims, fields = verify_amd(), AMD["fields"]
    assert claims.hardware_root
    assert (claims.measurement, claims.report_data.hex()) == (fields["measurement"], fields["report_data"])
    same = ("version", "guest_svn", "vmpl", "chip_id", "host_data", "id_key_digest", "author_key_digest", "report_id")
    assert {name: claims.details[name] for name in same} == {name: fields[name] for name in same}
    assert claims.details["guest_policy"] == int(fields["policy"], 16)
    assert claims.details["platform_info"] == int(fields["platform_info"], 16)
    assert claims.details["tcb_microcode"] == fields["reported_tcb"]["microcode"]


def test_amd_report_is_refused_one_second_outside_its_window() -> None:
    start, end = window(AMD["validity_window"])
    verify_amd(moment=start)
    verify_amd(moment=end)
    for moment in (start - SECOND, end + SECOND):
        with refused("expired"):
            verify_amd(moment=moment)


@pytest.mark.parametrize("bit", range(0, 0x2A0 * 8, 173))
def test_amd_report_with_a_flipped_bit_is_refused(bit: int) -> None:
    report = bytearray.fromhex(read("amd_sev_snp/report_milan.hex").decode())
    report[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AttestationError):
        verify_amd(bytes(report))


@pytest.mark.parametrize("ask", ["ask_genoa.pem", "ask_turin.pem"])
def test_amd_report_with_another_issuer_is_refused(ask: str) -> None:
    with refused("signature"):
        verify_amd(ask=ask)


def test_amd_report_of_older_firmware_than_asked_for_is_refused() -> None:
    with refused("version"):
        verify_amd(min_tcb={"Milan": SnpTcb(boot_loader=3, tee=0, snp=9, microcode=115)})


def test_amd_turin_chain_is_accepted() -> None:
    """There is no Turin report, so the chain is followed as far as the report that does not fit it."""
    evidence = pack_evidence(
        report=bytes.fromhex(read("amd_sev_snp/report_milan.hex").decode()),
        vcek=read("amd_sev_snp/vcek_turin.der"),
        ask=certificates(read("amd_sev_snp/ask_turin.pem"))[0],
    )
    with refused("signature", "not signed by this VCEK"):
        AmdVerifier().verify(evidence, b"nonce", amd_policy(), at(AMD["clock"]))


# Intel


def verify_intel(
    name: str, moment: str | datetime, quote: bytes | None = None, other: str = "", **changes: Any
) -> Claims:
    vector = INTEL[name]
    body = vector["body_fields"]
    collateral = INTEL[other or name]["collateral"]
    evidence = pack_evidence(
        quote=quote or read(f"intel_dcap/{vector['quote']}"), collateral=read(f"intel_dcap/{collateral}")
    )
    policy: SgxPolicy | TdxPolicy
    if vector["body"] == "sgx":
        policy = SgxPolicy(mrenclaves=frozenset({body["mrenclave"]}), **changes)
    else:
        registers = {register: frozenset({body[f"rtmr{register}"]}) for register in range(4)}
        policy = TdxPolicy(mrtds=frozenset({body["mrtd"]}), rtmrs=registers, **changes)
    return IntelVerifier().verify(evidence, bytes.fromhex(body["report_data"]), policy, at(moment))


intel = pytest.mark.parametrize("name", sorted(INTEL))
accepted = {"sgx_quote": {"statuses": frozenset({"ConfigurationAndSWHardeningNeeded"})}, "tdx_quote": {}}


@pytest.mark.parametrize("name", sorted(accepted))
def test_intel_quotes_are_accepted(name: str) -> None:
    pytest.importorskip("dcap_qvl")
    vector = INTEL[name]
    claims = verify_intel(name, vector["clock"], **accepted[name])
    assert claims.hardware_root
    assert claims.measurement == vector["body_fields"]["mrenclave" if vector["body"] == "sgx" else "mrtd"]
    details = claims.details
    assert (details["tcb_status"], details["advisories"]) == (vector["tcb_status"], ", ".join(vector["advisory_ids"]))
    assert (details["fmspc"].upper(), details["quote_version"]) == (vector["fmspc"], vector["quote_version"])
    assert details["tcb_evaluation"] == vector["tcb_evaluation_data_number"]


def test_intel_quote_that_is_not_up_to_date_is_refused() -> None:
    pytest.importorskip("dcap_qvl")
    with refused("policy", "ConfigurationAndSWHardeningNeeded"):
        verify_intel("sgx_quote", INTEL["sgx_quote"]["clock"])


def test_intel_quote_without_a_matching_level_is_refused() -> None:
    pytest.importorskip("dcap_qvl")
    with refused("version", "No matching TCB level"):
        verify_intel("tdx_quote_outdated", INTEL["tdx_quote_outdated"]["clock"])


@intel
def test_intel_quotes_are_refused_one_second_outside_their_window(name: str) -> None:
    pytest.importorskip("dcap_qvl")
    start, end = window(INTEL[name]["collateral_window"])
    for moment in (start, end - SECOND):
        if name in accepted:
            verify_intel(name, moment, **accepted[name])
    for moment in (start - SECOND, end + SECOND):
        with refused("expired"):
            verify_intel(name, moment, **accepted.get(name, {}))


@intel
def test_intel_quotes_with_a_flipped_bit_are_refused(name: str) -> None:
    pytest.importorskip("dcap_qvl")
    quote, signed = (
        read(f"intel_dcap/{INTEL[name]['quote']}"),
        {"sgx": 432, "td10": 632, "td15": 702}[INTEL[name]["body"]],
    )
    for bit in range(0, signed * 8, 503):
        flipped = bytearray(quote)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AttestationError):
            verify_intel(name, INTEL[name]["clock"], bytes(flipped), **accepted.get(name, {}))


@intel
def test_intel_quotes_with_swapped_collateral_are_refused(name: str) -> None:
    pytest.importorskip("dcap_qvl")
    for other in set(INTEL) - {name}:
        with pytest.raises(AttestationError):
            verify_intel(name, INTEL[other]["clock"], other=other, **accepted.get(name, {}))


# Android


def application_of(name: str) -> tuple[str, frozenset[str]]:
    """Package and signatures that the leaf names; the samples are of applications that test attestation."""
    if name.startswith("invalid"):
        return "unknown", frozenset({"00" * 32})
    leaf = Certificate.parse(certificates(read(f"android_key_attestation/{ANDROID[name]['chain']}"))[0])
    described = _read_description(leaf.extensions[_DESCRIPTION])
    assert described.application is not None
    fields = Der(Der(described.application).octets()).enter()
    package, digests = fields.enter(SET).enter(), fields.enter(SET)
    return package.octets().decode(), frozenset({digests.octets().hex()})


def verify_android(name: str, moment: str | datetime | None = None, **changes: Any) -> Claims:
    vector = ANDROID[name]
    package, signatures = application_of(name)
    revoked = revoked_serials(read("android_key_attestation/revocation_status_sample.json"))
    policy = AndroidPolicy(**({"package": package, "signatures": signatures, "revoked": revoked} | changes))
    evidence = pack_evidence(chain=b"".join(certificates(read(f"android_key_attestation/{vector['chain']}"))))
    nonce = bytes.fromhex(vector["attestation_extensions"][0]["challenge_hex"])
    return AndroidVerifier().verify(evidence, nonce, policy, at(moment or vector["clock"]))


REFUSED = {
    "akita_sdk34_SB_RSA_NONE": "debug",
    "akita_sdk34_TEE_EC_NONE": "debug",
    "blueline_sdk28_SB_RSA_NONE": "debug",
    "blueline_sdk28_TEE_EC_NONE": "debug",
    "marlin_sdk29_TEE_EC_NONE": "root",
    "invalid_tags_not_in_ascending_order": "signature",
    "invalid_malformed_rot_device_locked": "format",
    "fake_cert_chain_with_attest_keys": "root",
}
android = pytest.mark.parametrize("name", sorted(ANDROID))


@android
def test_android_verdicts(name: str) -> None:
    vector = ANDROID[name]
    assert (vector["verdict"] == "accept") == (name not in REFUSED)
    if name in REFUSED:
        with refused(REFUSED[name]):
            verify_android(name)
        return
    claims, expected = verify_android(name), vector["attestation_extensions"][0]
    assert claims.hardware_root
    assert claims.report_data.hex() == expected["challenge_hex"]
    assert claims.details["security_level"] == expected["attestation_security_level"]
    same = ("attestation_version", "os_version", "os_patch_level", "vendor_patch_level", "boot_patch_level")
    assert {field: claims.details[field] for field in same} == {field: expected[field] for field in same}
    trust = {
        key: expected["root_of_trust"][key] for key in ("verified_boot_key", "verified_boot_hash", "device_locked")
    }
    assert claims.details.items() >= trust.items()


@android
def test_android_chains_are_refused_one_second_outside_their_window(name: str) -> None:
    start, end = window(ANDROID[name]["validity_window"])
    for moment in (start, end):
        if name not in REFUSED:
            verify_android(name, moment)
    for moment in (start - SECOND, end + SECOND):
        with pytest.raises(AttestationError) as caught:
            verify_android(name, moment)
        assert caught.value.code == "expired" or name in REFUSED


@pytest.mark.parametrize("name", [name for name, code in REFUSED.items() if code == "debug"])
def test_android_chains_of_unlocked_phones_are_good_otherwise(name: str) -> None:
    relaxed = partial(verify_android, name, require_verified_boot=False)
    assert relaxed().details["verified_boot_state"] == "UNVERIFIED"
    start, _ = window(ANDROID[name]["validity_window"])
    with refused("expired"):
        relaxed(start - SECOND)


def test_android_root_certificates_may_expire_because_their_key_is_pinned() -> None:
    """The window of this chain ends with the first certificate of Google's RSA key, which has been renewed since."""
    _, end = window(ANDROID["blueline_sdk28_TEE_EC_NONE"]["validity_window"])
    verify_android("blueline_sdk28_TEE_EC_NONE", end + SECOND, require_verified_boot=False)
    with refused("expired"):  # the phone's own certificates
        verify_android("blueline_sdk28_TEE_EC_NONE", end + timedelta(days=900), require_verified_boot=False)


def test_android_revoked_serials_are_refused() -> None:
    for serial in ANDROID["normal_cert_chain"]["serials_hex"]:
        with refused("revoked"):
            verify_android("normal_cert_chain", revoked=frozenset({int(serial, 16)}))


def test_android_applications_are_pinned() -> None:
    with refused("measurement"):
        verify_android("normal_cert_chain", package="org.example.app")
    with refused("measurement"):
        verify_android("normal_cert_chain", signatures=frozenset({"00" * 32}))


# Apple


def verify_apple(name: str, moment: str | datetime | None = None, app_id: str = "", nonce: bytes = b"") -> Claims:
    sample, attestation = APPLE[name], APPLE[name]["attestation"]
    policy = AppAttestPolicy(app_id=app_id or sample["app_id"], allow_development=True)
    evidence, client_data = b64decode(attestation["object_base64"]), b64decode(attestation["client_data_base64"])
    return AppleVerifier().verify(evidence, nonce or client_data, policy, at(moment or attestation["clock"]))


apple = pytest.mark.parametrize("name", sorted(APPLE))


@apple
def test_apple_attestation_is_accepted(name: str) -> None:
    claims, sample = verify_apple(name), APPLE[name]
    assert claims.hardware_root
    assert claims.key == b64decode(sample["public_key_spki_base64"])
    assert claims.details["key_id"] == b64decode(sample["attestation"]["key_id_base64"]).hex()
    assert claims.details["environment"] == sample["environment"]


@apple
def test_apple_attestation_is_refused_one_second_outside_its_window(name: str) -> None:
    start, end = window(APPLE[name]["attestation"]["validity_window"])
    verify_apple(name, start)
    verify_apple(name, end)
    for moment in (start - SECOND, end + SECOND):
        with refused("expired"):
            verify_apple(name, moment)


@apple
def test_apple_attestation_for_something_else_is_refused(name: str) -> None:
    sample = APPLE[name]
    with refused("measurement"):
        verify_apple(name, app_id="TEAM123456.org.example.app")
    evidence = b64decode(sample["attestation"]["object_base64"])
    client_data = bytearray(b64decode(sample["attestation"]["client_data_base64"]))
    with refused("debug"):
        policy = AppAttestPolicy(app_id=sample["app_id"])
        AppleVerifier().verify(evidence, bytes(client_data), policy, at(sample["attestation"]["clock"]))
    client_data[0] ^= 1
    with refused("nonce"):
        verify_apple(name, nonce=bytes(client_data))


@apple
def test_apple_assertion_counts_up(name: str) -> None:
    sample = APPLE[name]
    assertion = sample["assertion"]
    policy = AppAttestPolicy(app_id=sample["app_id"], allow_development=True)
    evidence, client_data = b64decode(assertion["object_base64"]), b64decode(assertion["client_data_base64"])
    verify = partial(AppleVerifier().verify_assertion, evidence, policy=policy, key=verify_apple(name).key or b"")
    assert verify(client_data, counter=0) == assertion["expected"]["counter"]
    with refused("nonce", "replay"):
        verify(client_data, counter=1)
    with refused("signature"):
        verify(client_data[:-1] + b"x", counter=0)
