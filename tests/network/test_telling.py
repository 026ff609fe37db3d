"""What a coordinator says of itself: what happens, and what a round waits for."""

import asyncio
from datetime import UTC, datetime

import pytest
from tests.coordinator.service_kit import Kit, serving

from matl.network.telling import latest_event, line_of, telling
from matl.protocol.messages import EventView

NAMES = ("ann", "bob", "cid")


def event(kind, run="demo", round=2, **data):  # noqa: A002 - the field's name
    return EventView(seq=1, time=datetime.now(UTC), kind=kind, run=run, round=round, data=data)


async def until(said, words):
    async with asyncio.timeout(20):
        while not any(words in line for line in said):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("happened", "line"),
    [
        (
            event("round_committed", accepted=5, clipped=1, suspected=1, quarantined=2, rejected=0, seconds=12.4),
            "demo: round 2 committed after 12 s, 7 of 9 updates counted (1 clipped, 1 suspected, 2 quarantined)",
        ),
        (event("round_failed", reason="1 of 2 updates in 600 seconds"), "demo: round 2 failed: 1 of 2 updates in 600"),
        (event("client_enrolled", run="", client="ann"), "ann enrolled"),
        (event("client_quarantined", client="ann", reason="too far"), "demo: round 2, ann quarantined: too far"),
        (
            event("client_quarantined", run="", round=0, client="ann", reason="stolen", by_operator=True),
            "ann quarantined by an operator: stolen",
        ),
        (event("update_rejected", client="ann", reason="\x1b[2Jnan"), "demo: round 2, update of ann rejected: ?[2Jnan"),
        (event("run_finished"), "demo: finished, after round 2"),
        (event("update_received", client="ann"), None),
        (event("round_opened", target=3), None),
    ],
)
def test_events_in_words(happened, line):
    told = line_of(happened)
    assert told is None if line is None else told.startswith(line)


def test_what_happens_is_told_from_now_on(tmp_path):
    async def scenario():
        said = []
        async with serving(tmp_path) as kit:
            await kit.enrol("eve")
            async with telling(kit.service, said.append, after=await latest_event(kit.service)):
                for name in NAMES:
                    await kit.enrol(name)
                await kit.start(rounds=1)
                await kit.round_of(NAMES)
                await until(said, "finished")
        return said

    said = asyncio.run(scenario())
    assert said[:4] == ["ann enrolled", "bob enrolled", "cid enrolled", "demo: begun"]
    assert said[4].startswith("demo: round 0 committed after 0 s, 3 of 3 updates counted")
    assert said[5:] == ["demo: finished, after round 0"]


def test_a_round_that_waits_is_told_of_and_less_and_less_often(tmp_path):
    async def scenario():
        said = []
        async with serving(tmp_path) as kit:
            ann = await kit.enrol("ann")
            await kit.start(deadline=500)
            async with telling(kit.service, said.append, after=await latest_event(kit.service), patience=0.2):
                await until(said, "round 0 waits for 3 of 3 updates; in ")
                await ann.send(1.0)
                await until(said, "round 0 waits for 2 of 3 updates; in ")
                said.clear()
                await asyncio.sleep(1.5)
        return said

    said = asyncio.run(scenario())
    assert 1 <= len(said) <= 3
    assert "seconds" not in said[0]
    assert "s it closes, and is judged if there are 2 by then" in said[0]


def test_a_run_that_is_paused_waits_for_nobody(tmp_path):
    async def scenario():
        said = []
        async with serving(tmp_path) as kit:
            await kit.start()
            await kit.service.pause(kit.admin, "demo")
            async with telling(kit.service, said.append, after=await latest_event(kit.service), patience=0.1):
                await asyncio.sleep(0.5)
        return said

    assert asyncio.run(scenario()) == []


def test_a_failure_is_logged_and_what_follows_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("matl.network.telling._WAIT", 0.05)

    async def scenario():
        said, kit = [], Kit(tmp_path)
        async with kit.open():
            events, broken = kit.service.events, [RuntimeError("a fault")]

            async def faulty(*args, **kwargs):
                if broken:
                    raise broken.pop()
                return await events(*args, **kwargs)

            monkeypatch.setattr(kit.service, "events", faulty)
            async with telling(kit.service, said.append, after=await latest_event(kit.service)):
                await kit.enrol("ann")
                await until(said, "ann enrolled")

    asyncio.run(scenario())
    assert "a fault" in caplog.text
