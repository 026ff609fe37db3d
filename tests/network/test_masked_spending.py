"""Masked rounds over a network: terms that every signature is bound to, and sums charged before they are known."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from fractions import Fraction

import pytest
from tests.network.masked_kit import ADMIN, INSTANCE, MANIFEST, NAMES, D, Kit, plan, take_part, updates

from matl.coordinator.rounds.spending import RunLedger
from matl.coordinator.service import Service, ServiceSettings
from matl.errors import ProtocolError, ServiceError, StateError, StorageError
from matl.journal import read_journal
from matl.network.saving import put_back, save
from matl.network.settings import NetworkSettings
from matl.privacy.ledger import PrivacyLedger
from matl.privacy.manifest import Manifest
from matl.privacy.mechanism import Distributed
from matl.privacy.secagg import Phase, Server
from matl.privacy.table import skellam_table
from matl.workloads import Private

FEW = NAMES[:8]
SILENT = Manifest(
    replace(INSTANCE, table=skellam_table("1/1000").counts, bound=Fraction(1)), block=64, kept=64, clip_norm=Fraction(1)
)
"""What clients may be given who pinned nothing: next to no noise."""


def ledger_of(kit):
    return kit.folder / "keep" / "privacy" / "demo.ledger"


def charges(kit):
    return [record for record in read_journal(ledger_of(kit))[0] if "charge" in record]


async def all_take_part(clients, names=FEW):
    made = updates(names)
    return await asyncio.gather(*(take_part(clients[name], made[name]) for name in names), return_exceptions=True)


def test_a_client_is_in_no_sum_with_others_that_were_given_another_manifest(tmp_path):
    """Who pins its constants would else be the only one whose noise is in the sum, and count the others' as well."""

    async def check():
        kit = Kit(tmp_path, names=FEW, target=7)
        kit.planner = lambda run, settings: plan(run, settings, SILENT)
        async with kit.open(), AsyncExitStack() as stack:
            real = kit.service.manifest

            async def lying(caller, run):
                return MANIFEST.document() if caller.name == FEW[0] else await real(caller, run)

            kit.service.manifest = lying
            clients = {}
            for name in FEW:
                options = {"manifest_sha256": MANIFEST.sha256} if name == FEW[0] else {}
                clients[name] = await stack.enter_async_context(kit.client(name, **options))
                await clients[name].join(kit.invitation)
            ways = await all_take_part(clients)
            assert isinstance(ways[0], ServiceError)
            assert ways[0].reason == "signature"
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            assert sorted(
                one.client for one in await kit.service.store.verdicts("demo", round=0) if one.weight
            ) == sorted(FEW[1:])
            assert [record["clients"] for record in charges(kit)] == [list(FEW[1:])]

    asyncio.run(check())


def test_a_coordinator_that_takes_the_keys_of_other_terms_is_found_out_by_the_client(tmp_path, monkeypatch):
    """It has no use for signatures it cannot check; who shares masks with their senders does check them."""
    monkeypatch.setattr("matl.privacy.secagg.server.check_advertisement", lambda *_: None)

    async def check():
        kit = Kit(tmp_path, names=FEW, target=8, deadline=5.0)
        async with kit.open(), kit.clients(manifest_sha256=MANIFEST.sha256) as clients:
            real = kit.service.manifest

            async def lying(caller, run):
                return await real(caller, run) if caller.name == FEW[0] else SILENT.document()

            kit.service.manifest = lying
            for name in FEW[1:]:
                clients[name]._masked._agreed = SILENT.sha256
            ways = await all_take_part(clients)
            assert isinstance(ways[0], ProtocolError)
            assert ways[0].code == "signature"

    asyncio.run(check())


def test_a_run_has_one_manifest_for_its_sums_and_for_its_clients():
    mechanism = Distributed(SILENT.encoder(D))
    made = plan("demo", {})
    with pytest.raises(ValueError, match=f"the manifest that clients are given, {MANIFEST.sha256}, got one of"):
        replace(made, workload=replace(made.workload, channel=Private(mechanism)))


def test_the_manifest_is_signed_with_the_key_of_receipts(tmp_path):
    async def check():
        async with Kit(tmp_path, names=FEW, target=8).open() as kit:
            document = await kit.service.manifest(ADMIN, "demo")
            key = kit.service.host.keys.receipts.ed25519.public_key()
            assert Manifest.read(document, sha256=None, signer=key) == MANIFEST

    asyncio.run(check())


def test_every_sum_is_charged_to_whoever_is_in_it_before_it_is_unmasked(tmp_path, monkeypatch):
    seen, advance = [], Server.advance

    def looked(server):
        if server.phase is Phase.UNMASK:
            seen.append([record["round"] for record in charges(kit)])
        return advance(server)

    monkeypatch.setattr(Server, "advance", looked)
    kit = Kit(tmp_path, names=FEW, target=8, rounds=2)

    async def check():
        async with kit.open(), kit.clients() as clients:
            assert charges(kit) == []
            for number in range(2):
                await all_take_part(clients)
                assert (await kit.ended(number)).status == "committed"
            assert seen == [[0], [0, 1]]
            told = json.loads(ledger_of(kit).with_suffix(".json").read_text())
            assert (told["run"], told["mechanisms"]) == ("demo", {MANIFEST.sha256: {"manifest": MANIFEST.sha256}})
            assert told["clients"].keys() == set(FEW)
            twice = Distributed(MANIFEST.encoder(D)).account(2, INSTANCE.delta)
            assert told["largest"]["zero_out"] == pytest.approx(twice.epsilon)
        with PrivacyLedger.open(ledger_of(kit)) as ledger:
            assert ledger.releases(FEW[3], MANIFEST.sha256) == 2

    asyncio.run(check())


@pytest.mark.parametrize("charged", [False, True])
def test_a_sum_is_charged_once_although_the_coordinator_ends_before_or_after_it(tmp_path, monkeypatch, charged):
    kit, there = Kit(tmp_path, names=FEW, target=8, rounds=2), asyncio.Event()
    charge = RunLedger.charge

    def killed(ledger, *arguments):
        if charged:
            charge(ledger, *arguments)
        there.set()
        raise StorageError("the machine lost its power")

    async def check():
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(AsyncExitStack())
            await process.enter_async_context(kit.open())
            clients = await stack.enter_async_context(kit.clients())
            monkeypatch.setattr(RunLedger, "charge", killed)
            tasks = asyncio.create_task(all_take_part(clients))
            async with asyncio.timeout(30):
                await there.wait()
            live = kit.service.live("demo")
            assert live._aggregation.phase is Phase.UNMASK  # no sum without its price on the disk
            await process.aclose()
            assert len(charges(kit)) == charged
            monkeypatch.setattr(RunLedger, "charge", charge)
            await process.enter_async_context(kit.open())
            await tasks
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            assert [(record["round"], record["clients"]) for record in charges(kit)] == [(0, list(FEW))]
            await all_take_part(clients)
            assert (await kit.ended(1)).status == "committed"
            assert [record["round"] for record in charges(kit)] == [0, 1]
            await process.aclose()

    asyncio.run(check())


@pytest.mark.parametrize("how", ["both files", "the journal", "cut off"])
def test_a_run_whose_ledger_was_lost_does_not_go_on(tmp_path, how):
    kit = Kit(tmp_path, names=FEW, target=8)

    async def check():
        async with kit.open(), kit.clients() as clients:
            await all_take_part(clients)
            await kit.ended(0)
        path = ledger_of(kit)
        if how == "cut off":
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        else:
            path.unlink()
        if how == "both files":
            path.with_name(path.name + ".head").unlink()
        settings = ServiceSettings(
            database=kit.database_url, blobs=str(tmp_path / "blobs"), folder=tmp_path / "keep", planner=kit.planner
        )
        async with Service.open(settings) as service:
            with pytest.raises(ServiceError, match=r"demo\.ledger") as caught:
                service.live("demo")
            assert caught.value.reason == "broken_run"

    asyncio.run(check())


def test_a_run_does_not_begin_with_a_ledger_of_another_or_of_another_delta(tmp_path):
    RunLedger(tmp_path, "demo", MANIFEST).begin()
    RunLedger(tmp_path, "demo", MANIFEST).begin()  # after a start that came no further
    (tmp_path / "demo.ledger").rename(tmp_path / "other.ledger")
    (tmp_path / "demo.ledger.head").rename(tmp_path / "other.ledger.head")
    with pytest.raises(StateError, match="is the privacy ledger of run 'demo' at delta"):
        RunLedger(tmp_path, "other", MANIFEST).begin()
    (tmp_path / "demo.ledger").write_bytes(b"nonsense")
    with pytest.raises(StateError):
        RunLedger(tmp_path, "demo", MANIFEST).begin()


def test_a_run_that_has_ended_can_be_looked_at_without_its_ledger(tmp_path):
    kit = Kit(tmp_path, names=FEW, target=8, rounds=1)

    async def check():
        async with kit.open(), kit.clients() as clients:
            await all_take_part(clients)
            await kit.ended(0)
        ledger_of(kit).unlink()
        async with kit.open():
            assert kit.service.live("demo").row.status == "finished"

    asyncio.run(check())


def test_a_backup_has_the_ledger_and_what_is_put_back_goes_on_with_it(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    kit, second = (Kit(tmp_path / name, names=FEW, target=8, rounds=2) for name in ("first", "second"))

    def settings(folder):
        return NetworkSettings(
            folder=folder / "keep", database=f"sqlite:///{folder}/matl.sqlite", blobs=str(folder / "blobs")
        )

    async def check():
        async with kit.open(), kit.clients() as clients:
            await all_take_part(clients)
            await kit.ended(0)
            await save(settings(tmp_path / "first"), tmp_path / "saved")
        await put_back(tmp_path / "saved", settings(tmp_path / "second"))
        assert charges(second) == charges(kit)
        async with second.open():
            assert second.service.live("demo").row.round == 1

    asyncio.run(check())
