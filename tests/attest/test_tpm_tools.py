"""A TPM that runs: everything between a machine and a verifier, with swtpm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.attest.emulator import END, Vendor, emulator, tool
from tests.attest.tpm_forge import KEY, MEASUREMENT, NONCE

from matl.attest._event_log import Event, write_log
from matl.attest.endorsement import challenge_endorsement
from matl.attest.measurement import Measurement
from matl.attest.tpm import TpmPolicy, TpmVerifier, bound_data, pack_quote
from matl.attest.tpm_tools import Tpm, TpmError
from matl.errors import AttestationError, InvalidValueError

SOFTWARE = TpmPolicy(measurements=frozenset({MEASUREMENT.digest}), require_hardware=False)


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    with emulator(tmp_path) as running:
        yield running


def test_a_quote_proves_the_measurement_and_the_key_to_who_asked(tcti: str, tmp_path: Path) -> None:
    tpm = Tpm(tcti, tmp_path / "tpm", also=[0, 7])
    with pytest.raises(InvalidValueError, match=r"measure\(\) before quote\(\)"):
        tpm.quote(NONCE, KEY)
    tpm.measure(MEASUREMENT)
    evidence = tpm.quote(NONCE, KEY)
    pinned = TpmPolicy(measurements=SOFTWARE.measurements, pinned={7: frozenset({"00" * 32})}, require_hardware=False)
    claims = TpmVerifier().verify(evidence, NONCE, pinned)
    assert (claims.measurement, claims.key, claims.hardware_root) == (MEASUREMENT.digest, KEY, False)
    assert claims.report_data == bound_data(NONCE, KEY)
    assert claims.details["pinned_pcrs"] == "7"
    assert claims.details["config"] == MEASUREMENT.config
    with pytest.raises(AttestationError) as refused:  # replayed to somebody else
        TpmVerifier().verify(evidence, NONCE[::-1], pinned)
    assert refused.value.code == "nonce"


@pytest.mark.parametrize("part", ["package", "config", "policy"])
def test_one_byte_changed_fails(tcti: str, tmp_path: Path, part: str) -> None:
    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(replace(MEASUREMENT, **{part: "0d" + getattr(MEASUREMENT, part)[2:]}))
    with pytest.raises(AttestationError, match="which the policy does not name") as refused:
        TpmVerifier().verify(tpm.quote(NONCE), NONCE, SOFTWARE)
    assert refused.value.code == "measurement"


def test_a_restart_measures_once_and_a_change_needs_a_reboot(tcti: str, tmp_path: Path) -> None:
    before = Tpm(tcti, tmp_path / "tpm")
    before.measure(MEASUREMENT)
    after = Tpm(tcti, tmp_path / "tpm")
    after.measure(MEASUREMENT)
    assert after.create_ak() == before.create_ak()
    assert TpmVerifier().verify(after.quote(NONCE), NONCE, SOFTWARE).measurement == MEASUREMENT.digest
    with pytest.raises(TpmError, match="another configuration or another program"):
        after.measure(Measurement.of(b"another configuration", b"policy"))


def test_what_the_firmware_measured_there_is_explained(tcti: str, tmp_path: Path) -> None:
    tpm = Tpm(tcti, tmp_path / "tpm", firmware_log=tmp_path / "firmware.log")
    with pytest.raises(TpmError, match="cannot be read"):
        tpm.measure(MEASUREMENT)
    told, foreign = Event(14, 0x0D, bytes([1] * 32), b"MokList"), Event(0, 8, bytes([2] * 32), b"firmware")
    tpm.extend(14, told.digest)
    with pytest.raises(TpmError, match="firmware_log= is missing"):
        Tpm(tcti, tmp_path / "tpm").measure(MEASUREMENT)
    (tmp_path / "firmware.log").write_bytes(write_log([foreign, told]))
    tpm.measure(MEASUREMENT)
    assert TpmVerifier().verify(tpm.quote(NONCE), NONCE, SOFTWARE).measurement == MEASUREMENT.digest


def test_only_the_certified_tpm_answers_the_challenge(tcti: str, tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.deliver(tcti, tmp_path)
    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(MEASUREMENT)
    evidence = tpm.quote(NONCE, KEY)
    strict = TpmPolicy(measurements=SOFTWARE.measurements)
    with pytest.raises(AttestationError, match="was never challenged") as refused:
        TpmVerifier().verify(evidence, NONCE, strict)
    assert refused.value.code == "root"

    challenge = challenge_endorsement(tpm.identity(vendor.intermediate), vendor.roots)
    endorsed = challenge.check(tpm.activate(challenge.blob))
    assert endorsed.model == "Model 9670"
    policy = replace(strict, endorsed=(endorsed,))
    assert TpmVerifier().verify(evidence, NONCE, policy).hardware_root
    with pytest.raises(AttestationError, match="expired"):
        TpmVerifier().verify(evidence, NONCE, policy, clock=lambda: END + timedelta(seconds=1))

    # Another key of the same TPM cannot answer for this one, and its quotes do not count.
    other = Tpm(tcti, tmp_path / "other")
    for _ in range(4):  # a TPM has room for three objects: none may stay
        with pytest.raises(TpmError, match="activatecredential"):
            other.activate(challenge.blob)
    other.measure(MEASUREMENT)
    with pytest.raises(AttestationError, match="was never challenged"):
        TpmVerifier().verify(other.quote(NONCE, KEY), NONCE, policy)


def test_another_tpm_cannot_answer(tcti: str, tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.deliver(tcti, tmp_path)
    with emulator(tmp_path / "second") as second:
        stolen = Tpm(second, tmp_path / "second")
        # The public area of its own key, with the certificates of somebody else's TPM.
        stolen.create_ak()
        honest = Tpm(tcti, tmp_path / "tpm")
        honest._public = stolen.create_ak()
        challenge = challenge_endorsement(honest.identity(vendor.intermediate), vendor.roots)
        with pytest.raises(TpmError):
            stolen.activate(challenge.blob)


def test_an_emulator_is_no_hardware_whoever_certified_it(tcti: str, tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.deliver(tcti, tmp_path, model="swtpm")
    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(MEASUREMENT)
    challenge = challenge_endorsement(tpm.identity(vendor.intermediate), vendor.roots)
    policy = replace(SOFTWARE, endorsed=(challenge.check(tpm.activate(challenge.blob)),))
    assert not TpmVerifier().verify(tpm.quote(NONCE), NONCE, policy).hardware_root
    with pytest.raises(AttestationError, match=r"lives in an emulator \(swtpm\)"):
        TpmVerifier().verify(tpm.quote(NONCE), NONCE, replace(policy, require_hardware=True))


def test_a_key_that_signs_anything_is_refused(tcti: str, tmp_path: Path) -> None:
    def file(name: str) -> str:
        return str(tmp_path / name)

    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(MEASUREMENT)
    tool(tcti, "createprimary", "-C", "o", "-c", file("parent"))
    tool(tcti, "flushcontext", "-t")
    tool(tcti, "create", "-C", file("parent"), "-G", "ecc:ecdsa-sha256", "-u", file("pub"), "-r", file("priv"),
         "-c", file("ctx"), "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign")  # fmt: skip
    tool(tcti, "flushcontext", "-t")
    tool(tcti, "quote", "-c", file("ctx"), "-l", "sha256:14", "-q", bound_data(NONCE).hex(), "-g", "sha256",
         "-m", file("attest"), "-s", file("signature"))  # fmt: skip
    tool(tcti, "flushcontext", "-t")
    evidence = pack_quote(
        attest=(tmp_path / "attest").read_bytes(), signature=(tmp_path / "signature").read_bytes(),
        public=(tmp_path / "pub").read_bytes()[2:], pcrs=tpm.read_pcrs([14]), log=tpm._log,
    )  # fmt: skip
    with pytest.raises(AttestationError, match="not restricted") as refused:
        TpmVerifier().verify(evidence, NONCE, SOFTWARE)
    assert refused.value.code == "policy"


def test_tpm2_tools_read_our_log(tcti: str, tmp_path: Path) -> None:
    """An independent reader of the format, which replays it as well."""
    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(MEASUREMENT)
    (tmp_path / "log").write_bytes(tpm._log)
    told = tool(tcti, "eventlog", str(tmp_path / "log")).decode()
    assert "EV_EVENT_TAG" in told
    assert MEASUREMENT.digest in told
    assert f"0x{tpm.read_pcrs([14]).hex()}" in told


def test_a_lost_key_and_a_lost_tpm_are_said(tcti: str, tmp_path: Path) -> None:
    Tpm(tcti, tmp_path / "tpm").create_ak()
    (tmp_path / "tpm" / "ak.priv").write_bytes(b"\x00\x03abc")
    with pytest.raises(TpmError, match="remove the folder"):
        Tpm(tcti, tmp_path / "tpm").create_ak()
    with pytest.raises(TpmError, match="no certificate of its RSA endorsement key"):
        Tpm(tcti, tmp_path / "fresh").identity()
    with pytest.raises(AttestationError, match="challenge"):
        Tpm(tcti, tmp_path / "fresh").activate(b"\x00\x01a")


def test_a_pcr_that_keeps_changing_is_said(tcti: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tpm = Tpm(tcti, tmp_path / "tpm")
    tpm.measure(MEASUREMENT)
    stale = tpm.read_pcrs([14])
    tpm.extend(14, bytes(32))
    monkeypatch.setattr(tpm, "read_pcrs", lambda pcrs: stale)
    with pytest.raises(TpmError, match="change all the time"):
        tpm.quote(NONCE)
    monkeypatch.undo()
    with pytest.raises(AttestationError, match="does not lead"):  # what was extended since cannot be hidden
        TpmVerifier().verify(tpm.quote(NONCE), NONCE, SOFTWARE)


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TpmError, match="install the package tpm2-tools"):
        Tpm("swtpm:port=1", tmp_path).create_ak()


def test_no_tpm_and_a_silent_one_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = tmp_path / "tpm2_pcrread"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    answers.write_text("#!/bin/sh\necho 'ERROR: no device' >&2\nexit 1\n")
    answers.chmod(0o755)
    with pytest.raises(TpmError, match="failed: ERROR: no device"):
        Tpm("device:/dev/none", tmp_path / "tpm").read_pcrs([14])
    monkeypatch.setattr("matl.attest.tpm_tools._SECONDS", 0.05)
    answers.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(TpmError, match="did not answer"):
        Tpm("device:/dev/none", tmp_path / "tpm").read_pcrs([14])
    answers.write_text('#!/bin/sh\ntouch "$3"\n')
    monkeypatch.setattr("matl.attest.tpm_tools._SECONDS", 10)
    with pytest.raises(TpmError, match="SHA-256 bank"):
        Tpm("device:/dev/none", tmp_path / "tpm").read_pcrs([14])


def test_the_key_outlives_a_reboot_and_a_change_may_run_after_it(tmp_path: Path) -> None:
    with emulator(tmp_path) as tcti:
        before = Tpm(tcti, tmp_path / "tpm")
        before.measure(MEASUREMENT)
        public = before.create_ak()
    changed = replace(MEASUREMENT, config="0d" * 32)
    with emulator(tmp_path) as tcti:
        after = Tpm(tcti, tmp_path / "tpm")
        after.measure(changed)
        assert after.create_ak() == public
        policy = replace(SOFTWARE, measurements=frozenset({changed.digest}))
        assert TpmVerifier().verify(after.quote(NONCE), NONCE, policy).details["resets"] == 2
