"""The in-process host: runs a workload over a simulated population, round by round.

Everything random is drawn from streams named by purpose, round and client, and linear algebra runs on one thread, so a
run depends on its configuration and seed alone: not on threads, on interruptions, or on what ran before it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from matl import validate
from matl.attacks import Attack, AttackView, Knowledge, Rehearsal, Validator
from matl.errors import InvalidValueError
from matl.events import Event, EventSink, ignore
from matl.learning.server import StatefulOptimizer
from matl.learning.tasks import Task, accuracy
from matl.params import Float32
from matl.privacy.planner import Plan
from matl.privacy.timing import Stopwatch
from matl.records import Rejection, RoundSpec, Update
from matl.simulation.federation import Population
from matl.simulation.fleet import Fleet, Trainer, open_fleet, read_only
from matl.simulation.randomness import derive_seed, stream
from matl.simulation.scoring import EXCLUDED, RoundRecord, RoundReport, VerdictRow, count_statuses, score, share
from matl.simulation.verdicts import publish, verdict_rows
from matl.state import State
from matl.workloads import Accepted, Encoded, Outcome, Private, Sender, TrainingWorkload

__all__ = ["Charge", "Simulation", "spend_nothing"]

Charge = Callable[[int, Sequence[str]], None]
"""Told of a round and the clients whose updates arrived, before anything is made of these."""


def spend_nothing(number: int, clients: Sequence[str]) -> None:
    """The `Charge` of runs without privacy."""


@dataclass(frozen=True)
class Simulation:
    """A federation in one process.

    Parameters
    ----------
    population : Population
        Clients, their data, and who is malicious.
    task : Task
        What is learned.
    workload : TrainingWorkload
        How rounds are judged and the model is stepped.
    attack : Attack or None
        What malicious clients do; ``None`` for nothing.
    oracle : Validator or None
        The validator's root data, as white-box attacks see it.
    rounds : int
        How many rounds to run.
    participation : float
        Share of the clients that takes part in a round, drawn anew each time; at least one client.
    dropouts : float
        Share of these that begins the round and falls silent before its update is sent.
    honest_only : bool
        Leave the malicious clients out altogether: the ceiling a defence is measured against.
    seed : int
        Source of all randomness.
    privacy : Plan or None
        What the privacy of its sums was planned by.
    """

    population: Population
    task: Task
    workload: TrainingWorkload
    attack: Attack | None = None
    oracle: Validator | None = None
    rounds: int = 30
    participation: float = 1.0
    dropouts: float = 0.0
    honest_only: bool = False
    seed: int = 0
    privacy: Plan | None = None

    def __post_init__(self) -> None:
        validate.at_least(1, rounds=self.rounds)
        validate.fraction(participation=self.participation, dropouts=self.dropouts)
        validate.positive(participation=self.participation)
        if self.honest_only and not self._pool:
            raise InvalidValueError("expected at least one honest client for an honest-only run, got byzantine=1")

    def init(self) -> State:
        """The state before the first round."""
        params = self.task.init(stream(self.seed, "init"))
        state: State = {
            "version": 2,
            "workload": self.workload.init(params),
            "history": [],
            "statuses": {},
            "weights": {},
            "scores": [],
            "excluded": [],
        }
        if self.attack is not None:
            state["change"] = np.zeros_like(params)
        if isinstance(self.workload.optimizer, StatefulOptimizer):
            state["memory"] = np.zeros((len(self.population.data.clients), params.size), np.float32)
        return state

    def run(
        self, state: State, *, sink: EventSink = ignore, workers: int = 1, charge: Charge = spend_nothing
    ) -> Generator[tuple[RoundReport, State], None, None]:
        """Run the rounds that are left, yielding each with the state after it; close it to end its workers early.

        Parameters
        ----------
        state : State
            Where to begin: `init`, or what an earlier round yielded.
        sink : callable
            Called with every event; with distributed noise also with ``"latency"`` after every round, of how long its
            encodings took, see `matl.privacy.timing.Stopwatch`.
        workers : int
            Processes that train the clients; the results do not depend on it.
        charge : callable
            Called with the round and the clients whose updates arrived, before anything is made of them: the place to
            write down what privacy they spend. A round that is run again after an interruption is charged again.

        Raises
        ------
        WorkerLostError
            Worker processes ended twice within one round.
        """
        validate.whole(1, workers=workers)
        run = self.workload.run

        def lost(reason: str) -> None:
            sink(Event("workers_lost", run, int(state["workload"]["round"]), {"reason": reason}))

        simulation, stopwatch = self._timed(sink)
        with threadpool_limits(1), open_fleet(self.trainer, workers, lost) as fleet:
            while int(state["workload"]["round"]) < self.rounds:
                report, state = simulation._step(state, sink, fleet, charge)
                if stopwatch is not None:
                    stopwatch.publish(report.record.round)
                yield report, state

    def _timed(self, sink: EventSink) -> tuple[Simulation, Stopwatch | None]:
        """Itself with a stopwatch on its noise, if it draws any and somebody is to be told."""
        channel = self.workload.channel
        if sink is ignore or not isinstance(channel, Private):
            return self, None
        stopwatch = Stopwatch(sink, self.workload.run)
        return replace(self, workload=replace(self.workload, channel=channel.timed(stopwatch))), stopwatch

    def check_remote(self) -> None:
        """Whether a host elsewhere tells its clients enough for what they do here.

        Raises
        ------
        InvalidValueError
            They would have to know more: what they remember under a stateful algorithm or a codec, or the judge
            itself for a white-box attack.
        """
        if self.attack is not None and self.attack.knowledge is Knowledge.WHITE_BOX:
            raise InvalidValueError(
                f"attack {type(self.attack).__name__} rehearses with the judge and its root data, which no coordinator "
                "tells its clients; choose another attack, or simulate it in one process with matl run"
            )
        if isinstance(self.workload.optimizer, StatefulOptimizer):
            raise InvalidValueError(
                f"{type(self.workload.optimizer).__name__} has clients remember what the protocol has no place for; "
                "choose another server optimiser, or simulate it in one process with matl run"
            )
        if self.workload.downlink is not None:
            raise InvalidValueError(
                "a coordinator sends its models as they are, got a downlink; leave it out, or simulate it with matl run"
            )
        channel = self.workload.channel
        if isinstance(channel, Encoded) and channel.by.feedback:
            raise InvalidValueError(
                "a codec with error feedback has clients remember what was lost, of which a coordinator knows nothing; "
                "choose another codec, or simulate it in one process with matl run"
            )

    def messages(self, spec: RoundSpec, params: Float32, change: Float32, fleet: Fleet) -> list[tuple[str, Update]]:
        """What the clients of a round send to a host elsewhere: by client, in order of ids.

        Parameters
        ----------
        spec : RoundSpec
            The round, as its host announced it.
        params : float32 array of shape (d,)
            The model that they start from.
        change : float32 array of shape (d,)
            How it differs from the one before; zeros in the first round.
        fleet : Fleet
            Who trains them.

        Raises
        ------
        InvalidValueError
            See `check_remote`.
        """
        self.check_remote()
        state: State = {"workload": {"params": params}, "change": change}
        participants = self._staying(self._participants(spec.round), spec.round)
        updates, _, tampering = self._made(participants, spec, state, fleet)
        return [(name, message) for name, message, _ in self._sent(updates, participants, spec, state, tampering)]

    @property
    def senders(self) -> int:
        """How many clients send something in a round."""
        return len(self._staying(self._participants(0), 0))

    def noise_key(self, number: int) -> bytes:
        """What the host's own noise of a round is drawn from, 32 bytes."""
        return self._key("noise", number)

    def arrival(self, number: int, client: str) -> float:
        """When the update of a client arrives in a round, in seconds after it opened."""
        return float(self._arrivals(number)[self._index[client]]) if client in self._index else 0.0

    @property
    def trainer(self) -> Trainer:
        """Who trains its clients."""
        return Trainer(
            clients=self.population.data.clients,
            malicious=self.population.malicious,
            task=self.task,
            recipe=self.workload.recipe,
            attack=self.attack,
            seed=self.seed,
        )

    def _step(self, state: State, sink: EventSink, fleet: Fleet, charge: Charge) -> tuple[RoundReport, State]:
        started = time.perf_counter()
        spec = self.workload.plan(state["workload"])
        began = self._participants(spec.round)
        participants = self._staying(began, spec.round)
        accepted, rejections, memories, residuals = self._collect(participants, spec, state, fleet)
        seed = derive_seed(self.seed, "judge", spec.round)
        key = self.noise_key(spec.round)
        heard = {item.update.client_id for item in accepted}
        silent = [name for name in (self.population.ids[index] for index in began) if name not in heard]
        charge(spec.round, sorted(heard))
        cohort = self.workload.cohort(accepted, spec, state["workload"], seed=seed, silent=silent, key=key)
        outcome, after = self.workload.reduce(cohort, state["workload"])
        rows = verdict_rows(outcome, cohort, accepted, rejections, state["statuses"])
        lengths = [item.payload_bytes for item in accepted]
        sent = float(np.mean(lengths)) if lengths else 0.0
        record = self._record(spec.round, rows, outcome, after["params"], sent, time.perf_counter() - started)
        publish(sink, spec, rows, state["statuses"], record)
        weights = {row.client: row.weight for row in rows}
        new_state = {
            **state,
            "workload": after,
            "history": [*state["history"], asdict(record)],
            "statuses": {**state["statuses"], **{row.client: row.status.value for row in rows}},
            "weights": {**state["weights"], **weights},
        }
        if residuals:
            new_state["residuals"] = {**state.get("residuals", {}), **residuals}
        if self.workload.mode.gives_verdicts:
            scores, excluded = self._conduct(rows)
            new_state["scores"], new_state["excluded"] = [*state["scores"], scores], [*state["excluded"], excluded]
        if self.attack is not None:
            new_state["change"] = self.workload.held(after) - self.workload.held(state["workload"])
        if memories is not None:
            counted = [weights[self.population.ids[index]] > 0 for index in participants]
            new_state["memory"] = state["memory"].copy()
            new_state["memory"][np.array(participants)[counted]] = memories[counted]
        return RoundReport(record, rows), new_state

    @cached_property
    def _pool(self) -> list[int]:
        """Indices of the clients that may take part."""
        everyone = range(len(self.population.data.clients))
        return [i for i in everyone if not (self.honest_only and i in self.population.malicious)]

    def _participants(self, number: int) -> list[int]:
        count = max(1, round(self.participation * len(self._pool)))
        drawn = stream(self.seed, "participants", number).choice(self._pool, size=count, replace=False)
        return sorted(int(index) for index in drawn)

    def _staying(self, began: list[int], number: int) -> list[int]:
        """Those of a round's clients that do not fall silent; at least one."""
        gone = min(int(self.dropouts * len(began) + 1e-9), len(began) - 1)
        drawn = set(stream(self.seed, "dropouts", number).choice(began, size=gone, replace=False).tolist())
        return [index for index in began if index not in drawn]

    def _train(
        self, participants: list[int], number: int, state: State, fleet: Fleet
    ) -> tuple[Float32, Float32 | None]:
        """Updates of the round's clients, and, if the algorithm has it, what they remember if their updates count."""
        params, optimizer = self.workload.held(state["workload"]), self.workload.optimizer
        if not isinstance(optimizer, StatefulOptimizer):
            return fleet.train(participants, number, params), None
        shared = optimizer.shared(state["workload"]["optimizer"])
        own = state["memory"][participants]
        updates = fleet.train(participants, number, params, optimizer.shift(own, shared))
        return updates, optimizer.remember(own, shared, updates, self.workload.recipe.learning_rate)

    def _poison(
        self, updates: Float32, participants: list[int], spec: RoundSpec, state: State
    ) -> tuple[Attack | None, list[int]]:
        """Let the malicious among the participants change their updates in place; the attack and its rows if any."""
        acting = self.attack.at(spec.round) if self.attack is not None else None
        liars = [row for row, index in enumerate(participants) if index in self.population.malicious]
        if acting is None or not liars:
            return None, []
        # All that an adversary is told. Every one knows the models it was sent; honest updates, the judge and the root
        # are for those that declare them. The seed of the coming judgement is drawn later, and nobody is told it.
        sees_honest = acting.knowledge in (Knowledge.OMNISCIENT, Knowledge.WHITE_BOX)
        sees_judge = acting.knowledge is Knowledge.WHITE_BOX
        view = AttackView(
            round=spec.round,
            own=updates[liars],
            honest=np.delete(updates, liars, axis=0) if sees_honest else None,
            clients=len(updates),
            params=read_only(self.workload.held(state["workload"])),
            previous=read_only(state["change"]) if spec.round else None,
            rehearse=partial(self._rehearse, updates.copy(), participants, liars, spec, state) if sees_judge else None,
            oracle=self.oracle if sees_judge else None,
        )
        updates[liars] = _rows_of(acting.craft(view, stream(self.seed, "attack", spec.round)), view.own, acting)
        return acting, liars

    def _rehearse(
        self,
        updates: Float32,
        participants: list[int],
        liars: list[int],
        spec: RoundSpec,
        state: State,
        crafted: Float32,
    ) -> Rehearsal:
        """What the judge would say of a round if the malicious rows were these; it judges with a seed of its own."""
        updates[liars] = _rows_of(crafted, updates[liars], self.attack)
        accepted, rejections, _ = self._screened(updates, participants, spec, state, purpose="rehearsed channel")
        seed = derive_seed(self.seed, "rehearsal", spec.round)
        key = self._key("rehearsed noise", spec.round)
        heard = {item.update.client_id for item in accepted}
        silent = [name for name in (self.population.ids[index] for index in participants) if name not in heard]
        cohort = self.workload.cohort(accepted, spec, state["workload"], seed=seed, silent=silent, key=key)
        outcome, _ = self.workload.reduce(cohort, state["workload"])
        rows = {row.client: row for row in verdict_rows(outcome, cohort, accepted, rejections, state["statuses"])}
        own = [rows[self.population.ids[participants[liar]]] for liar in liars]
        nothing = np.zeros(updates.shape[1], np.float32)
        return Rehearsal(
            aggregate=nothing if outcome.judgement is None else outcome.judgement.aggregate,
            weights=np.array([row.weight for row in own], np.float64),
            statuses=tuple(row.status for row in own),
            evidence=tuple(row.evidence for row in own),
        )

    def _collect(
        self, participants: list[int], spec: RoundSpec, state: State, fleet: Fleet
    ) -> tuple[list[Accepted], list[Rejection], Float32 | None, dict[str, State]]:
        """Let the round's clients train and lie, and screen what they send; also what they may come to remember.

        That is, by row, what their algorithm remembers if their updates count, and, by client, what their codec does.
        """
        updates, memories, tampering = self._made(participants, spec, state, fleet)
        accepted, rejections, residuals = self._screened(updates, participants, spec, state, tampering)
        return accepted, rejections, memories, residuals

    def _made(
        self, participants: list[int], spec: RoundSpec, state: State, fleet: Fleet
    ) -> tuple[Float32, Float32 | None, dict[int, Attack]]:
        """Updates of a round, what their clients may come to remember, and by row who tampers with its message."""
        # A model that an attack drove far out overflows here: a result, and screening refuses what is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            updates, memories = self._train(participants, spec.round, state, fleet)
            acting, liars = self._poison(updates, participants, spec, state)
        return updates, memories, {} if acting is None else dict.fromkeys(liars, acting)

    def _screened(
        self,
        updates: Float32,
        participants: list[int],
        spec: RoundSpec,
        state: State,
        tampering: Mapping[int, Attack] = MappingProxyType({}),
        purpose: str = "channel",
    ) -> tuple[list[Accepted], list[Rejection], dict[str, State]]:
        """Send the updates of a round, some of them tampered with, and screen what arrives; also what codecs keep."""
        accepted: list[Accepted] = []
        rejections: list[Rejection] = []
        residuals: dict[str, State] = {}
        seen: set[str] = set()
        for name, message, kept in self._sent(updates, participants, spec, state, tampering, purpose):
            if kept:
                residuals[name] = kept
            verify = partial(_sent_by, name)
            result = self.workload.screen(message, spec, state["workload"], seen=seen, verify=verify)
            if isinstance(result, Rejection):
                rejections.append(replace(result, client_id=name))  # whoever the message claims to be from
            else:
                accepted.append(result)
                seen.add(message.client_id)
        return accepted, rejections, residuals

    def _sent(
        self,
        updates: Float32,
        participants: list[int],
        spec: RoundSpec,
        state: State,
        tampering: Mapping[int, Attack],
        purpose: str = "channel",
    ) -> Iterator[tuple[str, Update, State]]:
        """Of each of a round's clients, who it is, its message, and what its codec keeps."""
        arrivals = self._arrivals(spec.round)
        for row, index in enumerate(participants):
            name = self.population.ids[index]
            key = self._key(purpose, spec.round, index) if self.workload.channel.draws else None
            sender = Sender(name, state.get("residuals", {}).get(name, {}), key)
            message, kept = self._message(index, updates[row], spec, float(arrivals[index]), sender)
            if row in tampering:
                tampered = tampering[row].tamper(message, stream(self.seed, "tamper", spec.round, index))
                message = replace(tampered, received_at=message.received_at)  # the host's clock, not the sender's
            yield name, message, kept

    def _arrivals(self, number: int) -> NDArray[np.float64]:
        """Seconds by client; simulated, a few with a tail."""
        return stream(self.seed, "network", number).lognormal(1.0, 0.5, size=len(self.population.ids))

    def _key(self, purpose: str, *path: int) -> bytes:
        """What noise is drawn from. It comes from the run's seed, so that runs can be repeated: it protects nobody."""
        return stream(self.seed, purpose, *path).bytes(32)

    def _message(
        self, index: int, update: Float32, spec: RoundSpec, received_at: float, sender: Sender
    ) -> tuple[Update, State]:
        """What a client sends, and what its codec keeps."""
        channel = self.workload.channel
        payload, kept = channel.pack(update, spec, self.workload.layout, sender)
        message = Update(
            client_id=sender.id,
            run=spec.run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=payload,
            payload_sha256=hashlib.sha256(payload).hexdigest() if isinstance(payload, bytes) else None,
            num_examples=len(self.population.data.clients[index]) if channel.tells_examples else None,
            kind=spec.kind,
            nonce=f"{spec.round}-{index}",
            received_at=received_at,
        )
        return message, kept

    def _record(
        self, number: int, rows: tuple[VerdictRow, ...], outcome: Outcome, params: Float32, sent: float, seconds: float
    ) -> RoundRecord:
        test = self.population.data.test
        excluded = {row.client for row in rows if row.status in EXCLUDED}
        liars = [row.client for row in rows if row.client in self._malicious_ids]
        honest = [row.client for row in rows if row.client not in self._malicious_ids]
        names = self.workload.mode.gives_verdicts
        with np.errstate(over="ignore", invalid="ignore"):  # a model far out has an accuracy too
            right = accuracy(self.task, params, test.X, test.y)
        return RoundRecord(
            round=number,
            accuracy=right,
            **count_statuses(rows),
            true_positive_rate=share(excluded, liars) if names else None,
            false_positive_rate=share(excluded, honest) if names else None,
            aggregate_norm=0.0 if outcome.judgement is None else _norm(outcome.judgement.aggregate),
            payload_bytes=sent,
            seconds=seconds,
            failure=outcome.failure,
        )

    def _conduct(self, rows: tuple[VerdictRow, ...]) -> tuple[Float32, NDArray[np.bool_]]:
        """What a round said of all n clients: their scores, NaN for who did not take part, and who was kept out."""
        scores = np.full(len(self.population.ids), np.nan, np.float32)
        excluded = np.zeros(len(scores), np.bool_)
        for row in rows:
            index = self._index[row.client]
            scores[index] = score(row, self.workload.mode.channels)
            excluded[index] = row.status in EXCLUDED
        return scores, excluded

    @cached_property
    def _index(self) -> dict[str, int]:
        return {client: index for index, client in enumerate(self.population.ids)}

    @cached_property
    def _malicious_ids(self) -> frozenset[str]:
        return self.population.malicious_ids


def _rows_of(crafted: Any, own: Float32, attack: Attack | None) -> Float32:
    """What an attack made of its clients' updates (m, d)."""
    rows = np.asarray(crafted)
    if rows.shape != own.shape:
        raise InvalidValueError(
            f"{type(attack).__name__}.craft must return one row per malicious client, shape {own.shape}, got "
            f"{rows.shape}"
        )
    return rows


def _norm(vector: Float32) -> float:
    """L2 norm in float64: the squares of a large float32 overflow."""
    return float(np.linalg.norm(vector.astype(np.float64)))


def _sent_by(sender: str, update: Update) -> Rejection | None:
    """Stands for a signature: in one process the host sees who sends."""
    if update.client_id == sender:
        return None
    return Rejection(sender, "signature", f"it was sent in the name of {update.client_id!r:.64}")
