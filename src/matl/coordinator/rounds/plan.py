"""What a run is made of, and what all runs of a coordinator share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from matl.attest.claims import Clock, system_clock
from matl.attest.enrolment import Identity
from matl.attest.replay import ReplayCache
from matl.attest.verifying import SignatureVerifier
from matl.coordinator.keys import Keys
from matl.coordinator.rounds.drawing import Heard
from matl.coordinator.rounds.judge import Judge
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.custody import Custody
from matl.coordinator.storage.store import Store
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.privacy.manifest import Manifest
from matl.privacy.mechanism import Distributed
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
        if self.rules.over_selection is not None and (self.rules.deadline is None or self.workload.max_staleness):
            raise InvalidValueError(
                "expected a deadline and max_staleness=0 where some clients are invited to a round and others not, got "
                f"deadline={self.rules.deadline} and max_staleness={self.workload.max_staleness}: it would wait for "
                "ever for those who fall silent, or for updates that began in other rounds"
            )
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
        if isinstance(channel.mechanism, Distributed) and channel.mechanism.encoder.terms != self.manifest.sha256:
            raise InvalidValueError(
                f"expected an encoder of the manifest that clients are given, {self.manifest.sha256}, got one of "
                f"{channel.mechanism.encoder.terms or 'none'}: nobody's keys would fit; make it with Manifest.encoder"
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
    ledgers : Path
        Folder of the privacy ledgers of masked runs, see `matl.coordinator.rounds.spending`; made when it is needed.
    clock : Clock
        Tells the time.
    steady : callable
        Seconds that pass evenly, whatever is done to the clock.
    notify : callable
        Called whenever events were written to the store; it must not block.
    overrides : callable
        What operators decided about clients, as it is now.
    identities : callable
        Who is enrolled, by client id, as it is now.

    Attributes
    ----------
    heard : Heard
        Which of them were heard of lately.
    """

    store: Store
    blobs: Blobs
    keys: Keys
    verifier: SignatureVerifier
    replays: ReplayCache
    scratch: Path
    ledgers: Path
    clock: Clock = system_clock
    steady: Callable[[], float] = time.monotonic
    notify: Callable[[], None] = lambda: None
    overrides: Callable[[], Overrides] = Overrides
    identities: Callable[[], Mapping[str, Identity]] = dict
    heard: Heard = field(default_factory=Heard, init=False, repr=False)
    custody: Custody = field(default_factory=Custody, init=False, repr=False)

    def now(self) -> float:
        """Unix seconds."""
        return self.clock().timestamp()

    def able(self, run: str, *, masked: bool, deadline: float | None = None) -> dict[str, bool]:
        """The clients that may send updates for a run, and whether each was heard of lately."""
        held = self.overrides()
        return {
            client: self.heard.lately(client, deadline)
            for client, identity in self.identities().items()
            if identity.revoked_at is None
            and (identity.key.ed25519 is not None or not masked)
            and held.of(client, run) is None
        }

    async def delete_blob(self, name: str) -> None:
        """Delete a blob, unless the database is another process's by now, which may need it.

        Raises
        ------
        ServiceError
            ``"busy"``: it is; or the database or the blobs are out of reach.
        """
        await self.store.confirm()
        await self.blobs.delete(name)
