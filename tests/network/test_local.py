"""A whole network in this process: the model of `matl run`, guests, attackers, and what is told of rounds."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import numpy as np
import pytest

from matl.client import AsyncMATLClient
from matl.errors import InvalidValueError
from matl.network import local
from matl.network.folder import LocalNetwork, in_use
from matl.network.local import open_network
from matl.network.operating import Operator
from matl.network.serving import free_socket
from matl.params import values_hash
from matl.protocol.messages import InviteRequest
from matl.simulation import RunConfig, build_simulation

BASE = {"dataset": "synthetic", "clients": 12, "byzantine": 0.25, "rounds": 3, "task": "softmax", "root_size": 20}


def model_of(settings):
    """The hash of the model, and who is quarantined, by a simulation in one process."""
    simulation = build_simulation(RunConfig(**settings))
    *_, (_, state) = simulation.run(simulation.init())
    excluded = {client for client, status in state["statuses"].items() if status in ("quarantined", "rejected")}
    return values_hash(state["workload"]["params"]), excluded, state["history"]


@asynccontextmanager
async def opened(network, sink=lambda event: None, say=lambda line: None):
    with in_use(network.folder), free_socket("127.0.0.1", 0) as listener:
        async with open_network(network, listener=listener, sink=sink, say=say) as live:
            yield live


def serve(network, sink=lambda event: None):
    """Run a network to its end, once."""

    async def work():
        async with asyncio.timeout(60), opened(network, sink) as live:
            await live.to_the_end()
            return await live.summary()

    return asyncio.run(work())


@pytest.mark.parametrize(
    "changed",
    [
        {"mode": "mode0"},
        {"mode": "mode1", "attack": "alie"},
        {"mode": "mode0", "attack": "malformed", "byzantine": 0.4},
        {"aggregator": "mean", "attack": "free_rider"},
        {"aggregator": "median", "participation": 0.7, "dropouts": 0.3},
        {"aggregator": "mean", "codec": "int8"},
        {"aggregator": "mean", "privacy": {"mechanism": "central", "epsilon": 50.0}},
    ],
    ids=lambda changed: "-".join(str(value) if isinstance(value, str) else key for key, value in changed.items()),
)
def test_the_model_is_that_of_matl_run_bit_for_bit(tmp_path, changed):
    settings, events = {**BASE, **changed}, []
    summary = serve(LocalNetwork.of(tmp_path / "net", settings), events.append)
    model_hash, excluded, history = model_of(settings)
    assert summary.model_hash == model_hash
    assert summary.rounds == 3
    assert summary.accuracy == history[-1]["accuracy"]
    ended = [event.data for event in events if event.kind == "round_committed"]
    named = ["accuracy", "accepted", "quarantined", "rejected", "true_positive_rate", "false_positive_rate"]
    assert [[row[key] for key in named] for row in ended] == [[row[key] for key in named] for row in history]
    if summary.gives_verdicts:
        assert set(summary.quarantined) == excluded


def test_a_network_goes_on_where_it_was_and_takes_more_rounds(tmp_path):
    settings = {**BASE, "mode": "mode1", "attack": {"name": "sleeper", "wake_round": "2"}}
    first = serve(LocalNetwork.of(tmp_path / "net", settings))
    again = serve(LocalNetwork.of(tmp_path / "net", {}))
    assert (again.model_hash, again.rounds) == (first.model_hash, 3)
    network = LocalNetwork.of(tmp_path / "net", {"rounds": 5})
    more = serve(network)
    assert more.rounds == 5
    assert more.model_hash == model_of({**settings, "rounds": 5})[0]
    assert LocalNetwork.of(tmp_path / "net", {}).rounds == 5


def test_it_can_be_left_in_the_middle_of_a_round(tmp_path):
    settings = {**BASE, "mode": "mode0"}

    async def some(rounds):
        seen = asyncio.Event()

        def sink(event):
            if event.kind == "round_committed" and event.round + 1 >= rounds:
                seen.set()

        network = LocalNetwork.of(tmp_path / "net", settings)
        async with opened(network, sink) as live:
            work = asyncio.create_task(live.to_the_end())
            await seen.wait()
            await asyncio.sleep(0.05)  # the next round is open, and some have sent
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return await live.rounds_done()

    assert 1 <= asyncio.run(some(1)) < 3
    assert serve(LocalNetwork.of(tmp_path / "net", settings)).model_hash == model_of(settings)[0]


def test_who_is_malicious_is_written_nowhere(tmp_path):
    settings = {**BASE, "aggregator": "median"}  # a rule that finds nobody out
    serve(LocalNetwork.of(tmp_path / "net", settings))
    parts = build_simulation(RunConfig(**settings))
    everybody, liars = set(parts.population.ids), parts.population.malicious_ids
    for path in (tmp_path / "net").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        named = {client for client in everybody if client.encode() in content}
        assert len(named) <= 1 or named == everybody, path
        assert b"malicious" not in content or path.name == "network.toml"
    database = sqlite3.connect(tmp_path / "net" / "matl.db")
    rows = database.execute("select client, status, weight, reason, evidence from verdicts").fetchall()
    database.close()
    said = {client: {row[1:] for row in rows if row[0] == client} for client in everybody}
    assert {frozenset(said[client]) for client in liars} == {frozenset(said[client]) for client in everybody}


@pytest.mark.parametrize("attack", ["sign_flip", "malformed"])
def test_a_guest_takes_part_with_the_sdk(tmp_path, attack):
    settings = {**BASE, "mode": "mode0", "rounds": 2, "attack": attack}
    network = LocalNetwork.of(tmp_path / "net", settings, guests=1)

    async def work():
        async with opened(network) as live:
            fleet = asyncio.create_task(live.to_the_end())
            with Operator.of(network.folder) as operator:
                made = await asyncio.to_thread(operator.invite, InviteRequest(client_id="a-guest"))
            async with AsyncMATLClient(live.doors.url, client_id="a-guest", folder=tmp_path / "guest") as client:
                await client.join(made.token)
                verdicts = []

                def train(params, current):
                    return {name: array * 0.99 for name, array in params.items()}, 40

                await client.fit_loop(train)
                await fleet
                for number in range(2):
                    verdicts.append((await client.verdict(number)).verdict)
                model = await client.final_model()
            return await live.summary(), verdicts, model

    summary, verdicts, model = asyncio.run(work())
    assert summary.rounds == 2
    assert len(verdicts) == 2
    assert None not in verdicts
    assert values_hash(np.concatenate([array.ravel() for array in model.values()])) == summary.model_hash
    assert summary.clients == 12  # the guest is none of the simulation's


def test_whom_a_round_waits_for_is_said_and_a_revoked_guest_is_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_PATIENCE", 0.2)
    monkeypatch.setattr(local, "_SOON", 0.2)
    network = LocalNetwork.of(tmp_path / "net", {**BASE, "mode": "mode0", "rounds": 2}, guests=1)
    said = []

    async def heard(words):
        async with asyncio.timeout(30):
            while words not in said:
                await asyncio.sleep(0.05)

    async def work():
        async with opened(network, say=said.append) as live:
            fleet = asyncio.create_task(live.to_the_end())
            await heard("round 0 waits for 1 client not invited or not joined yet")
            with Operator.of(network.folder) as operator:
                made = await asyncio.to_thread(operator.invite, InviteRequest(client_id="hospital-4"))
            async with AsyncMATLClient(live.doors.url, client_id="hospital-4", folder=tmp_path / "guest") as client:
                await client.join(made.token)
                await heard("round 0 waits for hospital-4")
                assert await live.rounds_done() == 0
            await live._service.revoke(local._OWNER, "hospital-4")
            await asyncio.wait_for(fleet, 30)
            return await live.summary(), await live._service.rounds(local._OWNER, live.run)

    summary, page = asyncio.run(work())
    assert (summary.rounds, summary.failed_rounds) == (2, 0)
    assert [view.accepted for view in page.rounds] == [12, 12]


def test_a_round_that_waits_for_guests_goes_on_without_them_once_there_are_to_be_none(tmp_path):
    settings = {**BASE, "mode": "mode0"}
    network = LocalNetwork.of(tmp_path / "net", settings, guests=2)

    async def some():
        async with opened(network) as live:
            work = asyncio.create_task(live.to_the_end())
            async with asyncio.timeout(30):
                while len(await live._service.store.updates(live.run, 0)) < 12:
                    await asyncio.sleep(0.05)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return await live.rounds_done()

    assert asyncio.run(some()) == 0
    alone = serve(LocalNetwork.of(tmp_path / "net", {}, guests=0))
    assert alone.model_hash == model_of(settings)[0]


def test_what_cannot_travel_is_refused_before_anything_is_written(tmp_path):
    network = LocalNetwork.of(tmp_path / "net", {**BASE, "attack": "white_box", "mode": "mode0"})
    with pytest.raises(InvalidValueError, match="rehearses"):
        serve(network)
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["lock"]
