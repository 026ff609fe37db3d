"""An oracle whose proof a TPM signs; here one in software, so that everything has to say hardware_root: false."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.attest.emulator import Vendor, emulator
from tests.oracle.scenes import Scene, play, read_config, simulated, whole_run

from matl.attest.measurement import Measurement
from matl.attest.receipts import verify_receipt
from matl.attest.tpm_tools import Tpm, TpmError
from matl.errors import AttestationError
from matl.oracle.attesting import TpmAttester


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    with emulator(tmp_path) as running:
        yield running


def tpm_scene(tcti: str, folder: Path, vendor: Vendor | None = None) -> Scene:
    own = folder / "oracle"

    def attester(measurement: Measurement) -> TpmAttester:
        roots, chain = (frozenset[bytes](), b"") if vendor is None else (vendor.roots, vendor.intermediate)
        return TpmAttester(measurement, Tpm(tcti, own / "tpm"), roots, chain)

    return Scene(own, read_config(folder), attester)


def test_a_whole_run_is_judged_on_a_tpm_with_the_same_bits(tcti: str, tmp_path: Path) -> None:
    scene = tpm_scene(tcti, tmp_path)

    async def scenario() -> None:
        watch = scene.watch()
        state, answers = await whole_run(scene, scene.judge(), watch)
        assert state["params"].tobytes() == simulated()[-1].after["params"].tobytes()
        known = await watch.known()
        assert known.claims.format == "tpm2"
        assert not known.hardware_root
        for answer in answers:
            for document in (answer.receipts or {}).values():
                assert not verify_receipt(document, watch.signers).hardware_root

    play(scenario)


def test_a_restart_proves_the_same_and_another_configuration_does_not_start(tcti: str, tmp_path: Path) -> None:
    scene = tpm_scene(tcti, tmp_path)

    async def scenario() -> None:
        watch = scene.watch()
        first = await watch.known()
        scene.start()
        second = await watch.known()
        assert first.claims.measurement == second.claims.measurement
        assert first.signing != second.signing

    play(scenario)
    scene.config = read_config(tmp_path, least_clients=2)
    with pytest.raises(TpmError, match="another configuration or another program was measured"):
        scene.start()


def test_a_tpm_that_nobody_vouches_for_is_refused_unless_software_is_allowed(tcti: str, tmp_path: Path) -> None:
    scene = tpm_scene(tcti, tmp_path)
    strict = replace(scene.pins, software=False, vendor_keys=Vendor().roots)

    async def scenario() -> None:
        assert not (await scene.watch().known()).hardware_root
        with pytest.raises(Exception, match="certificate of its RSA endorsement key"):
            await scene.watch(strict).known()

    play(scenario)


@pytest.mark.parametrize(("model", "hardware"), [("Model 9670", True), ("swtpm", False)])
def test_hardware_is_what_a_pinned_maker_certified(tcti: str, tmp_path: Path, model: str, hardware: bool) -> None:
    vendor = Vendor()
    vendor.deliver(tcti, tmp_path, model=model)
    scene = tpm_scene(tcti, tmp_path, vendor)
    assert scene.oracle.attester.hardware_root is hardware
    pins = replace(scene.pins, software=not hardware, vendor_keys=vendor.roots)

    async def scenario() -> None:
        watch = scene.watch(pins)
        assert (await watch.known()).hardware_root is hardware
        assert len(watch.endorsed) == 1
        for serial in (77, 5):  # of the TPM's certificate, and of who issued it
            with pytest.raises(AttestationError) as caught:
                await scene.watch(replace(pins, revoked=frozenset({serial}))).known()
            assert caught.value.code == "revoked"
        stranger = replace(pins, vendor_keys=Vendor().roots)
        with pytest.raises(AttestationError):
            await scene.watch(stranger).known()
        if not hardware:
            with pytest.raises(AttestationError, match="emulator"):
                await scene.watch(replace(pins, software=False)).known()

    play(scenario)


def test_a_certificate_that_is_revoked_later_is_noticed_within_a_day(tcti: str, tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.deliver(tcti, tmp_path)
    scene = tpm_scene(tcti, tmp_path, vendor)
    revoked, now = set[int](), [0.0]
    pins = replace(scene.pins, software=False, vendor_keys=vendor.roots, revoked=revoked)

    async def scenario() -> None:
        watch = scene.watch(pins, monotonic=lambda: now[0])
        await watch.known()
        revoked.add(77)
        now[0] = 4000.0  # it proves itself anew, and is not challenged anew
        await watch.known()
        now[0] = 90_000.0
        for _ in range(2):
            with pytest.raises(AttestationError) as caught:
                await watch.known()
            assert caught.value.code == "revoked"

    play(scenario)
