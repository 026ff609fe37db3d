"""Rounds that some clients are drawn for: who is told, who is refused, and what a restart makes of it."""

from __future__ import annotations

import asyncio

import pytest
from tests.coordinator.service_kit import RUN, Kit, pieces, planner, serving

from matl.errors import ServiceError
from matl.protocol.envelope import LENGTH

DRAWN = {"target": 2, "quorum": 1, "deadline": 60.0, "over_selection": 1.5}  # three are invited
NAMES = tuple(f"client-{index}" for index in range(6))


async def enrolled(kit: Kit, names=NAMES):
    for name in names:
        await kit.enrol(name)


async def told(kit: Kit, names=NAMES):
    """By client, whether it is told that it was drawn for the round as it is."""
    views = {name: await kit.service.current_round(kit.clients[name].caller, RUN) for name in names}
    return {name: view.selected for name, view in views.items()}


def split(selected):
    return [name for name, drawn in selected.items() if drawn], [name for name, drawn in selected.items() if not drawn]


async def refused(asking, code, reason):
    with pytest.raises(ServiceError) as error:
        await asking
    assert (error.value.code, error.value.reason) == (code, reason), str(error.value)
    return str(error.value)


def test_who_was_not_drawn_is_refused_before_a_byte_of_the_payload(tmp_path):
    async def check():
        async with serving(tmp_path) as kit:
            await enrolled(kit)
            await kit.start(**DRAWN)
            chosen, others = split(await told(kit))
            assert (len(chosen), len(others)) == (3, 3)
            view = await kit.service.current_round(kit.admin, RUN)
            assert (view.invited, view.selected, view.target) == (3, None, 2)
            message = await kit.clients[others[0]].message()
            head = LENGTH + int.from_bytes(message[:LENGTH], "big")

            async def stingy():
                yield message[:head]
                raise AssertionError("the payload was asked for")

            words = await refused(kit.service.submit(None, RUN, 0, stingy()), "conflict", "not_selected")
            assert words == (
                f"{others[0]} is not among the 3 clients that were drawn for round 0; wait for a round that says "
                "selected"
            )
            await refused(kit.service.begin_upload(RUN, 0, message[LENGTH:head]), "conflict", "not_selected")
            await kit.clients[chosen[0]].send()
            round_ = await kit.service.round(kit.admin, RUN, 0)
            assert (round_.accepted, round_.rejected) == (1, 0)  # it did nothing wrong, and nothing is written down
            assert await kit.service.store.update(RUN, 0, others[0]) is None
            await kit.clients[chosen[1]].send()
            assert (await kit.ended(0)).status == "committed"

    asyncio.run(check())


def test_a_restart_draws_nobody_else(tmp_path):
    async def check():
        kit = Kit(tmp_path)
        async with kit.open():
            await enrolled(kit)
            await kit.start(**DRAWN)
            before = await told(kit)
            chosen, others = split(before)
            await kit.clients[chosen[0]].send()
        async with kit.open():
            await kit.enrol("late")
            assert await told(kit) == before
            assert await told(kit, ["late"]) == {"late": False}
            await refused(kit.clients["late"].send(), "conflict", "not_selected")
            await refused(kit.clients[others[0]].send(), "conflict", "not_selected")
            await kit.clients[chosen[1]].send()
            await kit.ended(0)
            await kit.service.current_round(kit.admin, RUN, after=0, wait=10)
            assert sum((await told(kit, [*NAMES, "late"])).values()) == 3
            events = [event for event in await kit.service.store.events(run=RUN) if event.kind == "round_opened"]
            assert [event.data["invited"] for event in events] == [3, 3]

    asyncio.run(check())


def test_a_plan_that_draws_nobody_any_more_waits_for_nobody_in_particular(tmp_path):
    """It may have no deadline, and of those that were drawn before the restart one may have left."""

    def everybody(run, settings):
        return planner(
            run, {name: value for name, value in settings.items() if name not in ("over_selection", "deadline")}
        )

    async def check():
        kit = Kit(tmp_path)
        async with kit.open():
            await enrolled(kit)
            await kit.start(**DRAWN)
            _, others = split(await told(kit))
        kit.changes["planner"] = everybody
        async with kit.open():
            assert set((await told(kit)).values()) == {None}
            for name in others[:2]:
                await kit.clients[name].send()
            assert (await kit.ended(0)).accepted == 2

    asyncio.run(check())


def test_where_no_more_are_enrolled_everybody_may_send_and_who_comes_meanwhile(tmp_path):
    async def check():
        async with serving(tmp_path) as kit:
            await enrolled(kit, NAMES[:3])
            await kit.start(**DRAWN)
            await kit.enrol("late")
            assert set((await told(kit, [*NAMES[:3], "late"])).values()) == {None}
            await kit.clients["late"].send()
            await kit.clients[NAMES[0]].send()
            await kit.ended(0)
            await kit.service.current_round(kit.admin, RUN, after=0, wait=10)
            assert sum((await told(kit, [*NAMES[:3], "late"])).values()) == 3  # four are enrolled by now

    asyncio.run(check())


def test_who_was_revoked_or_held_is_not_drawn_and_who_asks_comes_first(tmp_path):
    async def check():
        async with serving(tmp_path) as kit:
            names = [f"client-{index:02d}" for index in range(12)]
            await enrolled(kit, names)
            await kit.service.revoke(kit.admin, names[0], "lost")
            await kit.service.quarantine(kit.admin, None, names[1], "odd")
            for name in [*names[:4], names[8]]:
                if name != names[0]:
                    await kit.service.authenticate(kit.clients[name].bearer["Authorization"])
            await kit.start(**DRAWN)
            assert split(await told(kit, names))[0] == [names[2], names[3], names[8]]

    asyncio.run(check())


def test_without_over_selection_everybody_takes_part(tmp_path):
    async def check():
        async with serving(tmp_path) as kit:
            await enrolled(kit)
            await kit.start(target=2, quorum=1, deadline=60.0)
            assert set((await told(kit)).values()) == {None}
            await kit.service.submit(None, RUN, 0, pieces(await kit.clients[NAMES[5]].message()))

    asyncio.run(check())
