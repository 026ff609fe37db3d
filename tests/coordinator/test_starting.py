"""Runs that are started, and what is wrong with one that cannot be."""

import asyncio

import pytest
from tests.coordinator.service_kit import NAMES, Kit, network, planner, serving
from tests.coordinator.test_access import refused

from matl.coordinator.storage.blobs import Blobs
from matl.errors import InvalidValueError, ServiceError
from matl.protocol.problems import Code, refusal


def test_runs_are_started_paused_and_stopped(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            await refused(kit.start(), "conflict", "run")
            error = await refused(kit.start("second", target=0), "invalid", "settings")
            assert "target=0" in str(error)
            await refused(kit.service.resume(kit.admin, "demo"), "conflict", "status")
            await kit.service.pause(kit.admin, "demo")
            await refused(kit.service.pause(kit.admin, "demo"), "conflict", "status")
            assert (await kit.service.current_round(ann.caller, "demo")).status == "open"
            await kit.service.resume(kit.admin, "demo")
            await ann.send()
            assert (await kit.service.stop(kit.admin, "demo", "enough")).status == "stopped"
            ended = await kit.ended(0)
            assert (ended.status, ended.reason) == ("failed", "the run was stopped")
            await refused(kit.service.stop(kit.admin, "demo"), "conflict", "status")
            await refused(kit.service.resume(kit.admin, "demo"), "conflict", "status")

    asyncio.run(scenario())


def test_a_start_that_broke_off_half_way_may_be_asked_for_again(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            open_round = kit.service.store.open_round

            async def locked(*args):
                raise refusal(Code.BUSY, "the database is locked", reason="database", retry_after=1.0)

            monkeypatch.setattr(kit.service.store, "open_round", locked)
            await refused(kit.start(), "busy", "database")
            monkeypatch.setattr(kit.service.store, "open_round", open_round)
            await refused(kit.start(rounds=7), "conflict", "run")
            assert (await kit.start()).status == "running"
            assert (await kit.service.current_round(kit.admin, "demo")).status == "open"
            await refused(kit.start(), "conflict", "run")

    asyncio.run(scenario())


def test_a_run_whose_settings_do_not_fit_any_more_keeps_nobody_from_the_others(tmp_path):
    def forgetful(run, settings):
        if run == "demo":
            raise InvalidValueError("its data set has moved away")
        return planner(run, settings)

    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            await network(kit)
            await kit.start("second")
        kit.changes["planner"] = forgetful
        async with kit.open():
            assert [run.id for run in await kit.service.runs(kit.admin)] == ["second"]
            error = await refused(kit.service.run(kit.admin, "demo"), "conflict", "broken_run")
            assert "its data set has moved away" in str(error)
            await kit.service.ready()  # the coordinator can work, and does
            metrics = await kit.service.metrics(kit.admin)
            assert (metrics.counters["runs.going_on"], metrics.counters["runs.broken"]) == (1, 1)
            assert metrics.broken_runs == {"demo": "its data set has moved away"}
            await refused(kit.start(), "conflict", "run")
            await kit.round_of(NAMES, "second")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (KeyError("label"), "KeyError: 'label'"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ValueError("the file is cut off " + 300 * "."), "ValueError: the file is cut off ..."),
        (ServiceError("invalid", "no run is like this"), "no run is like this"),
        ("blob", "there is no such blob"),
        ("damage", "is damaged: its bytes have another hash"),
    ],
    ids=lambda fault: type(fault).__name__ if isinstance(fault, Exception) else fault,
)
def test_whatever_is_wrong_with_a_run_it_keeps_nobody_from_the_others(tmp_path, caplog, fault, words):
    def faulty(run, settings):
        if run == "demo" and isinstance(fault, Exception):
            raise fault
        return planner(run, settings)

    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            await network(kit)
            await kit.start("second")
            state = kit.service.blobs.path(kit.service.live("demo").row.state)
        if fault == "blob":
            state.unlink()
        elif fault == "damage":
            state.write_bytes(state.read_bytes()[:-1] + b"?")
        kit.changes["planner"] = faulty
        async with kit.open():
            error = await refused(kit.service.run(kit.admin, "demo"), "conflict", "broken_run")
            assert words in str(error)
            assert len(str(error)) < 400
            assert f"run demo cannot go on: {words[:10]}" in caplog.text or fault in ("blob", "damage")
            await kit.round_of(NAMES, "second")

    asyncio.run(scenario())


def test_a_start_while_the_blobs_are_out_of_reach_is_refused_and_breaks_no_run(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            await network(kit)

        async def unmounted(*_):
            raise refusal(Code.BUSY, "the blobs are out of reach", reason="blobs")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Blobs, "read", unmounted)
            with pytest.raises(ServiceError, match="out of reach"):
                async with kit.open():
                    pass
        async with kit.open():
            await kit.round_of(NAMES)

    asyncio.run(scenario())
