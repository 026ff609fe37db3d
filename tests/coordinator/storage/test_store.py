"""What the store promises, with SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from tests.coordinator.samples import (
    event_row,
    open_store,
    phase_row,
    round_row,
    run_row,
    sha,
    update_row,
    upload_row,
    verdict_row,
)

from matl.attest.replay import ReplayCache
from matl.coordinator.storage import schema
from matl.coordinator.storage import store as store_module
from matl.coordinator.storage.rows import (
    EventRow,
    RoundRow,
    RoundStatus,
    RunRow,
    RunStatus,
    UpdateRow,
    UploadRow,
    VerdictRow,
)
from matl.coordinator.storage.store import Store
from matl.errors import InvalidValueError, ServiceError, StateError, StorageError


async def accept(store: Store, client: str = "alice", machine: dict[str, Any] | None = None, **changes: Any) -> bool:
    floor = changes.pop("floor", -1)
    events = changes.pop("events", ())
    return await store.accept(update_row(client, **changes), machine=machine or {"n": 1}, floor=floor, events=events)


def ended(**changes: Any) -> Any:
    values = {"status": RoundStatus.COMMITTED, "ended_at": 9.0, "next_model_hash": sha("model 1"), "machine": {"e": 1}}
    return round_row(**{**values, **changes})


async def close(store: Store, number: int = 0) -> None:
    await store.close_round("run", number, seed=7, machine={"closed": True}, at=5.0)


async def end(store: Store, **changes: Any) -> Any:
    run = changes.pop("run", run_row(round=1, state=sha("state 1"), model_hash=sha("model 1")))
    models = {sha("model 1"): (sha("blob 1"), 41)}
    return await store.end_round(ended(**changes), run=run, verdicts=[verdict_row()], models=models)


def test_everything_comes_back_as_it_was(database_url: str) -> None:
    huge = 2**127 - 1
    strange = {"a": math.nan, "b": -math.inf, "c": 1e-310, "d": "\x00\ud800ü", "e": [1, None, True], "f": 0.1 + 0.2}

    async def check() -> None:
        async with await Store.open(database_url) as store:
            await store.ping()
            run = run_row(settings=strange)
            await store.create_run(run, models={sha("model 0"): (sha("blob 0"), 2**40)})
            assert repr(await store.run("run")) == repr(run)  # NaN equals nothing
            assert [item.id for item in await store.runs()] == ["run"]
            await store.open_round(round_row(opened_at=1e9 + 1 / 3, seed=None))
            assert await store.round("run", 0) == round_row(opened_at=1e9 + 1 / 3)
            assert await accept(store)
            assert await store.update("run", 0, "alice") == update_row()
            await store.close_round("run", 0, seed=huge, machine=strange, at=2.5)
            judged = await store.round("run", 0)
            assert judged is not None
            assert (judged.status, judged.seed, judged.closed_at, judged.accepted) == (
                RoundStatus.JUDGING,
                huge,
                2.5,
                1,
            )
            assert repr(judged.machine) == repr(strange)
            verdict = verdict_row(evidence=strange)
            await store.end_round(ended(summary=strange), run=run_row(round=1), verdicts=[verdict])
            assert repr(await store.verdict("run", 0, "alice")) == repr(verdict)
            committed = await store.round("run", 0)
            last = {"status": RoundStatus.COMMITTED, "ended_at": 9.0, "next_model_hash": sha("model 1")}
            assert repr(committed) == repr(replace(judged, **last, machine={"e": 1}, summary=strange))
            assert await store.model(sha("model 0")) == (sha("blob 0"), 2**40)

    asyncio.run(check())


def test_what_is_not_there(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as store:
            assert await store.run("run") is None
            assert await store.round("run", 0) is None
            assert await store.update("run", 0, "alice") is None
            assert await store.verdict("run", 0, "alice") is None
            assert await store.model("ab") is None
            assert await store.document("roster") is None
            assert await store.upload("u1") is None
            assert (await store.runs(), await store.rounds("run"), await store.events()) == ([], [], [])
            assert await store.nonces() == {"version": 1, "seen": {}, "floors": {}}
            assert await store.referenced_blobs() == set()
            with pytest.raises(StateError, match="there is no run 'run'"):
                await store.open_round(round_row())
            with pytest.raises(StateError, match="is not there"):
                await close(store)
            with pytest.raises(StateError, match="takes no updates: it is not there"):
                await accept(store)
            with pytest.raises(StateError, match="there is no round 0 of run"):
                await store.reject(update_row(accepted=False))

    asyncio.run(check())


def test_json_takes_what_is_plain(sqlite_url: str) -> None:
    plain = {"a": MappingProxyType({"b": np.float64(0.1), "c": (np.int64(3), np.float32(0.5), np.bool_(True))})}

    async def check() -> None:
        async with await Store.open(sqlite_url) as store:
            await store.publish([event_row(data=plain)])
            assert (await store.events())[0].data == {"a": {"b": 0.1, "c": [3, 0.5, True]}}
            with pytest.raises(sa.exc.StatementError, match="object cannot be written as JSON"):
                await store.publish([event_row(data={"a": object()})])

    asyncio.run(check())


def test_free_text_of_strangers_is_no_obstacle(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            refused = update_row(accepted=False, code="shape", reason="got '\x00\ud800'")
            assert await store.reject(refused)
            kept = await store.update("run", 0, "alice")
            assert kept is not None
            assert kept.reason == "got '\\x00\\ud800'"

    asyncio.run(check())


def test_a_client_counts_once_in_a_round(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            first = await asyncio.gather(*(accept(store, machine={"n": n}, nonce=f"{n:032x}") for n in range(5)))
            assert first == [True, False, False, False, False]
            assert await accept(store, machine={"n": 9}, nonce="ff" * 16, events=[event_row("again")]) is False
            state = await store.round("run", 0)
            assert state is not None
            assert (state.accepted, dict(state.machine)) == (1, {"n": 0})
            assert (await store.nonces())["seen"] == {"alice": {"0" * 32: 1_700_000_002_000}}
            assert [event.kind for event in await store.events()] == ["run_started", "round_opened"]

    asyncio.run(check())


def test_two_processes_accept_one_client_once(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as one, await Store.open(database_url) as two:
            for number in range(10):
                client = f"client-{number}"
                assert sorted(await asyncio.gather(accept(one, client), accept(two, client))) == [False, True]
            state = await one.round("run", 0)
            assert state is not None
            assert state.accepted == 10

    asyncio.run(check())


def test_updates_that_arrive_together_share_transactions_and_each_gets_its_answer(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            await store.open_round(round_row(number=1))
            commits: list[object] = []
            sa.event.listen(store.database.writer.sync_engine, "commit", commits.append)
            calls = [accept(store, f"c{n:03}", {"n": n}, events=[event_row("took", data={"n": n})]) for n in range(300)]
            calls += [accept(store, "late", round=5), accept(store, "other", {"r": 1}, round=1), accept(store, "c007")]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert answers[:300] == [True] * 300
            assert isinstance(answers[300], StateError)
            assert answers[301:] == [True, False]
            assert len(commits) <= 4
            state = await store.round("run", 0)
            assert state is not None
            assert (state.accepted, dict(state.machine)) == (300, {"n": 299})
            told = await store.events(after=2)
            assert [event.data["n"] for event in told] == list(range(300))
            assert [event.seq for event in told] == list(range(3, 303))
            assert [row.client for row in await store.updates("run", 0)] == [f"c{n:03}" for n in range(300)]

    asyncio.run(check())


def test_a_write_that_fails_takes_no_other_with_it(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            broken = replace(update_row("broken"), head=None)  # type: ignore[arg-type]
            calls = [
                accept(store, "a", {"n": 1}),
                store.accept(broken, machine={"n": 2}, floor=-1),
                store.publish([event_row("between")]),
                store.create_run(run_row()),
                accept(store, "b", {"n": 3}),
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert (answers[0], answers[2], answers[4]) == (True, 3, True)
            assert isinstance(answers[1], IntegrityError)
            assert isinstance(answers[3], StateError)
            state = await store.round("run", 0)
            assert state is not None
            assert (state.accepted, dict(state.machine)) == (2, {"n": 3})

    asyncio.run(check())


def test_a_refused_update_is_kept_once_and_keeps_no_good_one_away(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            refused = update_row(accepted=False, code="expired", reason="too old")
            told = [event_row("refused")]
            assert await asyncio.gather(*(store.reject(refused, told) for _ in range(3))) == [True, False, False]
            assert await store.reject(replace(refused, code="shape"), told) is False
            assert len(await store.events(after=2)) == 1
            assert await store.update("run", 0, "alice") == refused
            assert await accept(store)
            assert await store.update("run", 0, "alice") == update_row()
            assert await store.updates("run", 0, accepted=False) == [refused]
            assert await store.updates("run", 0) == [update_row(), refused]
            state = await store.round("run", 0)
            assert state is not None
            assert (state.accepted, state.rejected) == (1, 1)
            await close(store)
            await end(store)
            assert await store.reject(replace(refused, client="bob"))  # too late, and the round is for ever
            after = await store.round("run", 0)
            assert after is not None
            assert after.rejected == 1

    asyncio.run(check())


def test_a_round_ends_once(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store, await Store.open(database_url) as other:
            await accept(store)
            with pytest.raises(StateError, match=r"is open; expected judging: it cannot be committed"):
                await end(store)
            await close(store)
            with pytest.raises(StateError, match="takes no updates: it is judging"):
                await accept(store, "bob")
            with pytest.raises(StateError, match="it cannot be closed"):
                await close(store)
            answers = await asyncio.gather(end(store), end(other), end(store), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["RunRow", "StateError", "StateError"]
            with pytest.raises(StateError, match="is committed"):
                await end(store, status=RoundStatus.FAILED)
            assert len(await store.verdicts("run")) == 1
            run = await store.run("run")
            assert run is not None
            assert (run.round, run.state, run.model_hash) == (1, sha("state 1"), sha("model 1"))
            assert await store.model(sha("model 1")) == (sha("blob 1"), 41)

    asyncio.run(check())


def test_a_round_without_a_quorum_fails_unjudged(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            failed = ended(status=RoundStatus.FAILED, closed_at=4.0, next_model_hash=None, reason="1 of 5 updates")
            await store.end_round(failed, run=run_row(round=1), verdicts=[], events=[event_row("round_failed")])
            assert await store.round("run", 0) == failed
            with pytest.raises(StateError, match="is failed"):
                await close(store)
            with pytest.raises(StateError, match="expected the end of a round of run, got run round 0 open"):
                await store.end_round(round_row(), run=run_row(), verdicts=[])

    asyncio.run(check())


@pytest.mark.parametrize(
    ("operator", "host", "then"),
    [("running", "running", "running"), ("paused", "running", "paused"), ("stopped", "running", "stopped"),
     ("paused", "finished", "finished"), ("stopped", "finished", "stopped"), ("running", "finished", "finished")],
)  # fmt: skip
def test_the_end_of_a_round_does_not_undo_an_operator(sqlite_url: str, operator: str, host: str, then: str) -> None:
    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            await close(store)
            await store.set_run_status("run", RunStatus(operator), expected=[RunStatus.RUNNING])
            after = await end(store, run=run_row(status=RunStatus(host), round=1))
            assert after.status == then
            assert await store.run("run") == after

    asyncio.run(check())


def test_a_run_changes_from_where_it_is_expected(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store, await Store.open(database_url) as other:
            with pytest.raises(StateError, match="there is a run 'run' already"):
                await store.create_run(run_row())
            with pytest.raises(StateError, match="there is a round 0 of run already"):
                await store.open_round(round_row())
            calls = [where.set_run_status("run", RunStatus.PAUSED, expected={RunStatus.RUNNING},
                                          events=[event_row("run_paused")]) for where in (store, other)]  # fmt: skip
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["RunRow", "StateError"]
            assert [event.kind for event in await store.events(after=2)] == ["run_paused"]
            ends = (RunStatus.STOPPED, RunStatus.FINISHED)
            with pytest.raises(StateError, match="run 'run' is paused; expected finished or stopped to make it run"):
                await store.set_run_status("run", RunStatus.RUNNING, expected=ends)

    asyncio.run(check())


def test_rounds_and_verdicts_by_pages(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            for number in range(1, 5):
                await store.open_round(round_row(number=number))
            await close(store, 2)
            assert [item.number for item in await store.rounds("run", limit=2)] == [4, 3]
            assert [item.number for item in await store.rounds("run", before=3, limit=50)] == [2, 1, 0]
            for number in range(2):
                await close(store, number)
                verdicts = [verdict_row(client, round=number) for client in ("bob", "alice")]
                await store.end_round(ended(number=number), run=run_row(round=number + 1), verdicts=verdicts)
            everything = [(item.round, item.client) for item in await store.verdicts("run")]
            assert everything == [(1, "alice"), (1, "bob"), (0, "alice"), (0, "bob")]
            assert [item.round for item in await store.verdicts("run", client="bob")] == [1, 0]
            assert [item.client for item in await store.verdicts("run", round=0)] == ["alice", "bob"]
            assert len(await store.verdicts("run", limit=3)) == 3

    asyncio.run(check())


def test_events_have_no_gaps_for_any_reader(database_url: str) -> None:
    """Writers of two processes, and readers that never find a number they had passed."""

    async def write(store: Store, name: str) -> None:
        for turn in range(15):
            await store.publish([event_row(name, data={"turn": turn}, run=name)] * (1 + turn % 3))

    async def read(store: Store, done: asyncio.Event) -> list[int]:
        seen: list[int] = []
        while not (done.is_set() and len(seen) == 2 + 2 * 4 * 30):
            seen += [event.seq for event in await store.events(after=seen[-1] if seen else 0, limit=7)]
            await asyncio.sleep(0)
        return seen

    async def check() -> None:
        async with await open_store(database_url) as one, await Store.open(database_url) as two:
            done = asyncio.Event()
            readers = [asyncio.create_task(read(store, done)) for store in (one, two)]
            names = [f"{kind}{number}" for number in range(4) for kind in "ab"]
            await asyncio.gather(*(write(one if name[0] == "a" else two, name) for name in names))
            done.set()
            for reader in readers:
                seen = await asyncio.wait_for(reader, 30)
                assert seen == list(range(1, len(seen) + 1))
            own = await one.events(run="b2")
            assert [event.data["turn"] for event in own] == [turn for turn in range(15) for _ in range(1 + turn % 3)]

    asyncio.run(check())


def test_old_events_go_and_the_others_keep_their_numbers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_EVENTS", 3)

    async def check() -> None:
        async with await open_store(database_url) as store:
            before = len(await store.events())
            await store.publish([event_row(at=at) for at in (2e9, 2.1e9, 1e9, 4e9, 2.2e9)])
            first = before + 1
            assert await store.prune_events(before=0.0) == 0
            gone = 0
            while many := await store.prune_events(before=3e9):  # at most so many at once
                assert many <= 3
                gone += many
            assert gone == before + 3
            # One that is not old, by whatever clock, keeps what follows it: no reader finds a gap.
            assert [event.seq for event in await store.events()] == [first + 3, first + 4]
            assert await store.prune_events(before=5e9) == 2
            assert await store.events() == []
            assert await store.publish([event_row()]) == first + 5

    asyncio.run(check())


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.integers(0, 30), st.integers(0, 30)), max_size=25)
)
def test_nonces_are_what_the_replay_cache_would_have_kept(texts: list[tuple[str, int, int, int]]) -> None:
    """A cache that is restored from the store refuses what one refuses that lived on; updates come in bursts."""

    async def check(url: str) -> None:
        cache = ReplayCache(max_age_ms=10, max_ahead_ms=5, per_client=3)
        async with await open_store(url) as store:
            calls = []
            for number, (client, nonce, created, now) in enumerate(texts):
                if not cache.admit(client, f"{nonce:032x}", created, now=now):
                    await store.open_round(round_row(number=number + 1))
                    floor = cache.floor(client)
                    changes = {"round": number + 1, "nonce": f"{nonce:032x}", "created_ms": created}
                    calls.append(accept(store, client, floor=floor, **changes))
            assert all(await asyncio.gather(*calls))
            again = ReplayCache(max_age_ms=10, max_ahead_ms=5, per_client=3)
            again.restore(await store.nonces())
        for client in "ab":
            assert again.floor(client) == cache.floor(client)
            for nonce in range(7):
                for created in range(31):
                    question = (client, f"{nonce:032x}", created)
                    assert bool(again.refusal(*question, now=20)) == bool(cache.refusal(*question, now=20))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(f"sqlite:///{folder}/matl.sqlite"))


def test_documents_are_replaced_by_who_read_the_last_version(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as store, await Store.open(database_url) as other:
            value = {"version": 1, "secret": b"\x00\xff", "roster": {"alice": [1, 2.5, None]}}
            assert await store.put_document("roster", value, expected_version=0) == 1
            assert await store.document("roster") == (1, value)
            calls = [where.put_document("roster", {"n": 1}, expected_version=1) for where in (store, other)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(str(type(answer).__name__) for answer in answers) == ["StateError", "int"]
            assert await other.document("roster") == (2, {"n": 1})
            with pytest.raises(StateError, match="is of version 2, expected 0"):
                await store.put_document("roster", {}, expected_version=0)
            with pytest.raises(StateError, match="is of version 0, expected 3"):
                await store.put_document("tokens", {}, expected_version=3)
            with pytest.raises(StateError, match="not plain data"):
                await store.put_document("tokens", {"a": object()}, expected_version=0)

    asyncio.run(check())


def test_uploads_advance_from_where_they_are(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as store:
            await store.create_upload(upload_row())
            await store.advance_upload("u1", offset_before=0, offset_after=40)
            assert await store.upload("u1") == upload_row(offset=40)
            with pytest.raises(StateError, match="upload u1 is not at byte 0"):
                await store.advance_upload("u1", offset_before=0, offset_after=50)
            assert await store.expired_uploads(69.9) == []
            assert [item.id for item in await store.expired_uploads(70.0)] == ["u1"]
            await store.delete_upload("u1")
            await store.delete_upload("u1")
            assert await store.upload("u1") is None

    asyncio.run(check())


def test_retention_lets_go_of_blobs_that_nothing_needs(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            for number in range(4):
                if number:
                    await store.open_round(round_row(number=number))
                for client in ("alice", "bob"):
                    # Bob sends the same bytes each time.
                    payload = sha(f"alice {number}") if client == "alice" else sha("bob")
                    await accept(store, client, round=number, nonce=f"{number:032x}", payload_sha256=payload)
                await store.reject(update_row("eve", round=number, accepted=False, payload_sha256=sha("eve")))
                await close(store, number)
                after = run_row(
                    round=number + 1, state=sha(f"state {number + 1}"), model_hash=sha(f"model {number + 1}")
                )
                await store.end_round(
                    ended(number=number, next_model_hash=after.model_hash), run=after, verdicts=[],
                    models={after.model_hash: (sha(f"blob {number + 1}"), 1)},
                )  # fmt: skip
            everything = {sha(f"{kind} {n}") for kind in ("state", "blob") for n in range(5)}
            everything |= {sha(f"alice {n}") for n in range(4)} | {sha("bob")}
            assert await store.referenced_blobs() == everything
            gone = await store.prune("run", keep_rounds=2)
            assert gone == sorted(sha(f"{kind} {n}") for kind in ("alice", "state", "blob") for n in range(2))
            assert await store.referenced_blobs() == everything - set(gone)
            for name in everything | {sha("eve"), ""}:
                assert await store.needs_blob(name) == (name in everything - set(gone)), name
            assert await store.doomed_blobs() == set(gone)
            await store.forget_blobs({*gone[1:], sha("bob")})
            assert await store.prune("run", keep_rounds=2) == []
            assert await store.doomed_blobs() == {gone[0]}  # until somebody says that it is deleted
            assert await store.model(sha("model 1")) is None
            assert await store.model(sha("model 2")) == (sha("blob 2"), 1)
            assert len(await store.updates("run", 0)) == 3
            assert sha("bob") in await store.prune("run", keep_rounds=0)
            assert await store.referenced_blobs() == {sha("state 4"), sha("blob 4")}
            assert {gone[0], sha("bob")} < await store.doomed_blobs()
            await store.forget_blobs(await store.doomed_blobs())
            await store.forget_blobs([])
            assert await store.doomed_blobs() == set()
            with pytest.raises(InvalidValueError, match="keep_rounds"):
                await store.prune("run", keep_rounds=-1)

    asyncio.run(check())


@pytest.mark.parametrize("url", ["mysql://h/d", "matl.sqlite", "sqlite://", "sqlite:///:memory:", "sqlite://h:p/x"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InvalidValueError, match="expected"):
        asyncio.run(Store.open(url))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("/test", "/nowhere", 'database "nowhere_.*" does not exist'), ("matl@", "eve@", 'role "eve" does not exist'),
     ("/test", "/test?sslmode=none&x=", "sslmode"), ("127.0.0.1:", "127.0.0.1:port", "invalid literal")],
)  # fmt: skip
def test_an_address_that_the_server_does_not_take(postgres_url: str, old: str, new: str, words: str) -> None:
    with pytest.raises(InvalidValueError, match=f"the address of the database, or what it grants, is wrong: .*{words}"):
        asyncio.run(Store.open(postgres_url.replace(old, new)))


def test_a_folder_that_cannot_hold_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "matl.sqlite", tmp_path):
        with pytest.raises(StorageError):
            asyncio.run(Store.open(f"sqlite:///{path}"))


def test_an_address_with_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidValueError) as caught:
        asyncio.run(Store.open("mysql://carol:hunter2@host/name"))
    assert "hunter2" not in str(caught.value)


def test_a_file_of_sqlite_is_for_its_owner_and_written_through(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "matl.sqlite"

    async def check() -> None:
        async with await open_store(f"sqlite:///{path}") as store:

            def ask(connection: sa.Connection) -> list[Any]:
                pragmas = ("journal_mode", "synchronous", "foreign_keys")
                return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]

            assert await store.database.write(ask) == ["wal", 2, 1]
            for item in path.parent.iterdir():
                assert item.stat().st_mode & 0o777 == 0o600, item
            with pytest.raises(ServiceError, match="the database is read-only"):
                await store.database.read(lambda connection: connection.execute(schema.events.delete()))

    asyncio.run(check())


@pytest.mark.parametrize(
    ("kind", "table"),
    [(RunRow, "runs"), (RoundRow, "rounds"), (UpdateRow, "updates"), (VerdictRow, "verdicts"), (EventRow, "events"),
     (UploadRow, "uploads")],
)  # fmt: skip
def test_records_fit_their_tables(kind: type[Any], table: str) -> None:
    ours = {"state", "model_hash", "kept"} if table == "rounds" else set()
    assert {column.name for column in schema.METADATA.tables[table].columns} == {f.name for f in fields(kind)} | ours


def test_messages_of_a_phase_are_kept_in_their_order_until_the_round_ends(database_url):
    async def check():
        async with await open_store(database_url) as store:
            for seq, name in enumerate(("eve", "bob", "alice")):
                await store.keep_phase_message(phase_row(name, seq=seq), machine={"n": seq})
            vector = phase_row("bob", phase="mask", seq=3, content=None)
            await store.keep_phase_message(vector, machine={"n": 3}, update=update_row("bob"), events=[event_row()])
            with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                await store.keep_phase_message(phase_row("bob", seq=9), machine={"n": 9})
            assert [row.client for row in await store.phase_messages("run", 0)] == ["eve", "bob", "alice", "bob"]
            assert (await store.phase_messages("run", 0))[3] == vector
            found = await store.round("run", 0)
            assert (found.machine, found.accepted) == ({"n": 3}, 1)
            await store.save_machine("run", 0, {"n": 4})
            ended = round_row(status=RoundStatus.FAILED, ended_at=3.0, next_model_hash=sha("model 0"), reason="few")
            await store.end_round(ended, run=run_row(round=1), verdicts=[])
            assert await store.phase_messages("run", 0) == []
            for late in (store.save_machine("run", 0, {}), store.keep_phase_message(phase_row(), machine={})):
                with pytest.raises(StateError, match="is not open"):
                    await late

    asyncio.run(check())
