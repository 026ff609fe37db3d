"""Training as a host runs it: plan a round, screen what arrives, judge it, step the model.

A host (the simulator, a coordinator) moves messages and stores state; everything that decides is here, as functions of
plain-data state, so that every host decides alike and any of them can stop and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.codec import Codec, SharedModel, derive_seed
from matl.errors import BoundError, InvalidValueError, UndecidedError
from matl.learning.local import LocalTraining
from matl.learning.server import FedNova, RoundSummary, ServerOptimizer, ServerSGD, StatefulOptimizer
from matl.matrix import Allocate, UpdateMatrix, in_memory
from matl.params import Arrays, Float32, ParamLayout, values_hash
from matl.records import Cohort, Judgement, Mode, Rejection, RoundSpec, Unit, Update
from matl.screening import Verifier, screen_envelope
from matl.state import State
from matl.workloads.channel import Channel, Clear, Private

__all__ = ["Accepted", "Outcome", "Screened", "TrainingWorkload"]

# Norms enter the summary of a round up to this multiple of their median.
_LONGEST = 3.0


class Screened(Protocol):
    """An update that passed: its message, and its values as the channel reads them.

    A host that keeps payloads on a disk may read the row each time it is asked for.
    """

    @property
    def update(self) -> Update:
        """The message; its payload is not looked at any more."""

    @property
    def row(self) -> NDArray[Any]:
        """What the channel made of the payload."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A screened update: the message without its payload, its values as the channel reads them, and its length."""

    update: Update
    row: NDArray[Any]
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to.

    Parameters
    ----------
    judgement : Judgement or None
        ``None`` if the round failed; the model then stays as it was.
    failure : str
        Why it failed, in words; empty if it did not.
    model_bytes : int or None
        Length of the message that takes clients to the new model; ``None`` where they are sent all of it.
    """

    judgement: Judgement | None
    failure: str = ""
    model_bytes: int | None = None


@dataclass(frozen=True)
class TrainingWorkload:
    """Federated training of one model under one judge.

    Parameters
    ----------
    mode : Mode
        The judge.
    layout : ParamLayout
        The model's arrays.
    run : str
        Identifier of the run.
    channel : Channel
        How updates travel, and what the judge sees of them.
    optimizer : ServerOptimizer
        What is done with the aggregate.
    downlink : Codec or None
        How the change of the model is encoded on its way to clients; what one message loses is made up for by the
        next. ``None`` to send the model as it is.
    recipe : LocalTraining
        What clients do locally.
    clients : int or None
        How many clients there are in all; ``None`` if only those that take part are known.
    max_norm : float or None
        L2 norm above which an update is rejected.
    max_examples : int
        Largest example count a client may claim.
    weight_cap : float
        Largest weight of a client in multiples of the median claim of its round, so that a claimed count, which nobody
        can check, buys little.
    max_staleness : int
        How many rounds old the model of an update may be. One that is s rounds old counts (1 + s)^(-1/2) as much as a
        fresh one (FedBuff, Nguyen et al., AISTATS 2022).
    public_seed : int
        What everybody may draw from: rotations, sketches, groups.
    config_digest : str
        Digest of the configuration of the run.
    """

    mode: Mode
    layout: ParamLayout
    run: str
    channel: Channel = field(default_factory=Clear)
    optimizer: ServerOptimizer = field(default_factory=ServerSGD)
    downlink: Codec | None = None
    recipe: LocalTraining = field(default_factory=LocalTraining)
    clients: int | None = None
    max_norm: float | None = None
    max_examples: int = 1_000_000
    weight_cap: float = 3.0
    max_staleness: int = 0
    public_seed: int = 0
    config_digest: str = ""

    def __post_init__(self) -> None:
        validate.at_least(1, weight_cap=self.weight_cap, max_examples=self.max_examples)
        validate.non_negative(max_staleness=self.max_staleness)
        if self.max_norm is not None:
            validate.positive(max_norm=self.max_norm)
        if not self.channel.tells_examples and isinstance(self.optimizer, StatefulOptimizer | FedNova):
            raise InvalidValueError(
                f"{type(self.optimizer).__name__} has clients tell what depends on their data beside the update, which "
                "no privacy is accounted for; choose another server optimiser"
            )
        for key, needed in self.optimizer.recipe.items():
            if getattr(self.recipe, key) != needed:
                raise InvalidValueError(
                    f"{type(self.optimizer).__name__} needs clients with {key}={needed}, got a recipe with "
                    f"{key}={getattr(self.recipe, key)}"
                )

    def init(self, params: Float32) -> State:
        """The state before the first round, from initial parameters (d,)."""
        validate.vector(self.layout.size, params=params)
        if self.downlink is not None:
            SharedModel(params, self.downlink)  # refuses a codec that cannot be used for it
        state: State = {
            "version": 1,
            "round": 0,
            "params": params,
            "mode": self.mode.init(self.layout),
            "optimizer": self.optimizer.init(self.layout),
            "model_hashes": {"0": values_hash(params)},
        }
        if self.downlink is not None:
            state["held"] = params
        if self.channel.first_clip is not None:
            state["clip"] = self.channel.first_clip
        return state

    def held(self, state: State) -> Float32:
        """The model (d,) that clients hold and start the next round from."""
        params: Float32 = state["params"] if self.downlink is None else state["held"]
        return params

    def plan(self, state: State, version: int | None = None) -> RoundSpec:
        """What the next round asks of its clients; with a version, what was asked of those who start from that model.

        Raises
        ------
        InvalidValueError
            No update may start from that model any more, or yet.
        """
        version = int(state["round"]) if version is None else version
        if str(version) not in state["model_hashes"]:
            known = ", ".join(state["model_hashes"])
            raise InvalidValueError(f"expected a version that updates may start from ({known}), got {version}")
        return RoundSpec(
            run=self.run,
            round=version,
            model_hash=state["model_hashes"][str(version)],
            layout_hash=self.layout.digest,
            kind=self.channel.kind,
            visibility=self.channel.visibility,
            codec=self.channel.codec,
            public_seed=derive_seed(self.public_seed, version),
            groups=self.channel.group_size,
            max_norm=self.max_norm,
            max_examples=self.max_examples,
            clip=state.get("clip"),
            max_staleness=self.max_staleness,
            recipe=self.recipe.as_dict(),
            config_digest=self.config_digest,
        )

    def screen(
        self, update: Update, spec: RoundSpec, state: State, *, seen: set[str], verify: Verifier | None = None
    ) -> Accepted | Rejection:
        """Check one message; ``seen`` holds the clients accepted so far in this round."""
        hashes = {int(version): value for version, value in state["model_hashes"].items()}
        limit = self.channel.largest(self.layout)
        rejection = screen_envelope(update, spec, model_hashes=hashes, seen=seen, verify=verify, max_bytes=limit)
        if rejection is not None:
            return rejection
        row = self.channel.unpack(update, spec, self.layout)
        if isinstance(row, Rejection):
            return row
        # The row holds all that the payload said: keeping both would double the memory of a round.
        return Accepted(replace(update, payload=()), row, _length(update.payload))

    def cohort(
        self,
        accepted: Iterable[Screened],
        spec: RoundSpec,
        state: State,
        *,
        seed: int,
        silent: Iterable[str] = (),
        key: bytes | None = None,
        total: NDArray[Any] | None = None,
        allocate: Allocate = in_memory,
    ) -> Cohort | None:
        """The judge's view of a round, in the order of client ids whatever the order of arrival; ``None`` if empty.

        Parameters
        ----------
        accepted : iterable of Screened
            What passed. Rows are asked for one after another, and none is held.
        spec, state
            The round, and the state it was planned from.
        seed : int
            Of the judge, drawn after collection closed.
        silent : iterable of str
            Clients that began the round and of whom nothing came that could be used.
        key : bytes, optional
            Of the host's own noise, for simulations; the operating system's unless it is given.
        total : array, optional
            The sum of all that was accepted, where a secure aggregation computed it and nobody has the rows.
        allocate : callable
            Makes the matrix (n, d) that the judge reads, and what it computes of as many columns; in a file, for
            models of which so many would not fit.
        """
        ordered = sorted(accepted, key=lambda item: item.update.client_id)
        if not ordered:
            return None
        updates = {item.update.client_id: item.update for item in ordered}
        if total is not None and isinstance(self.channel, Private):
            units, rows, within = self.channel.shown([(Unit("sum", tuple(updates)), total)], spec)
        else:
            units, rows, within = self.channel.units(
                list(updates), _Rows(ordered), spec, seed=seed, silent=sorted(silent), key=key
            )
        if not units:
            return None
        X = allocate((len(units), self.layout.size))
        for index, row in enumerate(rows):
            X[index] = row
        told = _examples(list(updates.values())) if self.channel.tells_examples else np.ones(len(updates))
        examples = dict(zip(updates, told, strict=True))
        weights = dict(zip(updates, np.minimum(told, self.weight_cap * np.median(told)), strict=True))

        def of_members(value: Callable[[str], float], combine: Callable[[Iterable[float]], float]) -> list[float]:
            return [combine(value(member) for member in unit.members) for unit in units]

        staleness = np.array(of_members(lambda one: spec.round - int(updates[one].base_version), max), np.int64)
        counted = np.array(of_members(weights.__getitem__, sum), np.float64)
        return Cohort(
            spec=spec,
            params=self.held(state),
            units=units,
            X=UpdateMatrix(X, allocate=allocate),
            weights=counted / np.sqrt(1 + staleness),
            examples=np.array(of_members(examples.__getitem__, fmean), np.float64),
            staleness=staleness,
            received_at=np.array(of_members(lambda one: updates[one].received_at, max), np.float64),
            within_clip=within,
            max_byzantine=min(int(self.mode.bound * len(units) + 1e-9), len(units) - 1),
            seed=seed,
        )

    def reduce(self, cohort: Cohort | None, state: State) -> tuple[Outcome, State]:
        """Judge a round and step the model; a round that cannot be judged leaves the model as it was."""
        version = int(state["round"]) + 1
        if cohort is None:
            return self._failed(self.channel.nothing, version, state)
        try:
            judgement, mode_state = self.mode.judge(cohort, state["mode"])
        except (BoundError, UndecidedError) as error:  # too few updates for the rule, or a judge without a yardstick
            return self._failed(str(error), version, state)
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            summary = self._summary(cohort, judgement)
            params, optimizer_state = self.optimizer.step(
                state["params"], judgement.aggregate, state["optimizer"], summary
            )
        if not np.isfinite(params).all():
            return self._failed("the aggregate would make the model overflow; set max_norm", version, state)
        after = {**state, "round": version, "params": params, "mode": mode_state, "optimizer": optimizer_state}
        if cohort.within_clip is not None:
            after["clip"] = self.channel.next_clip(state["clip"], cohort.within_clip)
        model_bytes = None
        if self.downlink is not None:
            shared = SharedModel(state["held"], self.downlink)
            model_bytes = len(shared.publish(params, seed=cohort.spec.public_seed))
            after["held"] = shared.params
        after["model_hashes"] = self._remember(version, values_hash(self.held(after)), state)
        digests = {
            **judgement.digests,
            "mode": self.mode.digest,
            "model_before": cohort.spec.model_hash,
            "model_after": after["model_hashes"][str(version)],
        }
        return Outcome(replace(judgement, digests=digests), model_bytes=model_bytes), after

    def _summary(self, cohort: Cohort, judgement: Judgement) -> RoundSummary:
        """What the server optimiser is told about the units that counted."""
        counted = cohort.weights * np.array([verdict.weight for verdict in judgement.verdicts])
        shares = counted / counted.sum() if counted.any() else np.full(len(counted), 1 / len(counted))
        norms = cohort.X.norms()
        norms = np.minimum(norms, _LONGEST * np.median(norms[shares > 0]))
        held = np.minimum(cohort.examples, self.weight_cap * np.median(cohort.examples))
        steps = np.array([self.recipe.steps_for(int(count)) for count in held])
        return RoundSummary(
            mean_square_norm=float(shares @ np.square(norms)),
            mean_steps=float(shares @ steps),
            learning_rate=self.recipe.learning_rate,
            participation=min(1.0, np.count_nonzero(shares) / (self.clients or len(shares))),
        )

    def _failed(self, reason: str, version: int, state: State) -> tuple[Outcome, State]:
        current = state["model_hashes"][str(version - 1)]
        after = {**state, "round": version, "model_hashes": self._remember(version, current, state)}
        return Outcome(None, reason), after

    def _remember(self, version: int, model_hash: str, state: State) -> dict[str, str]:
        """Hashes of the model versions that updates of the next round may start from."""
        hashes = {**state["model_hashes"], str(version): model_hash}
        return {key: value for key, value in hashes.items() if int(key) >= version - self.max_staleness}


class _Rows(Sequence[NDArray[Any]]):
    """The rows of updates, each read when it is asked for."""

    def __init__(self, items: Sequence[Screened]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index].row

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (item.row for item in self._items)


def _examples(updates: list[Update]) -> NDArray[np.float64]:
    """Example counts as claimed; a client that gives none is taken to hold the median of the others."""
    counts = [update.num_examples for update in updates]
    typical = float(np.median([count for count in counts if count is not None] or [1]))
    return np.array([typical if count is None else count for count in counts], np.float64)


def _length(payload: bytes | Arrays) -> int:
    """Bytes of a payload that was read."""
    if isinstance(payload, bytes):
        return len(payload)
    arrays = payload.values() if isinstance(payload, Mapping) else payload
    return sum(np.asarray(array).nbytes for array in arrays)
