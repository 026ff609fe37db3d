"""A coordinator that judges nothing itself, an oracle in a process of its own, and clients that seal."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.attest.emulator import emulator
from tests.coordinator.runs import Place, ended, living, pieces, plan
from tests.oracle.processes import Library, Serving
from tests.oracle.scenes import RUN, URL, play, read_config, run_view, simulated, software_scene

from matl.attest.keys import SigningKey
from matl.attest.tokens import Scope
from matl.client.evidence import OraclePins
from matl.client.retrying import Retrying
from matl.client.sdk import AsyncMATLClient
from matl.client.sealed import OracleWatch
from matl.coordinator.access import Caller
from matl.coordinator.rounds.judge import Judge, JudgeAnswer, JudgeRequest
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.storage.rows import RoundStatus, VerdictRow
from matl.network.hosting import hosted
from matl.network.serving import open_doors
from matl.network.settings import NetworkSettings, RunSettings
from matl.oracle.remote import OracleSource, RemoteJudge
from matl.oracle.settings import OracleConfig
from matl.protocol.messages import InviteRequest, StartRequest
from matl.protocol.problems import Code, refusal
from matl.records import Status


@contextmanager
def oracle_options(kind: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """What an oracle of a kind is started with."""
    if kind == "software":
        yield ("--software",)
    else:
        with emulator(folder) as tcti:
            yield "--tpm", tcti


@dataclass
class Federation:
    """A run of the coordinator, and its clients."""

    live: LiveRun
    place: Place
    config: OracleConfig
    watch: OracleWatch

    async def sends(self, clients: Any = None, *, number: int | None = None) -> None:
        """Clients send what they sent in a round of the simulation."""
        judged = simulated()[self.live.round.number if number is None else number]
        for head in judged.heads:
            if clients is None or head.client_id in clients:
                view = run_view(self.config, "r")
                box = await self.watch(
                    run=view, number=self.live.spec.round, client_id=head.client_id,
                    payload=judged.plain[head.client_id],
                )  # fmt: skip
                signed, payload = self.place.signed(
                    head.client_id, self.live, payload=box, num_examples=head.num_examples
                )
                await self.live.take(signed, pieces(payload, 1 << 16))

    async def verdicts(self, number: int) -> list[VerdictRow]:
        return list(await self.live._host.store.verdicts("r", round=number, limit=100))


@asynccontextmanager
async def federation(place: Place, config: OracleConfig, judge: Judge, watch: OracleWatch) -> AsyncIterator[Federation]:
    rounds = simulated()
    the_plan = plan(
        workload={**vars(config.workload), "run": "r"},
        params=rounds[0].before["params"],
        rounds=len(rounds),
        rules=Rules(target=len(rounds[0].heads), quorum=1),
        judge=judge,
        judge_seed=lambda number: rounds[number].seed,
    )
    async with place.host() as host, living(place, host, the_plan) as live:
        yield Federation(live, place, config, watch)


def judge_of(serving: Serving, folder: Path) -> tuple[RemoteJudge, OracleWatch]:
    source = OracleSource(
        url=serving.url, token_file=folder / "token", measurements=(serving.measurement,), software=True
    )
    judge = RemoteJudge(source.url, source.pins(), token=serving.token, retrying=Retrying(attempts=2, cap=0.05))
    return judge, OracleWatch(source.pins(), serving.url)


def new_place(folder: Path) -> Place:
    folder.mkdir()
    clients = {head.client_id: SigningKey.generate() for head in simulated()[0].heads}
    return Place(folder, clients=clients)


@pytest.mark.parametrize("kind", ["software", "swtpm"])
def test_a_run_has_the_bits_that_it_has_without_an_oracle(kind: str, library: Library, tmp_path: Path) -> None:
    """Coordinator, oracle and clients, as three kinds of programs that know nothing of each other but addresses."""
    read_config(tmp_path)

    async def takes_part(client: AsyncMATLClient, invitation: str) -> None:
        await client.join(invitation)
        async for given in client.rounds():
            judged = simulated()[given.number]
            head = next(head for head in judged.heads if head.client_id == client.client_id)
            sent = await client.submit_payload(
                judged.plain[client.client_id], round=given, num_examples=head.num_examples
            )
            async with asyncio.timeout(20):
                while (await client.verdict(given.number)).status == "received":
                    await asyncio.sleep(0.05)
            receipt = await client.verify_gradient(sent.payload_sha256)
            assert receipt is not None
            assert not receipt.hardware_root

    async def scenario(serving: Serving) -> None:
        told = tomllib.loads(RUN)
        told["network"]["oracle"] = {
            "url": serving.url,
            "token_file": str(tmp_path / "oracle" / "token"),
            "measurements": [serving.measurement],
            "software": True,
        }
        settings = NetworkSettings(folder=tmp_path / "coordinator", port=0)
        pins = RunSettings.of(told).terms.oracle
        assert pins is not None
        async with hosted(settings) as service, open_doors(service, settings) as doors:
            owner = Caller("operator", "owner", Scope.ADMIN)
            await service.start(owner, StartRequest(id="demo", settings=told))
            names = [head.client_id for head in simulated()[0].heads]
            invited = await service.invite(owner, InviteRequest(uses=len(names)))
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                for name in names:
                    client = AsyncMATLClient(
                        doors.url, client_id=name, folder=tmp_path / name, mode="mode2", sealer=OracleWatch(pins.pins())
                    )
                    group.create_task(takes_part(await stack.enter_async_context(client), invited.token))
            run = await service.run(owner, "demo")
            assert (run.status, run.round) == ("finished", len(simulated()))
            assert run.model_hash == simulated()[-1].after["model_hashes"][str(run.round)]
            held = [one for one in await service.trust(owner, "demo") if one.status is Status.QUARANTINED]
            assert len(held) == 2
            for path in (tmp_path / "coordinator" / "blobs").rglob("*"):  # the coordinator has nothing in the clear
                if path.is_file():
                    assert not any(plain in path.read_bytes() for plain in simulated()[0].plain.values())

    with (
        oracle_options(kind, tmp_path) as options,
        library.oracle(tmp_path / "run.toml", tmp_path / "oracle", *options) as serving,
    ):
        assert "hardware_root: false" in serving.said
        play(lambda: scenario(serving))


def test_an_oracle_killed_in_a_round_fails_it_and_the_run_goes_on(library: Library, tmp_path: Path) -> None:
    config = read_config(tmp_path)
    names = [head.client_id for head in simulated()[0].heads]

    async def scenario(first: Serving, restart: Any) -> None:
        judge, watch = judge_of(first, tmp_path / "oracle")
        port = first.url.rsplit(":", 1)[1]
        async with federation(new_place(tmp_path / "coordinator"), config, judge, watch) as there:
            await there.sends(names[:4])
            first.process.kill()
            first.process.wait()
            with restart(port) as second:
                assert second.measurement == first.measurement
                await there.sends(names[4:])  # they saw the new key, and had it prove itself
                assert len(watch.signers) == 2
                failed = await ended(there.live, 0)
                assert failed.status is RoundStatus.FAILED
                assert "2 of 6 updates can be judged" in failed.reason
                assert "4 could not be opened" in failed.reason
                assert "restarted" in failed.reason
                rejected = {one.client: one for one in await there.verdicts(0) if one.status is Status.REJECTED}
                assert sorted(rejected) == names[:4]
                await there.sends(number=0)
                following = await ended(there.live, 1)
                assert following.status is RoundStatus.COMMITTED, following.reason

    with library.oracle(tmp_path / "run.toml", tmp_path / "oracle", "--software") as first:

        def restart(port: str) -> Any:
            return library.oracle(tmp_path / "run.toml", tmp_path / "oracle", "--software", "--port", port)

        play(lambda: scenario(first, restart))


def test_while_the_oracle_is_away_the_round_waits(tmp_path: Path) -> None:
    scene = software_scene(tmp_path)
    place = new_place(tmp_path / "coordinator")
    there_is_one = True

    class Sometimes(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not there_is_one:
                raise httpx.ConnectError("refused", request=request)
            return await scene.transport.handle_async_request(request)

    async def scenario() -> None:
        nonlocal there_is_one
        retrying = Retrying(attempts=2, base=0.01, cap=0.01)
        judge = RemoteJudge(URL, scene.pins, token=scene.token, transport=Sometimes(), retrying=retrying)
        async with federation(place, scene.config, judge, scene.watch()) as there:
            there_is_one = False
            await there.sends()
            async with asyncio.timeout(10):
                while there.live.round.status is not RoundStatus.JUDGING or there.live._again_at == 0:
                    await asyncio.sleep(0.01)
            there_is_one = True
            await there.live.tick()  # not yet
            assert there.live.round.status is RoundStatus.JUDGING
            place.clock.now += 60
            await there.live.tick()
            assert (await ended(there.live, 0)).status is RoundStatus.COMMITTED

    play(scenario)


def test_a_coordinator_that_dies_while_the_oracle_judges_gets_the_same_answer(tmp_path: Path) -> None:
    scene = software_scene(tmp_path)
    place = new_place(tmp_path / "coordinator")

    async def scenario() -> None:
        lost = scene.judge()

        async def judged_and_lost(request: JudgeRequest) -> JudgeAnswer:
            await lost(request)
            raise refusal(Code.BUSY, "the line broke", retry_after=1000.0)

        async with federation(place, scene.config, judged_and_lost, scene.watch()) as there:
            await there.sends()
            async with asyncio.timeout(10):
                while not list((scene.folder / "answers").glob("*.answer")):
                    await asyncio.sleep(0.01)
        scene.start()  # the oracle too: nothing that was sealed opens any more, and nothing needs to
        async with federation(place, scene.config, scene.judge(), scene.watch()) as there:
            committed = await ended(there.live, 0)
            assert committed.status is RoundStatus.COMMITTED, committed.reason
            assert there.live.state["params"].tobytes() == simulated()[0].after["params"].tobytes()

    play(scenario)


def test_settings_name_what_is_missing(tmp_path: Path) -> None:
    told = {"url": "http://127.0.0.1:1", "token_file": tmp_path / "token", "measurements": ("0" * 64,)}
    with pytest.raises(ValueError, match="vendor_keys"):
        OracleSource.model_validate(told)
    source = OracleSource.model_validate({**told, "software": True})
    with pytest.raises(Exception, match="token cannot be read"):
        source.judge()
    (tmp_path / "token").write_text("matl_or_x")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(Exception, match="can be read by others"):
        source.judge()
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "token").write_text("x" * 513)
    with pytest.raises(Exception, match="is longer than 512 bytes"):  # and not cut off
        source.judge()
    (tmp_path / "token").write_text("\u00e9")
    with pytest.raises(Exception, match="expected a token in"):
        source.judge()
    (tmp_path / "token").write_text("matl_or_x")
    assert source.judge().pins == OraclePins(measurements=frozenset({"0" * 64}), software=True)
    with pytest.raises(Exception, match="cannot be read"):
        OracleSource.model_validate({**told, "vendor_keys": [tmp_path / "none.der"]}).pins()
