"""What a run is made of, and what all runs of a coordinator share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from matl.attest.claims import Clock, system_clock
from matl.attest.replay import ReplayCache
from matl.attest.verifying import SignatureVerifier
from matl.coordinator.blobs import Blobs
from matl.coordinator.custody import Custody
from matl.coordinator.judge import Judge
from matl.coordinator.keys import Keys
from matl.coordinator.machine import Rules
from matl.coordinator.overrides import Overrides
from matl.coordinator.store import Store
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.privacy.mechanism import Distributed
from matl.protocol.messages import OracleView
from matl.workloads import Private, TrainingWorkload

__all__ = ["Host", "Planner", "RunPlan"]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run, as its settings have it.

    Parameters
    ----------
    workload : TrainingWorkload
        What is judged, and how; its ``run`` is the run's id.
    params : float32 array of shape (d,)
        The model that the first round starts from.
    rounds : int or None
        How many rounds there are, failed ones included; ``None`` for no end.
    seed : int
        Of the settings.
    rules : Rules
        When rounds close.
    mode : str
        What the judge is called.
    carried : mapping of str to array
        Arrays of the model beside the vector, which no round changes.
    oracle : OracleView or None
        The oracle that clients seal their updates for.
    judge : Judge or None
        Who judges; ``None`` for the workload itself, in this process.
    judge_seed : callable, optional
        The judge's seed of a round, for simulated networks, whose runs can be repeated. It is drawn from the operating
        system otherwise.
    noise_key : callable, optional
        The key (32 bytes) of the host's own noise in a round, likewise.
    arrival : callable, optional
        When the update of a client in a round counts as arrived, in seconds after the round opened, likewise; by the
        clock otherwise.

    Raises
    ------
    InvalidValueError
        The workload needs what no network has yet.
    """

    workload: TrainingWorkload
    params: Float32
    rounds: int | None
    seed: int
    rules: Rules
    mode: str
    carried: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    oracle: OracleView | None = None
    judge: Judge | None = None
    judge_seed: Callable[[int], int] | None = None
    noise_key: Callable[[int], bytes] | None = None
    arrival: Callable[[int, str], float] | None = None

    def __post_init__(self) -> None:
        channel = self.workload.channel
        if isinstance(channel, Private) and isinstance(channel.mechanism, Distributed) and channel.group_size != 1:
            raise InvalidValueError(
                "expected updates that a coordinator may see one by one, got distributed noise, which protects sums "
                "alone: without the masked phases, which this version does not have, every update would be seen; "
                "choose local or central noise"
            )
        if len(self.rules.phases) != 1:
            raise InvalidValueError(f"expected rounds of one phase, got phases={self.rules.phases}")


Planner = Callable[[str, Mapping[str, Any]], RunPlan]
"""Makes the plan of a run from its id and its settings."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What all runs of a coordinator share.

    Parameters
    ----------
    store : Store
        The database.
    blobs : Blobs
        Payloads, models and states.
    keys : Keys
        What receipts are signed with, and what noise is drawn from.
    verifier : SignatureVerifier
        Checks who sent an update.
    replays : ReplayCache
        The verifier's own, with what the store remembers restored.
    scratch : Path
        Folder on a disk for the matrix of a round, 4 n d bytes, while it is judged; nothing in it outlives a process.
    clock : Clock
        Tells the time.
    steady : callable
        Seconds that pass evenly, whatever is done to the clock.
    notify : callable
        Called whenever events were written to the store; it must not block.
    overrides : callable
        What operators decided about clients, as it is now.
    """

    store: Store
    blobs: Blobs
    keys: Keys
    verifier: SignatureVerifier
    replays: ReplayCache
    scratch: Path
    clock: Clock = system_clock
    steady: Callable[[], float] = time.monotonic
    notify: Callable[[], None] = lambda: None
    overrides: Callable[[], Overrides] = Overrides
    custody: Custody = field(default_factory=Custody, init=False, repr=False)

    def now(self) -> float:
        """Unix seconds."""
        return self.clock().timestamp()
