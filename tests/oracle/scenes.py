"""An oracle in this process, a run to judge, and what its clients seal."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from matl.attest.measurement import Measurement
from matl.client.evidence import OraclePins
from matl.client.retrying import Retrying
from matl.client.sealed import OracleWatch
from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest
from matl.oracle.attesting import Attester, SoftwareAttester
from matl.oracle.remote import RemoteJudge
from matl.oracle.serving import Oracle
from matl.oracle.settings import OracleConfig
from matl.protocol.messages import OracleView, RunView
from matl.records import Update, Visibility
from matl.screening import encode_payload
from matl.simulation.build import build_simulation
from matl.simulation.config import load_config
from matl.state import State
from matl.workloads import TrainingWorkload

URL = "http://127.0.0.1:8450"
RUN = """
dataset = "synthetic"
clients = 6
byzantine = 0.34
attack = "sign_flip"
rounds = 3
task = "softmax"
[network]
simulated = true
"""


@dataclass(frozen=True)
class Judged:
    """A round of a simulation: what its judge was given, and the state after it."""

    heads: tuple[Update, ...]
    plain: Mapping[str, bytes]
    seed: int
    before: State
    after: State


class _Recording(TrainingWorkload):
    """A workload that remembers what it judged."""

    def cohort(self, accepted: Any, spec: Any, state: State, **options: Any) -> Any:
        accepted = list(accepted)
        seen[id(self)].append((spec, state, options["seed"], [(item.update, item.row.copy()) for item in accepted]))
        return super().cohort(accepted, spec, state, **options)


seen: dict[int, list[Any]] = {}


@cache
def simulated() -> tuple[Judged, ...]:
    """The rounds of the run, as a simulation without any oracle has them."""
    import tomllib

    values = tomllib.loads(RUN)
    del values["network"]
    simulation = build_simulation(load_config(None, values))
    given = {item.name: getattr(simulation.workload, item.name) for item in fields(simulation.workload)}
    workload = _Recording(**given)
    seen[id(workload)] = []
    simulation = replace(simulation, workload=workload)
    after = [state["workload"] for _, state in simulation.run(simulation.init())]
    rounds = []
    for (_, before, seed, accepted), state in zip(seen.pop(id(workload)), after, strict=True):
        plain = {update.client_id: encode_payload(workload.layout.unflatten(row))[0] for update, row in accepted}
        heads = tuple(sorted((update for update, _ in accepted), key=lambda update: update.client_id))
        rounds.append(Judged(heads, plain, seed, before, state))
    return tuple(rounds)


@dataclass
class Scene:
    """An oracle and its configuration; `start` it as often as you like, each time with new keys."""

    folder: Path
    config: OracleConfig
    attester: Callable[[Measurement], Attester]
    oracle: Oracle = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.oracle = Oracle.start(self.config, self.folder, self.attester)

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        scene = self

        class Current(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                app = scene.oracle.app
                return await httpx.ASGITransport(app, raise_app_exceptions=False).handle_async_request(request)

        return Current()

    @property
    def pins(self) -> OraclePins:
        return OraclePins(measurements=frozenset({self.oracle.measurement.digest}), software=True)

    @property
    def token(self) -> str:
        return self.oracle.token_file.read_text().strip()

    def watch(self, pins: OraclePins | None = None, **options: Any) -> OracleWatch:
        return OracleWatch(pins or self.pins, URL, transport=self.transport, **options)

    def judge(self, pins: OraclePins | None = None, token: str | None = None) -> RemoteJudge:
        retrying = Retrying(attempts=2, base=0.01, cap=0.01)
        return RemoteJudge(
            URL, pins or self.pins, token=token or self.token, transport=self.transport, retrying=retrying
        )

    @property
    def view(self) -> RunView:
        return run_view(self.config)

    def workload(self, run: str = "demo") -> TrainingWorkload:
        return replace(self.config.workload, run=run)

    async def request(self, judged: Judged, state: State, watch: OracleWatch, run: str = "demo") -> JudgeRequest:
        """What a coordinator asks for, with all that clients sealed."""
        spec, boxes = self.workload(run).plan(state), {}
        for client, plain in judged.plain.items():
            boxes[client] = await watch(
                run=self.view.model_copy(update={"id": run}), number=spec.round, client_id=client, payload=plain
            )
        return asking(spec, state, judged, boxes)


def asking(spec: Any, state: State, judged: Judged, boxes: Mapping[str, bytes]) -> JudgeRequest:
    heads = tuple(
        replace(
            head,
            run=spec.run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=b"",
            payload_sha256=hashlib.sha256(boxes[head.client_id]).hexdigest(),
            nonce=secrets.token_hex(16),
        )
        for head in judged.heads
    )
    return JudgeRequest(spec=spec, state=state, seed=judged.seed, heads=heads, payload=boxes.__getitem__)


def run_view(config: OracleConfig, run: str = "demo") -> RunView:
    return RunView(
        id=run, status="running", rounds=None, round=0, visibility=Visibility.SEALED, mode="mode1", model_hash="0" * 64,
        layout=[], config_digest=config.config.run_config, created_at="2026-01-01T00:00:00Z", receipts_key="",
        oracle=OracleView(url=URL, config=config.config.file),
    )  # fmt: skip


def read_config(folder: Path, text: str = RUN, **options: Any) -> OracleConfig:
    path = folder / "run.toml"
    path.write_text(text)
    return OracleConfig.read(path, **options)


def software_scene(folder: Path, text: str = RUN, **options: Any) -> Scene:
    return Scene(
        folder / "oracle", read_config(folder, text, **options), lambda m: SoftwareAttester(m, folder / "oracle")
    )


async def whole_run(scene: Scene, judge: RemoteJudge, watch: OracleWatch) -> tuple[State, list[JudgeAnswer]]:
    """Have every round of the simulation judged by the oracle, each from the state that the last one ended with."""
    rounds = simulated()
    state, answers = scene.workload().init(rounds[0].before["params"]), []
    for judged in rounds:
        answer = await judge(await scene.request(judged, state, watch))
        answers.append(answer)
        state = answer.state
    return state, answers


def play(scenario: Callable[[], Any]) -> Any:
    """Run a scenario in a loop of its own."""
    return asyncio.run(scenario())
