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
from matl.coordinator.keys import Keys
from matl.coordinator.rounds.judge import Judge
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.custody import Custody
from matl.coordinator.storage.store import Store
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.privacy.manifest import Manifest
from matl.privacy.secagg import Phase
from matl.protocol.messages import OracleView
from matl.workloads import Private, TrainingWorkload

__all__ = ["PHASES", "Host", "Planner", "RunPlan"]

PHASES = tuple(phase.value for phase in Phase if phase is not Phase.DONE)
"""Of a masked round."""


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
    manifest : Manifest or None
        The constants that clients certify for themselves, of a run whose sums are masked.
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
    manifest: Manifest | None = None

    @property
    def masked(self) -> bool:
        """Whether updates are added by secure aggregation, phase by phase."""
        channel = self.workload.channel
        return isinstance(channel, Private) and channel.by_phases

    def __post_init__(self) -> None:
        if self.masked:
            self._check_masked()
        elif len(self.rules.phases) != 1:
            raise InvalidValueError(f"expected rounds of one phase, got phases={self.rules.phases}")

    def _check_masked(self) -> None:
        channel, rules = self.workload.channel, self.rules
        if not isinstance(channel, Private) or channel.group_size is not None:
            raise InvalidValueError(
                "expected one masked sum of all clients over a network, got groups, whose members would have to be "
                "agreed on in a phase of their own; leave privacy.group_size out, or simulate groups with matl run"
            )
        if channel.adaptive is not None:
            raise InvalidValueError(
                "expected a fixed clipping norm over a network, got privacy.adaptive, of which no manifest tells "
                "for clients to certify; leave it out"
            )
        if self.manifest is None or self.judge is not None or self.workload.max_staleness:
            raise InvalidValueError(
                f"expected masked rounds with a manifest, without an oracle, and with max_staleness=0, got "
                f"manifest={'none' if self.manifest is None else 'one'}, an oracle: {self.judge is not None}, "
                f"max_staleness={self.workload.max_staleness}: a sum is of one round"
            )
        if rules.phases != PHASES or rules.deadline is None or rules.quorum < channel.least:
            raise InvalidValueError(
                f"expected masked rounds with the phases {', '.join(PHASES)}, a deadline for each, and a quorum of at "
                f"least {channel.least}, whose noise the guarantee needs, got phases={rules.phases}, "
                f"deadline={rules.deadline} and quorum={rules.quorum}"
            )


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
