"""A run is taken up again wherever it was cut off, with the same bits; and a database that fails loses nothing."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from tests.coordinator.runs import NAMES, Place, Wavering, ended, living, pieces, plan, row

from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.storage.rows import RoundStatus, RunStatus
from matl.errors import ServiceError, StateError
from matl.protocol.problems import Code, refusal

WRITES = {"create_run", "open_round", "accept", "reject", "close_round", "end_round", "set_run_status"}
ROUNDS = 2


class Cut:
    """A store of a process that ends at one of its writes: it never hears of it again."""

    def __init__(self, store, at, after):
        self._store, self._left, self._after = store, at, after
        self.ended, self.at = asyncio.Event(), ""

    def __getattr__(self, name):
        method = getattr(self._store, name)
        return self._cut(name, method) if name in WRITES else method

    def _cut(self, name, method):
        async def write(*args, **kwargs):
            if self.ended.is_set():
                await asyncio.Event().wait()
            self._left -= 1
            last = self._left == 0
            result = await method(*args, **kwargs) if self._after or not last else None
            if last:
                self.at = name
                self.ended.set()
                await asyncio.Event().wait()
            return result

        return write


@dataclass
class Fleet:
    """Clients that send the same bytes again until they are acknowledged, and remember what was said to them."""

    place: Place
    sent: dict = field(default_factory=dict)
    told: dict = field(default_factory=dict)

    async def drive(self, run):
        while run.row.status is RunStatus.RUNNING:
            spec = run.spec
            for index, name in enumerate(NAMES[:3]):
                key = (name, spec.round)
                if key not in self.sent:
                    self.sent[key] = self.place.signed(name, run, index + 0.1 * spec.round)
                head, payload = self.sent[key]
                with contextlib.suppress(ServiceError):
                    self.told[key] = await run.take(head, pieces(payload))
            with contextlib.suppress(TimeoutError):
                await run.wait_for_round(spec.round, 0.2)

    def check(self, updates):
        for (name, number), ack in self.told.items():
            found = [one for one in updates if (one.client, one.round) == (name, number)]
            assert [one.payload_sha256 for one in found] == [ack.payload_sha256]


def run_through(place, fleet, the_plan, cuts=()):
    """Run to the end, in as many processes as it takes; the hashes of its models and what was cut off."""
    where = []

    async def process(at, after):
        cut = None

        def wrap(store):
            nonlocal cut
            cut = Cut(store, at, after)
            return cut

        async with place.host(wrap) as host:
            stored = await host.store.run("r")

            async def live():
                begun = (
                    LiveRun.create(row(), the_plan, host) if stored is None else LiveRun.restore(stored, the_plan, host)
                )
                run = await begun
                await fleet.drive(run)
                await run.close()

            going = asyncio.ensure_future(live())
            dying = asyncio.ensure_future(cut.ended.wait())
            await asyncio.wait([going, dying], return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if not going.done():
                where.append(cut.at)  # nothing is closed, nothing is told: the process is gone
                return None
            await going
            updates = [one for number in range(ROUNDS) for one in await host.store.updates("r", number)]
            fleet.check(updates)
            rounds = await host.store.rounds("r")
            kinds = [event.kind for event in await host.store.events()]
            assert kinds.count("round_committed") == kinds.count("round_opened") == ROUNDS
            assert kinds.count("update_received") == 3 * ROUNDS
            state = (await host.store.run("r")).state
            return state, [(one.number, one.status, one.seed, one.next_model_hash, one.accepted) for one in rounds]

    for at, after in cuts:
        result = asyncio.run(process(at, after))
        if result is not None:
            return result, where
    return asyncio.run(process(10**9, False)), where


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody cut off."""
    place = Place(tmp_path_factory.mktemp("whole"))
    result, _ = run_through(place, Fleet(place), plan(rounds=ROUNDS))
    assert [status for _, status, *_ in result[1]] == [RoundStatus.COMMITTED] * ROUNDS
    return result, place.clients


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 14))
def test_a_run_cut_off_at_any_write_ends_with_the_same_bits(whole, tmp_path, at, after):
    expected, clients = whole
    place = Place(tmp_path, clients=clients)
    result, where = run_through(place, Fleet(place), plan(rounds=ROUNDS), [(at, after)])
    assert result == expected
    assert len(where) == 1


def test_a_run_cut_off_again_and_again_ends_with_the_same_bits(whole, tmp_path):
    expected, clients = whole
    place = Place(tmp_path, clients=clients)
    cuts = [(2, True), (1, True), (2, False), (2, True), (1, False), (3, True), (1, False), (1, True)]
    result, where = run_through(place, Fleet(place), plan(rounds=ROUNDS), cuts)
    assert result == expected
    assert len(where) >= 6


def test_the_bits_are_the_same_on_postgresql(whole, tmp_path, postgres_url):
    expected, clients = whole
    place = Place(tmp_path, clients=clients, database_url=postgres_url)
    cuts = [(4, True), (3, False), (2, True)]
    result, where = run_through(place, Fleet(place), plan(rounds=ROUNDS), cuts)
    assert result == expected
    assert len(where) == 3


def test_a_seed_that_was_drawn_is_drawn_once(tmp_path):
    place = Place(tmp_path)
    seeds = []

    @dataclass(frozen=True)
    class Telling(Wavering):
        def judge(self, cohort, state):
            seeds.append(cohort.seed)
            return super().judge(cohort, state)

    the_plan = plan(rounds=1, judge_seed=None, workload={"mode": Telling()})

    # create, open, three updates, close; and then cut off when the round was judged.
    async def first():
        async with place.host(lambda store: Cut(store, 7, after=False)) as host:
            run = await LiveRun.create(row(), the_plan, host)
            for name in NAMES[:3]:
                await place.send(name, run)
            await host.store.ended.wait()
            assert host.store.at == "end_round"

    async def second():
        async with place.host() as host, living(place, host, the_plan) as run:
            after = await ended(run, 0)
            assert seeds == [after.seed] * 2
            assert run.row.status is RunStatus.FINISHED

    asyncio.run(first())
    asyncio.run(second())


class Failing:
    """A store whose next write fails, before or after it was done."""

    def __init__(self, store):
        self._store, self.plan = store, {}

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        async def write(*args, **kwargs):
            left = self.plan.get(name)
            how = left.pop(0) if left else "works"
            if how == "lost":
                await asyncio.sleep(0.1)
                raise refusal(Code.BUSY, "the database is down", reason="database", retry_after=1.0)
            result = await method(*args, **kwargs)
            if how == "unheard":
                raise refusal(Code.BUSY, "the database is down", reason="database", retry_after=1.0)
            return result

        return write


def with_failing(place, test, **kwargs):
    async def all_of_it():
        async with place.host(Failing) as host, living(place, host, plan(**kwargs)) as run:
            await test(run, host)

    asyncio.run(all_of_it())


@pytest.mark.parametrize("how", ["lost", "unheard"])
def test_an_update_whose_write_failed_is_sent_again_with_the_same_nonce(tmp_path, how):
    place = Place(tmp_path)

    async def test(run, host):
        head, payload = place.signed("ann", run)
        host.store.plan = {"accept": [how]}
        with pytest.raises(ServiceError) as error:
            await run.take(head, pieces(payload))
        assert (error.value.code, error.value.reason, error.value.retry_after) == ("busy", "database", 1.0)
        again = await run.take(head, pieces(payload))
        assert again.duplicate == (how == "unheard")
        assert (await run.take(head, pieces(payload))).duplicate
        for name in NAMES[1:3]:
            await place.send(name, run)
        after = await ended(run, 0)
        assert (after.status, after.accepted) == (RoundStatus.COMMITTED, 3)

    with_failing(place, test)


def test_of_updates_that_are_written_together_one_may_be_lost(tmp_path):
    place = Place(tmp_path)

    async def test(run, host):
        host.store.plan = {"accept": ["lost", "works"]}
        sendings = [place.signed(name, run) for name in NAMES[:2]]
        results = await asyncio.gather(
            *(run.take(head, pieces(payload)) for head, payload in sendings), return_exceptions=True
        )
        assert sorted(isinstance(result, ServiceError) for result in results) == [False, True]
        # The machine that was written with the one knows of the other, and is not believed.
        assert sum(len(phase) for phase in (await host.store.round("r", 0)).machine["received"]) == 2
        acks = [await run.take(head, pieces(payload)) for head, payload in sendings]
        assert sorted(ack.duplicate for ack in acks) == [False, True]
        await place.send("cid", run)
        assert (await ended(run, 0)).accepted == 3
        assert [one.client for one in await host.store.updates("r", 0, accepted=True)] == list(NAMES[:3])

    with_failing(place, test)


@pytest.mark.parametrize("how", ["lost", "unheard"])
@pytest.mark.parametrize("what", ["open_round", "close_round", "end_round"])
def test_what_the_run_does_by_itself_is_tried_again(tmp_path, what, how):
    place = Place(tmp_path)

    async def test(run, host):
        host.store.plan = {what: [how]}
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.5)
        await run.tick()  # too early
        await asyncio.sleep(0.05)
        assert run.round.number == 0
        place.clock.now += 1.5
        await run.tick()
        assert (await run.wait_for_round(0, 5)).number == 1
        kinds = [event.kind for event in await host.store.events()]
        assert (kinds.count("round_committed"), kinds.count("round_opened"), kinds.count("round_closed")) == (1, 2, 1)

    with_failing(place, test)


@pytest.mark.parametrize(
    ("error", "told"), [(StateError("a blob is damaged"), "a blob is damaged"), (RuntimeError("inner"), "RuntimeError")]
)
def test_who_comes_to_a_run_that_is_stuck_is_told_why(tmp_path, error, told):
    place = Place(tmp_path)

    async def test(run, host):
        async def fails(*_, **__):
            raise error

        host.store.close_round = fails
        for name in NAMES[:3]:
            await place.send(name, run)
        await asyncio.sleep(0.1)
        with pytest.raises(ServiceError, match=f"once this is mended: {told}; send the update again") as caught:
            await place.send("dan", run)
        assert (caught.value.code, caught.value.reason) == ("busy", "between_rounds")
        assert run.obstacle == told
        del host.store.close_round
        place.clock.now += 6
        await run.tick()
        assert (await run.wait_for_round(0, 5)).number == 1
        assert run.obstacle == ""

    with_failing(place, test)


def test_a_plan_of_other_settings_is_refused(tmp_path):
    place = Place(tmp_path)

    async def test():
        async with place.host() as host:
            async with living(place, host, plan()):
                pass
            with pytest.raises(StateError, match="was begun with settings of digest 'c', the plan has 'other'"):
                async with living(place, host, plan(workload={"config_digest": "other"})):
                    pass
            with pytest.raises(StateError, match="there is a run 'r' already"):
                await LiveRun.create(row(), plan(), host)

    asyncio.run(test())


def test_the_clock_of_a_round_begins_anew_after_a_restart(tmp_path):
    place = Place(tmp_path)

    async def test():
        async with place.host() as host:
            async with living(place, host, plan()) as run:
                await place.send("ann", run)
            place.clock.now += 1000
            async with living(place, host, plan()) as run:
                await run.tick()
                await asyncio.sleep(0.05)
                assert (run.round.number, run.due) == (0, place.clock.now + 60)
                assert set(run.machine.senders) == {"ann"}

    asyncio.run(test())


def test_a_round_that_is_open_closes_by_the_rules_of_the_plan_as_it_is_now(tmp_path):
    place = Place(tmp_path)

    async def test():
        async with place.host() as host:
            async with living(place, host, plan(rules=Rules(target=3, quorum=2))) as run:
                assert run.due is None
                for name in ("ann", "bob"):
                    await place.send(name, run)
            async with living(place, host, plan(rules=Rules(target=3, quorum=2, deadline=30.0))) as run:
                assert (run.round.number, run.due) == (0, place.clock.now + 30)
            async with living(place, host, plan(rules=Rules(target=1, quorum=1))) as run:
                async with asyncio.timeout(10):
                    while (found := await host.store.round("r", 0)).ended_at is None:
                        await run.wait_for_round(0, 0.1)
                return found

    found = asyncio.run(test())
    assert (found.status, found.accepted) == (RoundStatus.COMMITTED, 2)  # what was acknowledged counts


def test_a_run_that_was_stopped_half_way_is_stopped_when_it_is_restored(tmp_path):
    place = Place(tmp_path)

    async def test():
        async with place.host() as host:
            async with living(place, host, plan()):
                await host.store.set_run_status("r", RunStatus.STOPPED, expected={RunStatus.RUNNING})
            async with living(place, host, plan()) as run:
                after = await ended(run, 0)
                assert (after.status, after.reason) == (RoundStatus.FAILED, "the run was stopped")
                assert (await run.wait_for_round(99, 5)).number == 0

    asyncio.run(test())
