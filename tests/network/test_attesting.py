"""Evidence of clients' machines, as a file of settings asks for it."""

import asyncio
import json
import os
import time

import pytest
from tests.attest.emulator import Vendor, emulator
from typer.testing import CliRunner

from matl.attest.amd import SnpTcb
from matl.attest.endorsement import challenge_endorsement
from matl.attest.keys import SigningKey
from matl.attest.measurement import Measurement
from matl.attest.software import sign_software
from matl.attest.tpm_tools import Tpm
from matl.cli import app
from matl.client import AsyncMATLClient
from matl.errors import ConfigError, MissingExtraError, ServiceError
from matl.network import attesting
from matl.network.checking import check_all
from matl.network.hosting import open_coordinator
from matl.network.operating import Operator
from matl.network.settings import load_settings
from matl.protocol.messages import InviteRequest

MEASUREMENT = Measurement(package="0" * 64, config="1" * 64, policy="2" * 64)
UNTOUCHED = "00" * 32  # what a PCR holds that nothing was measured into
SOFTWARE = f"""
[attestation]
require = true
[attestation.software]
measurements = ["{MEASUREMENT.digest}"]
"""


def written(folder, text):
    path = folder / "matl.toml"
    path.write_text('folder = "data"\nport = 0\n' + text)
    return load_settings(path)


async def joined(doors, settings, name, key, evidence=None):
    """Enrol as a client does, over HTTP; what the operator is told of it then."""
    with Operator.of(settings.folder) as line:
        made = await asyncio.to_thread(line.invite, InviteRequest(client_id=name))
        folder = settings.folder.parent / f"{name}-{made.token[-6:]}"
        client = AsyncMATLClient(doors.url, client_id=name, folder=folder, key=key)
        try:
            await client.join(made.token, evidence=evidence)
        finally:
            await client.close()
        return next(one for one in await asyncio.to_thread(line.clients) if one.client_id == name)


async def refused(*arguments, **options):
    with pytest.raises(ServiceError) as caught:
        await joined(*arguments, **options)
    assert caught.value.code == "invalid"
    return caught.value.reason, str(caught.value)


def test_a_tpm_proves_what_the_file_asks_for(tmp_path):
    vendor = Vendor()
    with emulator(tmp_path) as tcti:
        vendor.deliver(tcti, tmp_path)
        tpm = Tpm(tcti, tmp_path / "tpm", also=[7])
        tpm.measure(MEASUREMENT)
        challenge = challenge_endorsement(tpm.identity(vendor.intermediate), vendor.roots)
        endorsed = challenge.check(tpm.activate(challenge.blob))
        text = f"""
        [attestation]
        require = true
        [attestation.tpm]
        measurements = ["{MEASUREMENT.digest}"]
        pinned = {{ 7 = ["VALUE"] }}
        [[attestation.tpm.endorsed]]
        name = "{endorsed.name}"
        expires = {endorsed.expires.isoformat()}
        hardware = true
        model = "{endorsed.model}"
        """
        key, other = SigningKey.generate(), SigningKey.generate()

        def evidence(of):
            return lambda nonce: {"tpm2": tpm.quote(nonce, of.public.der)}

        async def work(settings):
            async with open_coordinator(settings) as doors:
                assert await refused(doors, settings, "ann", key) == (
                    "evidence",
                    "this coordinator enrols clients that show evidence of their machine alone, and none came; show "
                    "some of the format tpm2: the argument evidence of join",
                )
                reason, words = await refused(doors, settings, "ann", other, evidence(key))
                assert (reason, "is not about this key" in words) == ("attestation", True)
                told = await joined(doors, settings, "ann", key, evidence(key))
                assert told.attestation == {
                    "format": "tpm2", "hardware_root": True, "measurement": MEASUREMENT.digest
                }  # fmt: skip

        asyncio.run(work(written(tmp_path, text.replace("VALUE", UNTOUCHED))))

        async def with_another_policy(settings):
            async with open_coordinator(settings) as doors:
                return await refused(doors, settings, "bob", other, evidence(other))

        reason, words = asyncio.run(with_another_policy(written(tmp_path, text.replace("VALUE", "11" * 32))))
        assert reason == "measurement"
        assert f"PCR 7 holds {UNTOUCHED}, which the policy does not name" in words


def test_software_evidence_is_no_proof_and_says_so(tmp_path):
    machine, key = SigningKey.generate(), SigningKey.generate()
    settings = written(tmp_path, f'{SOFTWARE}signers = ["{machine.public.fingerprint}"]')

    def evidence(signer):
        return lambda nonce: {"software": sign_software(MEASUREMENT, nonce, key.public.der, signer)}

    async def work():
        async with open_coordinator(settings) as doors:
            assert (await refused(doors, settings, "ann", key))[0] == "evidence"
            assert (await refused(doors, settings, "ann", key, evidence(SigningKey.generate())))[0] == "root"
            assert (await refused(doors, settings, "ann", key, lambda nonce: {"tpm2": b""}))[0] == "format"
            told = await joined(doors, settings, "ann", key, evidence(machine))
            assert told.hardware_root is False
            assert told.attestation["format"] == "software"
        return await check_all(settings)

    found = [one for one in asyncio.run(work()) if one.what.startswith("attestation")]
    assert [one.problem for one in found] == [""]
    assert found[0].what == "attestation.software: software, needed to enrol; no hardware proves it"


def test_without_require_evidence_may_be_left_out(tmp_path):
    settings = written(tmp_path, SOFTWARE.replace("true", "false"))

    async def work():
        async with open_coordinator(settings) as doors:
            told = await joined(doors, settings, "ann", SigningKey.generate())
            assert (told.attestation, told.hardware_root) == ({}, False)

    asyncio.run(work())
    shown = CliRunner().invoke(app, ["serve", str(tmp_path / "matl.toml"), "--check", "--json"])
    assert "attestation.software: software, not needed to enrol; no hardware proves it" in [
        one["what"] for one in json.loads(shown.stdout)
    ]


def test_who_is_enrolled_may_join_again_without_evidence(tmp_path):
    key = SigningKey.generate()

    async def joins(settings, name="ann", key=key):
        async with open_coordinator(settings) as doors:
            return await joined(doors, settings, name, key)

    told = asyncio.run(joins(written(tmp_path, SOFTWARE.replace("true", "false"))))
    assert asyncio.run(joins(written(tmp_path, SOFTWARE))) == told
    with pytest.raises(ServiceError, match="none came"):
        asyncio.run(joins(written(tmp_path, SOFTWARE), "bob", SigningKey.generate()))


def test_every_verifier_has_a_table(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "status.json").write_text('{"entries": {"ff": {"status": "REVOKED"}}}')
    settings = written(
        tmp_path,
        f"""
        [attestation.tpm]
        measurements = ["{"5f" * 32}"]
        require_hardware = false
        pcr = 12
        [attestation.tdx]
        mrtds = ["{"5f" * 48}"]
        rtmrs = {{ 2 = ["{"6f" * 48}"] }}
        [attestation.snp]
        measurements = ["{"5f" * 48}"]
        min_tcb = {{ Milan = {{ boot_loader = 4, tee = 0, snp = 22, microcode = 213 }} }}
        revoked = [255]
        [attestation.android]
        package = "org.example.app"
        signatures = ["{"5f" * 32}"]
        revoked = "lists/status.json"
        [attestation.apple]
        app_id = "TEAM123456.org.example.app"
        """,
    )
    policies = {one.name: one.attestation.policy for one in settings.attestation.checked()}
    assert policies["tpm"].pcr == 12
    assert policies["tdx"].rtmrs == {2: frozenset({"6f" * 48})}
    assert policies["snp"].min_tcb == {"Milan": SnpTcb(boot_loader=4, tee=0, snp=22, microcode=213)}
    assert policies["snp"].revoked == {255}
    assert policies["android"].revoked.serials == {255}
    assert {one.name for one in settings.attestation.checked() if not one.hardware} == {"tpm"}
    formats = settings.attestation.formats()
    assert list(formats) == ["tpm2", "intel-dcap", "amd-sev-snp", "android-key-attestation", "apple-app-attest"]
    assert all(formats[name].verifier.format == name for name in formats)


def test_a_list_that_was_not_fetched_for_long_is_named_and_one_that_is_fetched_again_counts(tmp_path):
    listed = tmp_path / "status.json"
    listed.write_text('{"entries": {}}')
    text = f"""
        [attestation]
        list_days = 2
        [attestation.android]
        package = "org.example.app"
        signatures = ["{"5f" * 32}"]
        revoked = "status.json"
        """
    settings = written(tmp_path, text)

    def looked():
        (found,) = [one for one in asyncio.run(check_all(settings)) if "android.revoked" in one.what]
        return found

    assert (looked().note, looked().problem) == ("revoked serial numbers: 0", "")
    listed.write_text('{"entries": {"ab": {"status": "REVOKED"}}}')
    policy = settings.attestation.formats()["android-key-attestation"].policy
    assert 0xAB in policy.revoked  # nothing was started anew
    assert looked().note == "revoked serial numbers: 1"
    old = time.time() - 3 * 86400
    os.utime(listed, (old, old))
    assert "was fetched 3.0 days ago, at most 2 are allowed" in looked().problem
    with pytest.raises(ConfigError, match="list_days"):
        written(tmp_path, text.replace("= 2", "= 0"))


def test_what_checks_has_to_be_installed(tmp_path, monkeypatch):
    settings = written(tmp_path, f'[attestation.sgx]\nmrenclaves = ["{"5f" * 32}"]')
    monkeypatch.setattr(attesting, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="attest"):
        settings.attestation.formats()
    (found,) = [one for one in asyncio.run(check_all(settings)) if one.what == "verifiers of attestation"]
    assert "dcap-qvl" in found.problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[attestation]\nrequire = true", "expected a policy beside require = true, got none: add one of tpm, sgx"),
        ("[attestation.tpn]", "attestation.tpn: unknown key"),
        ("[attestation]\ntpm = 3", "attestation.tpm: "),
        ('attestation = "all"', "attestation: "),
        ("[attestation.tpm]", "attestation.tpm.measurements: "),
        (
            '[attestation.tpm]\nmeasurements = ["5f"]',
            "expected measurements to be 32 bytes in lower-case hex, got '5f'",
        ),
        (f'[attestation.tpm]\nmeasurements = ["{"5f" * 32}"]', "expected tpm.endorsed"),
        (
            f'[attestation.tpm]\nmeasurements = ["{"5f" * 32}"]\n[[attestation.tpm.endorsed]]\nname = "000b"\n'
            'expires = 2031-01-01T00:00:00Z\nhardware = false\nmodel = "swtpm"',
            "got none with hardware = true: no quote could pass",
        ),
        (f'[attestation.tpm]\nmeasurements = ["{"5f" * 32}"]\npins = {{}}', "attestation.tpm.pins: unknown key"),
        (
            f'[attestation.tpm]\nmeasurements = ["{"5f" * 32}"]\n[[attestation.tpm.endorsed]]\nname = "000b"\n'
            'expires = 2031-01-01T00:00:00\nhardware = true\nmodel = "SLB 9670"',
            "got no zone: ['000b']",
        ),
        (
            f'[attestation.sgx]\nmrenclaves = ["{"5f" * 32}"]\n'
            f'[attestation.tdx]\nmrtds = ["{"5f" * 48}"]\nrtmrs = {{}}',
            "expected sgx or tdx, got both",
        ),
        (
            f'[attestation.android]\npackage = "a"\nsignatures = ["{"5f" * 32}"]\nrevoked = "none.json"',
            "attestation.android.revoked: ",
        ),
        (
            f'[attestation.android]\npackage = "a"\nsignatures = ["{"5f" * 32}"]\nrevoked = "\\u0000"',
            "attestation.android.revoked: ",
        ),
        (
            f'[attestation.android]\npackage = "a"\nsignatures = ["{"5f" * 32}"]\nrevoked = "matl.toml"',
            "attestation.android.revoked: ",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    assert words in str(caught.value)
