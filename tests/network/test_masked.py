"""Masked rounds over a network: real clients, a real coordinator, and whoever leaves, lies or crashes."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.network.masked_kit import (
    ADMIN,
    INSTANCE,
    LAYOUT,
    MANIFEST,
    NAMES,
    D,
    Kit,
    Left,
    Spy,
    at,
    leave,
    plan,
    take_part,
    updates,
)

from matl.attest.keys import Algorithm, SigningKey
from matl.coordinator.plan import PHASES
from matl.errors import InvalidValueError, ProtocolError, ServiceError, StateError
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
            assert np.corrcoef(expected, sum(made.values()) / len(made))[0, 1] > 0.3
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
        async with Kit(tmp_path, deadline=2.0, quorum=7).open() as kit, kit.clients() as clients:
            for name, phase in leaving.items():
                at(clients[name], phase, leave)
            seed = kit.service.live("demo").spec.public_seed
            ways = await asyncio.gather(*(take_part(clients[n], made[n]) for n in NAMES), return_exceptions=True)
            view = await kit.ended(0)
            assert view.status == "committed", view.reason
            assert [name for name, way in zip(NAMES, ways, strict=True) if isinstance(way, Left)] == list(leaving)
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
        async with Kit(tmp_path, names=names, target=8, deadline=2.0).open() as kit, kit.clients() as clients:
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


def test_a_round_with_too_few_survivors_fails_with_a_reason_and_the_next_one_opens(tmp_path):
    async def check():
        made, names = updates(), NAMES[:8]
        async with Kit(tmp_path, names=names, target=8, deadline=1.0).open() as kit, kit.clients() as clients:
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
