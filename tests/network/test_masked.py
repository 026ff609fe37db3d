"""Masked rounds over a network: real clients, a real coordinator, and whoever leaves, lies or crashes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.client.real import coordinator
from tests.network.masked_kit import (
    ADMIN,
    INSTANCE,
    LAYOUT,
    MANIFEST,
    NAMES,
    D,
    GoneError,
    Kit,
    Spy,
    at,
    leave,
    plan,
    take_part,
    updates,
)

from matl.attest.keys import Algorithm, SigningKey
from matl.client import AsyncMATLClient, MATLClient
from matl.client.encoding import vector_of
from matl.coordinator.rounds.plan import PHASES
from matl.errors import InvalidValueError, ProtocolError, ServiceError, StateError
from matl.journal import read_journal
from matl.privacy.encoder import Encoder
from matl.privacy.secagg import Client, Phase
from matl.protocol.messages import ActionRequest, InviteRequest


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_the_model_after_a_round_is_what_the_sum_of_the_words_decodes_to(tmp_path, monkeypatch, scheme):
    spy = Spy(monkeypatch)

    async def check():
        made = updates()
        async with Kit(tmp_path, scheme).open() as kit, kit.clients() as clients:
            live = kit.service.live("demo")
            seed = live.spec.public_seed
            acks = await asyncio.gather(*(take_part(clients[name], made[name]) for name in NAMES))
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            expected = spy.decoded(0, NAMES, seed)
            np.testing.assert_allclose(await kit.params(1), expected, rtol=1e-5, atol=1e-6)
            # About 0.45 with a deviation of 0.1, as noise is drawn from the operating system.
            assert np.corrcoef(expected, sum(made.values()) / len(made))[0, 1] > 0.05
            assert view.accepted == len(NAMES)
            assert await kit.service.store.phase_messages("demo", 0) == []
            about = await clients["client-03"].verdict(0, wait=5)
            assert (about.status, about.verdict.value) == ("judged", "accepted")
            assert about.payload_sha256 == acks[3].payload_sha256
            assert (await clients["client-03"].receipt(0)).update_hash == acks[3].payload_sha256
            update = await kit.service.store.update("demo", 0, "client-03")
            assert update.num_examples is None

    asyncio.run(check())


def test_clients_leave_in_every_phase_and_the_sum_is_of_those_whose_words_arrived(tmp_path, monkeypatch):
    spy = Spy(monkeypatch)

    async def check():
        made, leaving = updates(), dict(zip(NAMES[1:6], PHASES, strict=True))
        async with Kit(tmp_path, late=True, deadline=4.0, quorum=7).open() as kit, kit.clients() as clients:
            for name, phase in leaving.items():
                at(clients[name], phase, leave)
            seed = kit.service.live("demo").spec.public_seed
            ways = await asyncio.gather(*(take_part(clients[n], made[n]) for n in NAMES), return_exceptions=True)
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            assert [name for name, way in zip(NAMES, ways, strict=True) if isinstance(way, GoneError)] == list(leaving)
            stay = [name for name in NAMES if leaving.get(name) not in ("advertise", "share", "mask")]
            np.testing.assert_allclose(await kit.params(1), spy.decoded(0, stay, seed), rtol=1e-5, atol=1e-6)
            assert sorted(row.client for row in await kit.service.store.verdicts("demo", round=0)) == stay

    asyncio.run(check())


@pytest.mark.parametrize("phase", PHASES)
def test_garbage_in_a_phase_is_refused_and_the_round_goes_on(tmp_path, monkeypatch, phase):
    spy = Spy(monkeypatch)

    async def garbage(target, message):
        return b"\x93\x01\x01 garbage"

    async def check():
        made, names = updates(), NAMES[:8]
        async with (
            Kit(tmp_path, names=names, target=8, late=True, deadline=4.0).open() as kit,
            kit.clients() as clients,
        ):
            at(clients[names[2]], phase, garbage)
            seed = kit.service.live("demo").spec.public_seed
            ways = await asyncio.gather(*(take_part(clients[n], made[n]) for n in names), return_exceptions=True)
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            if phase in PHASES[:3]:
                assert isinstance(ways[2], ServiceError), ways[2]
                assert ways[2].code in ("malformed", "invalid")
            stay = [n for n in names if n != names[2] or phase in PHASES[3:]]
            np.testing.assert_allclose(await kit.params(1), spy.decoded(0, stay, seed), rtol=1e-5, atol=1e-6)
            verdict = await kit.service.store.verdict("demo", 0, names[2])
            assert verdict.status.value == ("accepted" if phase in PHASES[3:] else "rejected")
            assert view.rejected == 1

    asyncio.run(check())


def test_a_coordinator_that_ends_in_every_phase_goes_on(tmp_path, monkeypatch):
    spy = Spy(monkeypatch)

    async def outlived():
        made, names, reached = updates(), NAMES[:8], asyncio.Queue()
        kit = Kit(tmp_path, names=names, target=8)

        def knocking(phase):
            async def knock(target, message):
                await reached.put(phase)
                await asyncio.sleep(0.3)

            return knock

        async with AsyncExitStack() as clients_stack:
            process = AsyncExitStack()
            await process.enter_async_context(kit.open())
            seed = kit.service.live("demo").spec.public_seed
            clients = await clients_stack.enter_async_context(kit.clients())
            for phase, name in zip(PHASES, names, strict=False):
                at(clients[name], phase, knocking(phase))
            tasks = [asyncio.create_task(take_part(clients[name], made[name])) for name in names]
            for phase in PHASES:
                assert await asyncio.wait_for(reached.get(), 30) == phase
                await process.aclose()
                await process.enter_async_context(kit.open())
            await asyncio.gather(*tasks)
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            np.testing.assert_allclose(await kit.params(1), spy.decoded(0, names, seed), rtol=1e-5, atol=1e-6)
            await process.aclose()

    asyncio.run(outlived())


def test_who_was_asked_for_a_phase_is_asked_the_same_after_a_crash(tmp_path):
    """A phase that its deadline ended is written down before anybody hears of it."""

    async def check():
        names, asked = NAMES[:8], []
        kit = Kit(tmp_path, names=names, target=9, late=True, deadline=4.0)
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(AsyncExitStack())
            await process.enter_async_context(kit.open())
            clients = await stack.enter_async_context(kit.clients())
            found = await clients[names[0]].next_round(wait=10)
            keys = await clients[names[0]]._masked._identities("demo")

            async def advertise(name):
                masked = clients[name]._masked
                client = Client(kit.service.live("demo").session(), name, masked._identity(), keys)
                await masked._say(found, Phase.ADVERTISE, client.advertise())

            await asyncio.gather(*(advertise(name) for name in names[:7]))
            for _ in range(2):
                line = clients[names[0]]._connection
                asked.append(await line.ask(lambda one: one.asked("demo", 0, "share", wait=20, limit=1 << 20)))
                # As a process that was killed: the lives are not told to end.
                kit.service._lives.clear()
                await process.aclose()
                kit.planner = lambda run, settings: plan(run, {**settings, "deadline": 60.0})
                await process.enter_async_context(kit.open())
            assert asked[0] == asked[1]
            with pytest.raises(ServiceError) as caught:
                await advertise(names[7])
            assert caught.value.reason == "late"
            await process.aclose()

    asyncio.run(check())


def test_a_round_with_too_few_survivors_fails_with_a_reason_and_the_next_one_opens(tmp_path):
    async def check():
        made, names = updates(), NAMES[:8]
        async with (
            Kit(tmp_path, names=names, target=8, late=True, deadline=4.0).open() as kit,
            kit.clients() as clients,
        ):
            for name in names[:4]:
                at(clients[name], "mask", leave)
            await asyncio.gather(*(take_part(clients[n], made[n]) for n in names), return_exceptions=True)
            view = await kit.ended(0)
            assert view.status == "failed"
            assert "expected at least 6 clients in the phase mask, got 4" in view.reason
            assert (await kit.params(1)).tolist() == [0.0] * D
            assert await kit.service.store.phase_messages("demo", 0) == []
            assert (await clients[names[7]].next_round(wait=10)).number == 1

    asyncio.run(check())


def test_what_was_said_is_acknowledged_again_and_something_else_conflicts(tmp_path):
    async def check():
        names = NAMES[:8]
        async with Kit(tmp_path, names=names, target=8).open() as kit, kit.clients() as clients:
            found = await clients[names[0]].next_round(wait=10)
            masked, said = clients[names[0]]._masked, []
            for _ in range(2):
                session = kit.service.live("demo").session()
                keys = await masked._identities("demo")
                said.append(Client(session, names[0], masked._identity(), keys).advertise())
            first = await masked._say(found, Phase.ADVERTISE, said[0])
            again = await masked._say(found, Phase.ADVERTISE, said[0])
            assert (first.duplicate, again.duplicate, again.payload_sha256) == (False, True, first.payload_sha256)
            with pytest.raises(ServiceError, match="said something else") as caught:
                await masked._say(found, Phase.ADVERTISE, said[1])
            assert caught.value.reason == "duplicate"
            for phase, reason in ((Phase.MASK, "turn"), (Phase.DONE, "phase")):
                with pytest.raises(ServiceError) as caught:
                    await masked._say(found, phase, b"early")
                assert caught.value.reason == reason
            connection = clients[names[0]]._connection
            with pytest.raises(ServiceError) as caught:
                await connection.ask(lambda line: line.asked("demo", 0, "share", wait=0.1, limit=10_000))
            assert caught.value.reason == "not_yet"

    asyncio.run(check())


def test_messages_of_another_round_and_updates_in_the_clear_are_refused(tmp_path):
    async def check():
        names = NAMES[:8]
        async with Kit(tmp_path, names=names, target=8).open() as kit, kit.clients() as clients:
            one = clients[names[0]]
            found = await one.next_round(wait=10)
            keys = await one._masked._identities("demo")
            other = replace(kit.service.live("demo").session(), round=7)
            replayed = Client(other, names[0], one._masked._identity(), keys).advertise()
            with pytest.raises(ServiceError, match="replayed from another round") as caught:
                await one._masked._say(found, Phase.ADVERTISE, replayed)
            assert caught.value.reason == "signature"
            with pytest.raises(InvalidValueError, match="is masked"):
                await one.submit_payload(b"in the clear")
            with pytest.raises(ServiceError, match="phase by phase"):
                await one._outbox.send(found.spec, b"in the clear", num_examples=None)

    asyncio.run(check())


def test_a_client_to_whom_the_server_lies_says_nothing_more_in_the_round(tmp_path):
    async def check():
        made, names = updates(), NAMES[:8]
        async with (
            Kit(tmp_path, names=names, target=8, late=True, deadline=4.0).open() as kit,
            kit.clients() as clients,
        ):
            one, seen = clients[names[0]], []
            request_of, said = kit.service.live("demo").request_of, []

            async def lying(client, number, phase, timeout):
                request = await request_of(client, number, phase, timeout)
                if client == names[0] and phase == "consistency":
                    seen.append(phase)
                    return await request_of(client, number, "consistency", 0) + b"more"
                return request

            async def note(target, message):
                said.append("unmask")

            at(one, "unmask", note)
            kit.service.live("demo").request_of = lying
            ways = await asyncio.gather(*(take_part(clients[n], made[n]) for n in names), return_exceptions=True)
            assert isinstance(ways[0], ProtocolError)
            assert (seen, said) == (["consistency"], [])
            assert (await kit.ended(0)).status == "committed"

    asyncio.run(check())


def test_clients_that_pinned_who_takes_part_leave_a_round_with_somebody_invented(tmp_path):
    async def check():
        made, names = updates(), NAMES[:8]
        async with (
            Kit(tmp_path, names=names, target=8, late=True, deadline=4.0).open() as kit,
            kit.clients() as clients,
        ):
            table = (await kit.service.participants(ADMIN, "demo")).clients
            assert sorted(table) == list(names)
            short = tmp_path / "participants.json"
            short.write_text(json.dumps({name: table[name] for name in names[:-1]}))
            await clients[names[0]].close()
            async with kit.client(names[0], participants=short) as careful:
                clients[names[0]] = careful
                ways = await asyncio.gather(*(take_part(clients[n], made[n]) for n in names), return_exceptions=True)
            assert isinstance(ways[0], ProtocolError)
            assert ways[0].code == "unknown"
            assert (await kit.ended(0)).status == "committed"

    asyncio.run(check())


@pytest.mark.parametrize("content", ["[]", "nonsense", '{"ann": "AAAA"}', '{"ann": 3}'])
def test_tables_of_participants_that_cannot_be_read_are_refused(tmp_path, content):
    table = tmp_path / "participants.json"
    table.write_text(content)
    with pytest.raises((InvalidValueError, ProtocolError), match=r"participants\.json"):
        AsyncMATLClient("http://127.0.0.1:1", folder=tmp_path / "ann", participants=table)


def test_a_client_refuses_constants_that_it_did_not_agree_to(tmp_path):
    other = replace(MANIFEST, clip_norm=Fraction(2))

    async def check():
        kit = Kit(tmp_path, names=NAMES[:8], target=8)
        async with kit.open():
            invitation = kit.invitation
            async with kit.client("ann", manifest_sha256=other.sha256) as ann:
                await ann.join(invitation)
                with pytest.raises(InvalidValueError, match="manifest"):
                    await ann.next_round(wait=10)
            async with kit.client("ann", manifest_sha256=MANIFEST.sha256) as ann:
                assert (await ann.next_round(wait=10)).number == 0
        kit.planner = lambda run, settings: plan(run, settings, other)
        async with kit.open(), kit.client("ann") as ann:
            with pytest.raises(ProtocolError, match="agreed to") as caught:
                await ann.next_round(wait=10)
            assert caught.value.code == "manifest"

    asyncio.run(check())


def test_constants_that_the_coordinator_chose_are_told_once_with_all_their_figures(tmp_path, caplog):
    async def check():
        figures = (MANIFEST.sha256, "epsilon 61.95", "188.9 for replace-one", "delta 0.001", "30 rounds", "max_epsilon")
        async with Kit(tmp_path, names=NAMES[:8], target=8).open() as kit:
            for name, options, told in (
                ("ann", {}, 1),
                ("ann", {}, 0),
                ("bob", {"manifest_sha256": MANIFEST.sha256}, 0),
            ):
                caplog.clear()
                async with kit.client(name, **options) as client:
                    await client.join(kit.invitation)
                    await client.next_round(wait=10)
                said = [each.getMessage() for each in caplog.records if "agrees to" in each.getMessage()]
                assert len(said) == told
                assert all(each.levelname == "WARNING" for each in caplog.records if "agrees to" in each.getMessage())
                assert all(figure in each for figure in figures for each in said)

    asyncio.run(check())


def test_a_manifest_that_costs_more_than_a_client_may_spend_is_not_agreed_to(tmp_path):
    async def check():
        async with Kit(tmp_path, names=NAMES[:8], target=8).open() as kit:
            async with kit.client("ann", max_epsilon=20.0) as ann:
                await ann.join(kit.invitation)
                with pytest.raises(InvalidValueError, match=r"30 rounds .* expected at most max_epsilon=20"):
                    await ann.next_round(wait=10)
                assert ann._folder.manifests == {}
            async with kit.client("ann", max_epsilon=100.0) as ann:
                assert (await ann.next_round(wait=10)).number == 0
                assert ann._folder.manifests == {"demo": MANIFEST.sha256}

    asyncio.run(check())


def test_what_is_sent_was_charged_and_counted_before_and_a_loss_of_that_is_refused(tmp_path):
    async def check():
        made, names, seen = updates(), NAMES[:8], []

        async def look(target, message):
            seen.append(read_journal(tmp_path / names[0] / "privacy.ledger")[0][-1])
            seen.append(read_journal(tmp_path / names[0] / f"sent-{MANIFEST.sha256}")[0][-1])
            seen.append(hashlib.sha256(message).hexdigest())

        async with Kit(tmp_path, names=names, target=8).open() as kit, kit.clients() as clients:
            at(clients[names[0]], "mask", look)
            await asyncio.gather(*(take_part(clients[name], made[name]) for name in names))
            assert (await kit.ended(0)).status == "committed"
            charged, counted, digest = seen
            assert charged["release"] == f"{MANIFEST.sha256} {digest}"
            assert (charged["charge"], charged["round"], charged["clients"]) == (MANIFEST.sha256, 0, [names[0]])
            assert counted == {"message": digest}
            await clients[names[0]].close()
            for file in (tmp_path / names[0]).glob("sent-*"):
                file.unlink()
            async with kit.client(names[0]) as again:
                with pytest.raises(StateError, match=r"sent-.* is lost: .*client\.json remembers 2 records"):
                    await again.next_round(wait=10)

    asyncio.run(check())


def test_a_client_whose_training_diverged_sends_zeros_and_stays_in_the_sum(tmp_path, monkeypatch, caplog):
    spy = Spy(monkeypatch)
    coded = []
    fixed_point = Encoder.fixed_point

    def seen(encoder, update, seed):
        found = fixed_point(encoder, update, seed)
        coded.append((bool(np.isfinite(update).all()), bool(found.any())))
        return found

    monkeypatch.setattr(Encoder, "fixed_point", seen)

    async def check():
        names = NAMES[:8]
        async with (
            Kit(tmp_path, names=names, target=8, rounds=1, late=True, deadline=5.0).open() as kit,
            kit.clients() as clients,
        ):
            seed = kit.service.live("demo").spec.public_seed
            bad = {names[0]: np.nan, names[1]: -np.inf}

            async def one(name):
                def train(params, current):
                    params["w"] += 0.01
                    params["w"][2, 3] = bad.get(name, 0.0)
                    return params, 5

                return await clients[name].fit_loop(train)

            assert await asyncio.gather(*(one(name) for name in names)) == [1] * 8
            view = await kit.ended(0)
            assert (view.status, view.accepted) == ("committed", 8)
            np.testing.assert_allclose(await final(kit), spy.decoded(0, names, seed), rtol=1e-5, atol=1e-6)
        assert sorted(coded) == [(False, False)] * 2 + [(True, True)] * 6
        assert sum("1 of 88 values of the update are NaN" in each.getMessage() for each in caplog.records) == 2

    async def final(kit):
        async with kit.client("reader") as reader:
            await reader.join(kit.invitation)
            model = await reader.final_model()
            return LAYOUT.flatten(model)

    asyncio.run(check())


def test_a_gradient_that_is_not_finite_goes_through_as_well(tmp_path):
    async def check():
        async with Kit(tmp_path, names=NAMES[:8], target=8).open() as kit, kit.clients() as clients:
            found = await clients[NAMES[0]].next_round(wait=10)
            update = np.full(D, np.inf, np.float32)
            vector = vector_of(update, found, kind="gradient", learning_rate=0.0)
            assert np.isnan(vector).all()

    asyncio.run(check())


def test_a_client_sends_no_more_than_its_manifest_allows_and_never_twice_in_a_round(tmp_path):
    once = replace(MANIFEST, instance=replace(INSTANCE, transmissions=1))

    async def check():
        made, names = updates(), NAMES[:8]
        kit = Kit(tmp_path, names=names, target=8)
        kit.planner = lambda run, settings: plan(run, settings, once)
        async with kit.open(), kit.clients() as clients:
            await asyncio.gather(*(take_part(clients[name], made[name]) for name in names))
            assert (await kit.ended(0)).status == "committed"
            with pytest.raises(StateError, match="used all 1 transmissions"):
                await clients[names[0]].next_round(wait=10)
            found = clients[names[1]]._part.current
            with pytest.raises((ServiceError, StateError)):
                await clients[names[1]].submit_gradient(LAYOUT.unflatten(made[names[1]]), round=found)
            assert clients[names[1]]._folder.last_round("demo") == 0

    asyncio.run(check())


def test_clients_with_other_keys_or_in_quarantine_have_no_part(tmp_path):
    async def check():
        names = NAMES[:8]
        async with Kit(tmp_path, names=names, target=8).open() as kit, kit.clients() as clients:
            async with kit.client("phone", key=SigningKey.generate(Algorithm.ECDSA_P256)) as phone:
                await phone.join((await kit.service.invite(ADMIN, InviteRequest())).token)
                with pytest.raises(InvalidValueError, match="Ed25519"):
                    await phone.next_round(wait=10)
                with pytest.raises(ServiceError) as caught:
                    await phone._connection.ask(lambda line: line.say("demo", 0, "advertise", b"x"))
                assert caught.value.reason == "key_algorithm"
                assert "phone" not in (await kit.service.participants(ADMIN, "demo")).clients
            await kit.service.quarantine(ADMIN, "demo", names[0], ActionRequest(reason="for a look").reason)
            with pytest.raises(ServiceError, match="for a look") as caught:
                await take_part(clients[names[0]], updates()[names[0]])
            assert caught.value.reason == "quarantined_by_operator"

    asyncio.run(check())


def test_the_loop_trains_once_a_round_and_walks_through_the_phases_by_itself(tmp_path):
    async def check():
        names, trained = NAMES[:8], []
        kit = Kit(tmp_path, names=names, target=8, rounds=2)

        def train(params, current):
            trained.append(current.number)
            params["w"] += 0.01
            return params, 5

        async with kit.open(), kit.clients() as clients:
            counts = await asyncio.gather(*(client.fit_loop(train) for client in clients.values()))
            assert counts == [2] * len(names)
            assert sorted(trained) == [0] * len(names) + [1] * len(names)
            model = await clients[names[0]].final_model()
            assert model["w"].shape == (10, 8)

    asyncio.run(check())


def test_a_configured_run_trains_twenty_clients_that_need_no_more_than_a_function(tmp_path):
    run = {
        "dataset": "synthetic", "clients": 20, "task": "softmax", "mode": "plain", "rounds": 1,
        "privacy": {"epsilon": 8.0, "mechanism": "distributed", "corrupt": 2, "dropout": 0.2, "budget_bits": 64.0},
        "network": {"target": 20, "deadline": 60.0},
    }  # fmt: skip

    def train(params, current):
        return {name: value + np.float32(0.01) for name, value in params.items()}, 12

    def one(served, invitation, name):
        with MATLClient(served.url, client_id=name, folder=tmp_path / name) as client:
            client.join(invitation)
            return client.fit_loop(train), client.last_verdict.verdict.value, client.run().visibility.value

    with coordinator(tmp_path / "coordinator", private=run) as served, ThreadPoolExecutor(20) as pool:
        invitation = served.invite(20)
        ways = list(pool.map(lambda index: one(served, invitation, f"hospital-{index}"), range(20)))
    assert ways == [(1, "accepted", "summed")] * 20
