"""Runs that live: what is acknowledged counts, once, whatever clients, a database and a process do."""

import asyncio
import dataclasses
import tracemalloc

import numpy as np
import pytest
from tests.coordinator.runs import LAYOUT, NAMES, Place, Wavering, encoded, ended, living, pieces, plan

from matl.attest.keys import SigningKey
from matl.attest.receipts import verify_receipt
from matl.coordinator.rounds.judge import JudgeAnswer, MemberVerdict
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.overrides import Hold
from matl.coordinator.storage.rows import RoundStatus, RunStatus
from matl.errors import InvalidValueError, ServiceError
from matl.params import ParamLayout, values_hash
from matl.protocol.problems import Code, refusal
from matl.records import Judgement, Rejection, Status, Verdict
from matl.screening import decode_payload, encode_payload


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def run_it(place, test, **kwargs):
    """A test with a run in a process of its own."""

    async def all_of_it():
        async with place.host() as host, living(place, host, plan(**kwargs)) as run:
            return await test(run, host)

    return asyncio.run(all_of_it())


async def refused(work, code, reason):
    with pytest.raises(ServiceError) as error:
        await work
    assert (error.value.code, error.value.reason) == (code, reason)
    return error.value


def test_rounds_commit_and_the_run_ends(place):
    async def test(run, host):
        models = [run.spec.model_hash]
        for number in range(3):
            assert (await run.wait_for_round(number - 1, 1)).number == number
            spec = run.spec
            acks = await asyncio.gather(*(place.send(name, run, i + number) for i, name in enumerate(NAMES[:3])))
            assert [(ack.round, ack.duplicate) for ack in acks] == [(number, False)] * 3
            after = await ended(run, number)
            assert (after.status, after.accepted, after.rejected, after.reason) == (RoundStatus.COMMITTED, 3, 0, "")
            models.append(after.next_model_hash)
            verdicts = await host.store.verdicts("r", round=number)
            assert [verdict.client for verdict in verdicts] == list(NAMES[:3])
            for verdict in verdicts:
                receipt = verify_receipt(verdict.receipt, [host.keys.receipts.public])
                assert (receipt.client_id, receipt.status, receipt.round) == (verdict.client, verdict.status, number)
                assert receipt.model_hash == spec.model_hash
                assert receipt.score == pytest.approx(verdict.evidence["luck"], abs=1e-9)
                assert not receipt.hardware_root
                assert run.standings[verdict.client].status is verdict.status
        assert len(set(models)) == 4
        assert run.row.status is RunStatus.FINISHED
        assert (await run.wait_for_round(99, 5)).number == 2  # at once: there is no other to come
        # The model that is named is the one that is stored.
        blob, size = await host.store.model(models[-1])
        model = await host.blobs.read(blob)
        assert (len(model), values_hash(LAYOUT.flatten(decode_payload(model)))) == (size, models[-1])
        kinds = [event.kind for event in await host.store.events()]
        assert kinds[:2] == ["run_started", "round_opened"]
        assert kinds.count("update_received") == 9
        assert kinds.count("round_committed") == 3
        assert kinds[-1] == "run_finished"
        await refused(place.send("dan", run), "conflict", "ended")

    run_it(place, test)


def test_a_deadline_with_quorum_closes_and_without_it_fails_the_round(place):
    async def test(run, host):
        start = run.spec.model_hash
        assert run.due == place.clock.now + 60
        await place.send("ann", run)
        place.clock.now += 61
        await run.tick()
        first = await ended(run, 0)
        assert (first.status, first.reason) == (RoundStatus.FAILED, "1 of 2 updates in 60 seconds")
        assert (first.next_model_hash, first.accepted) == (start, 1)
        verdict = await host.store.verdict("r", 0, "ann")
        assert (verdict.status, verdict.weight) == (Status.ACCEPTED, 0.0)
        assert verdict.reason == "round failed: 1 of 2 updates in 60 seconds"
        await run.wait_for_round(0, 1)
        assert run.spec.model_hash == start
        await place.send("ann", run)
        await place.send("bob", run)
        await run.tick()
        assert run.round.status is RoundStatus.OPEN
        place.clock.now += 60
        # Nobody ticked, and still it is late.
        await refused(place.send("cid", run), "conflict", "late")
        assert (await ended(run, 1)).status is RoundStatus.COMMITTED
        assert run.spec.model_hash != start

    run_it(place, test)


def test_an_update_counts_once_however_often_it_comes(place):
    async def test(run, host):
        head, payload = place.signed("ann", run, 1.0)
        first, *others = await asyncio.gather(*(run.take(head, pieces(payload)) for _ in range(5)))
        assert sorted(ack.duplicate for ack in (first, *others)) == [False, True, True, True, True]
        assert (await run.take(head, pieces(payload))).duplicate
        # The same values, signed anew.
        assert (await place.send("ann", run, 1.0)).duplicate
        await refused(place.send("ann", run, 2.0), "conflict", "duplicate")
        # Not even its payload is read.
        assert (await run.take(head, None)).duplicate
        assert run.round.accepted == 1
        await place.send("bob", run)
        await place.send("cid", run)
        await ended(run, 0)
        # When the round has long been over, and the signature is not fresh any more.
        assert (await run.take(head, None)).duplicate
        place.clock.now += 3600
        assert (await run.take(head, None)).duplicate
        # Whoever does not know the message learns nothing.
        other = dataclasses.replace(head.update(), nonce="00" * 16)
        await refused(
            run.examine(type(head).of(dataclasses.replace(other, payload=payload))), "unauthenticated", "expired"
        )
        await refused(place.send("ann", run, 2.0, spec=dataclasses.replace(run.spec, round=0)), "conflict", "duplicate")
        stored = await host.store.updates("r", 0)
        assert [(one.client, one.accepted) for one in stored] == [("ann", True), ("bob", True), ("cid", True)]

    run_it(place, test)


def test_a_client_that_races_with_itself_has_one_update(place):
    async def test(run, host):
        sendings = [place.send("ann", run, value) for value in range(8)]
        results = await asyncio.gather(*sendings, return_exceptions=True)
        taken = [result for result in results if not isinstance(result, Exception)]
        assert len(taken) == 1
        assert {(error.code, error.reason) for error in results if isinstance(error, Exception)} == {
            ("conflict", "duplicate")
        }
        [kept] = await host.store.updates("r", 0, accepted=True)
        assert kept.payload_sha256 == taken[0].payload_sha256
        # The others' payloads are gone.
        blobs = [path.name for path in (place.folder / "blobs").rglob("*") if path.is_file()]
        assert set(blobs) == await host.store.referenced_blobs()

    run_it(place, test)


def test_hostile_messages_are_rejections_and_the_round_goes_on(place):
    async def test(run, host):
        bad = [
            ({"payload": b"\xff" * 40}, "malformed"),
            ({"payload": encoded(np.nan)}, "not_finite"),
            ({"payload": encoded(1e30)}, "norm"),
            ({"num_examples": 10**9}, "num_examples"),
            ({"model_hash": "00" * 32}, "model_hash"),
            ({"kind": "histogram"}, "kind"),
        ]
        for index, (changes, reason) in enumerate(bad):
            await refused(place.send(NAMES[index % 2], run, **changes), "invalid", reason)
        assert run.round.rejected == 2  # one of each client is kept
        await refused(place.send("ann", run, key=SigningKey.generate()), "unauthenticated", "signature")
        await refused(place.send("ann", run, run="s"), "invalid", "run")
        await refused(place.send("ann", run, round=1), "invalid", "round")
        head, payload = place.signed("ann", run)
        await refused(run.take(head, pieces(payload[:-1])), "invalid", "payload_bytes")
        await refused(run.take(head, pieces(payload[:-1] + b"!")), "invalid", "payload_hash")
        await refused(run.take(head, None), "not_found", "payload")
        nobody = head.model_copy(update={"client_id": "nobody"})
        await refused(run.take(nobody, pieces(payload)), "unauthenticated", "unknown_client")
        await refused(run.take(head.model_copy(update={"signature": "%"}), pieces(payload)), "malformed", "malformed")
        # None of that keeps a client from a good one.
        for name in NAMES[:3]:
            await place.send(name, run)
        after = await ended(run, 0)
        assert (after.status, after.accepted, after.rejected) == (RoundStatus.COMMITTED, 3, 2)
        rejected = [one for one in await host.store.updates("r", 0) if not one.accepted]
        assert [(one.client, one.code) for one in rejected] == [("ann", "malformed"), ("bob", "not_finite")]
        blobs = {path.name for path in (place.folder / "blobs").rglob("*") if path.is_file()}
        assert blobs == await host.store.referenced_blobs()

    run_it(place, test)


def test_a_refused_client_has_a_verdict_with_a_receipt(place):
    async def test(run, host):
        await refused(place.send("eve", run, np.inf), "invalid", "not_finite")
        for name in NAMES[:3]:
            await place.send(name, run)
        await ended(run, 0)
        verdict = await host.store.verdict("r", 0, "eve")
        receipt = verify_receipt(verdict.receipt, [host.keys.receipts.public])
        assert (verdict.status, receipt.status, receipt.weight) == (Status.REJECTED, Status.REJECTED, 0.0)
        assert "NaN or infinity" in verdict.reason
        told = [event for event in await host.store.events() if event.kind == "update_rejected"]
        assert [(event.data["client"], event.data["code"]) for event in told] == [("eve", "not_finite")]

    run_it(place, test)


def test_whom_an_operator_holds_is_refused_and_not_judged(place):
    def hold(client):
        place.overrides[0] = place.overrides[0].hold(
            Hold(client=client, run=None, reason="key stolen", actor="carol", at=0)
        )

    async def test(run, host):
        hold("eve")
        error = await refused(place.send("eve", run), "forbidden", "quarantined_by_operator")
        assert "key stolen" in str(error)
        await place.send("ann", run)
        await place.send("bob", run)
        hold("ann")  # after its update came
        await place.send("cid", run)
        after = await ended(run, 0)
        assert after.machine["excluded"] == ["ann"]
        statuses = {one.client: one.status for one in await host.store.verdicts("r", round=0)}
        assert (statuses["ann"], statuses["eve"]) == (Status.REJECTED, Status.REJECTED)
        assert set(statuses) == {"ann", "bob", "cid", "eve"}

    run_it(place, test)


def test_pause_resume_and_stop(place):
    async def test(run, host):
        head, payload = place.signed("ann", run)
        await run.take(head, pieces(payload))
        await run.pause()
        assert (await run.take(head, None)).duplicate  # what was said is said again
        error = await refused(place.send("bob", run), "busy", "paused")
        assert error.retry_after == 15
        assert run.due is None
        place.clock.now += 500
        await run.tick()
        await asyncio.sleep(0.05)
        assert run.round.status is RoundStatus.OPEN  # its deadline waits too
        assert (await run.wait_for_round(-1, 0.01)).number == 0
        await refused(run.pause(), "conflict", "status")
        await run.resume()
        await refused(run.resume(), "conflict", "status")
        assert run.due == place.clock.now + 60
        await place.send("bob", run)
        before = run.spec.model_hash
        await run.stop()
        assert (run.round.status, run.round.reason) == (RoundStatus.FAILED, "the run was stopped")
        assert run.row.status is RunStatus.STOPPED
        assert run.row.model_hash == before
        await refused(place.send("cid", run), "conflict", "ended")
        await refused(run.stop(), "conflict", "status")
        kinds = [event.kind for event in await host.store.events() if event.kind.startswith("run_")]
        assert kinds == ["run_started", "run_paused", "run_resumed", "run_stopped"]

    run_it(place, test)


def test_updates_of_an_older_model_count_in_the_current_round(place):
    async def test(run, host):
        zero = run.spec
        await place.send("ann", run)
        await place.send("bob", run)
        await ended(run, 0)
        await run.wait_for_round(0, 5)
        head, payload = place.signed("cid", run, 2.0, spec=zero)
        ack = await run.take(head, pieces(payload))
        assert (ack.round, ack.duplicate) == (1, False)
        [kept] = await host.store.updates("r", 1)
        assert (kept.base_version, kept.round) == (0, 1)
        again = await run.take(head, None)
        assert (again.round, again.duplicate) == (1, True)
        await refused(place.send("cid", run, 3.0, spec=zero), "conflict", "duplicate")
        await refused(place.send("cid", run, 3.0), "conflict", "duplicate")  # one for each client and round
        await refused(place.send("ann", run, 3.0, spec=zero), "conflict", "duplicate")  # it counted in round 0
        await place.send("ann", run)
        after = await ended(run, 1)
        assert (after.status, after.accepted) == (RoundStatus.COMMITTED, 2)
        assert (await run.take(head, None)).duplicate
        await run.wait_for_round(1, 5)
        await refused(place.send("dan", run, 4.0, spec=zero), "conflict", "late")
        # An update that names the current round and an old model is the same as one for the old round.
        await refused(place.send("dan", run, 4.0, base_version=0, model_hash=zero.model_hash), "invalid", "stale")

    rules = Rules(target=2, quorum=1)
    run_it(place, test, rules=rules, rounds=None, workload={"max_staleness": 1})


@pytest.mark.parametrize("staleness", [0, 1])
def test_between_rounds_it_is_said_when_to_come_again(place, staleness):
    going = asyncio.Event()

    async def judge(request):
        await going.wait()
        raise ValueError("a judge with a mistake")

    async def test(run, host):
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.1)
        assert run.round.status is RoundStatus.JUDGING
        late = ("busy", "between_rounds") if staleness else ("conflict", "late")
        await refused(place.send("dan", run), *late)
        assert (await place.send("ann", run)).duplicate
        zero = run.spec
        going.set()
        after = await ended(run, 0)
        assert after.reason == "the judge failed: ValueError: a judge with a mistake"
        assert after.status is RoundStatus.FAILED
        await run.wait_for_round(0, 5)
        if staleness:
            assert (await place.send("dan", run, spec=zero)).round == 1

    run_it(place, test, judge=judge, workload={"max_staleness": staleness})


def test_a_judge_that_cannot_be_reached_is_asked_again(place):
    asked = []

    async def judge(request):
        asked.append(request)
        if len(asked) < 3:
            raise refusal(Code.BUSY, "the oracle is away", retry_after=30)
        _, after = run_state["workload"].reduce(None, request.state)
        rejection = Rejection("bob", "not_finite", "seen inside")
        verdict = MemberVerdict(client="ann", status=Status.ACCEPTED, weight=0.5, score=float(2**40))
        return JudgeAnswer(state=after, verdicts=(verdict,), rejections=(rejection,), receipts={"ann": b"signed"})

    run_state = {}

    async def test(run, host):
        run_state["workload"] = run.plan.workload
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.1)
        for _ in range(2):
            await run.tick()
            await asyncio.sleep(0.05)
            assert run.round.status is RoundStatus.JUDGING
            place.clock.now += 31
        await run.tick()
        after = await ended(run, 0)
        assert after.status is RoundStatus.COMMITTED
        assert len(asked) == 3
        assert len({(one.seed, one.heads, one.spec.round) for one in map(seen, asked)}) == 1
        assert [head.client_id for head in asked[0].heads] == list(NAMES[:3])
        assert asked[0].payload("ann") == encoded(1.0)
        verdicts = {one.client: one for one in await host.store.verdicts("r", round=0)}
        assert (verdicts["ann"].receipt, verdicts["ann"].weight) == (b"signed", 0.5)
        assert (verdicts["bob"].status, verdicts["bob"].reason) == (Status.REJECTED, "seen inside")
        assert verdicts["cid"].reason == "its group had too few updates for a sum"
        assert verify_receipt(verdicts["bob"].receipt, [host.keys.receipts.public]).status is Status.REJECTED

    def seen(request):
        return dataclasses.replace(request, heads=tuple(head.client_id for head in request.heads))

    run_it(place, test, judge=judge)


def test_a_round_can_be_stopped_while_it_is_judged(place):
    going = asyncio.Event()

    async def judge(request):
        await going.wait()
        raise AssertionError("nobody hears of it")

    async def test(run, host):
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.1)
        await run.stop()
        assert run.round.status is RoundStatus.FAILED
        going.set()
        await asyncio.sleep(0.05)
        assert [one.number for one in await host.store.rounds("r")] == [0]

    run_it(place, test, judge=judge)


def test_a_run_that_is_paused_while_it_is_judged_waits_with_the_next_round(place):
    going = asyncio.Event()

    async def judge(request):
        await going.wait()
        raise ValueError("whatever")

    async def test(run, host):
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.1)
        await run.pause()
        going.set()
        await ended(run, 0)
        await run.tick()
        await asyncio.sleep(0.05)
        assert (run.round.number, run.row.status) == (0, RunStatus.PAUSED)
        await run.resume()
        assert (await run.wait_for_round(0, 5)).number == 1

    run_it(place, test, judge=judge)


def test_a_payload_that_was_damaged_fails_the_round_with_its_name(place):
    async def test(run, host):
        ack = await place.send("ann", run)
        await place.send("bob", run)
        path = host.blobs.path(ack.payload_sha256)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        await place.send("cid", run, 2.0)
        after = await ended(run, 0)
        assert after.status is RoundStatus.FAILED
        assert "the payload of ann is damaged" in after.reason

    run_it(place, test)


def test_identical_payloads_of_two_clients_are_one_blob_that_stays(place):
    async def test(run, host):
        wrong = [place.send("eve", run, 5.0, num_examples=None, kind="delta", model_hash=run.spec.model_hash)]
        bad = encoded(np.nan)
        await asyncio.gather(
            *wrong, *(refused(place.send(name, run, payload=bad), "invalid", "not_finite") for name in NAMES[:3])
        )
        await place.send("ann", run, 5.0)
        await place.send("bob", run, 5.0)
        assert (await ended(run, 0)).status is RoundStatus.COMMITTED
        assert not await host.blobs.exists((await host.store.updates("r", 0, accepted=False))[0].payload_sha256)

    run_it(place, test)


def test_blobs_may_lie_elsewhere(tmp_path):
    place = Place(tmp_path, blobs_url="memory://test_live")

    async def test(run, host):
        for name in NAMES[:3]:
            await place.send(name, run)
        assert (await ended(run, 0)).status is RoundStatus.COMMITTED
        assert list((tmp_path / "scratch").iterdir()) == []

    run_it(place, test)


def test_what_came_as_an_upload_is_taken_and_what_is_refused_of_it_goes(place):
    async def test(run, host):
        for name, value, reason in (("ann", 1.0, ""), ("bob", np.nan, "not_finite"), ("cid", 1.0, "")):
            head, payload = place.signed(name, run, payload=encoded(value))
            came = host.clock()
            await host.blobs.put(payload)
            place.clock.now += 3600  # it took longer than a signature is fresh
            if reason:
                await refused(run.take(head, None, arrived=came), "invalid", reason)
            else:
                assert not (await run.take(head, None, arrived=came)).duplicate
                assert (await run.take(head, None)).duplicate
        blobs = {path.name for path in (place.folder / "blobs").rglob("*") if path.is_file()}
        assert blobs == await host.store.referenced_blobs()

    run_it(place, test, rules=Rules(target=5, quorum=1))


def test_many_updates_at_once_are_all_counted(place):
    place.clients = {f"c{index:03}": SigningKey.generate() for index in range(150)}

    async def test(run, host):
        acks = await asyncio.gather(*(place.send(name, run, index) for index, name in enumerate(place.clients)))
        assert not any(ack.duplicate for ack in acks)
        after = await ended(run, 0)
        assert (after.status, after.accepted) == (RoundStatus.COMMITTED, 150)
        assert [one.client for one in await host.store.verdicts("r", round=0)] == sorted(place.clients)

    run_it(place, test, rules=Rules(target=150, quorum=150), rounds=1)


def test_updates_can_be_judged_aside(place):
    async def test(run, host):
        before = run.row
        messages = [place.signed(name, run, index) for index, name in enumerate(NAMES[:3])]
        messages.append(place.signed("dan", run, payload=encoded(np.nan)))
        receipts = await run.validate(messages)
        assert list(receipts) == list(NAMES[:4])
        read = {name: verify_receipt(receipt, [host.keys.receipts.public]) for name, receipt in receipts.items()}
        assert read["dan"].status is Status.REJECTED
        assert read["ann"].update_hash == messages[0][0].payload_sha256
        assert (run.row, run.standings, await host.store.updates("r", 0)) == (before, {}, [])
        for head, payload in messages[:3]:  # no nonce was used up
            assert not (await run.take(head, pieces(payload))).duplicate
        await refused(run.validate([]), "invalid", "invalid")
        await refused(run.validate([messages[0], messages[0]]), "invalid", "invalid")

    run_it(place, test)


def test_an_oracle_judges_nothing_aside(place):
    """It judges a round once: what is asked of it counts, and the round itself could not be judged any more."""

    async def judge(request):
        raise AssertionError("the oracle was asked")

    async def test(run, host):
        await refused(run.validate([place.signed("ann", run)]), "conflict", "oracle")

    run_it(place, test, judge=judge)


def test_whoever_stops_waiting_loses_nothing(place):
    async def told(payload, begun):
        begun.set()
        async for piece in pieces(payload):
            yield piece

    async def test(run, host):
        for name in NAMES[:3]:
            head, payload = place.signed(name, run)
            for yields in (1, 3, 10, 30, 60):
                begun = asyncio.Event()
                taking = asyncio.ensure_future(run.take(head, told(payload, begun)))
                await asyncio.wait([taking, asyncio.ensure_future(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
                for _ in range(yields):
                    await asyncio.sleep(0.0003)
                taking.cancel()
                begun.set()
                await asyncio.wait([taking])
            await run.take(head, pieces(payload))
        assert (await ended(run, 0)).accepted == 3
        events = await host.store.events()
        assert [event.kind for event in events].count("update_received") == 3
        blobs = {path.name for path in (place.folder / "blobs").rglob("*") if path.is_file()}
        assert blobs == await host.store.referenced_blobs()

    run_it(place, test)


def test_rows_are_not_all_held_in_memory(place):
    size, clients = 250_000, 24  # a megabyte each
    layout = ParamLayout.of({"w": np.zeros(size, np.float32)})
    place.clients = {f"c{index:02}": SigningKey.generate() for index in range(clients)}

    class ByBlocks(Wavering):
        def judge(self, cohort, state):
            blocks = [block.mean(axis=0, dtype=np.float64) for block in cohort.X.column_blocks(10_000)]
            verdicts = tuple(Verdict(unit, 1.0, Status.ACCEPTED) for unit in cohort.ids)
            return Judgement(np.concatenate(blocks).astype(np.float32), verdicts), state

    def payload(index):
        return encode_payload({"w": np.full(size, index, np.float32)})[0]

    async def test(run, host):
        tracemalloc.start()
        try:
            for index, name in enumerate(place.clients):
                head, message = place.signed(name, run, payload=payload(index))
                await run.take(head, pieces(message, 1 << 18))
            assert (await ended(run, 0)).status is RoundStatus.COMMITTED
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert run.state["params"][0] == np.float32((clients - 1) / 2)
        assert peak < 14e6, peak  # the rows alone are 24 MB, and the model is here a few times over

    rules = Rules(target=clients, quorum=clients)
    work = {"mode": ByBlocks(), "layout": layout}
    run_it(place, test, rules=rules, params=np.zeros(size, np.float32), rounds=1, workload=work)


def test_a_plan_that_no_network_can_keep_is_refused():
    with pytest.raises(InvalidValueError, match="expected rounds of one phase"):
        plan(rules=Rules(target=1, quorum=1, phases=("keys", "shares")))
