"""The records of a round and the protocol of a judge.

An update travels one way: a client sends an `Update`, screening turns it into a row of a `Cohort` or a `Rejection`,
a `Mode` turns the cohort into a `Judgement` with one `Verdict` per unit. None of these records has a place for who is
really malicious: that knowledge exists only in simulations, and stays there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import Arrays, Float32, ParamLayout
from matl.state import State

__all__ = [
    "LARGEST_NORM",
    "Cohort",
    "Judgement",
    "Mode",
    "Rejection",
    "RoundSpec",
    "Status",
    "Unit",
    "Update",
    "Verdict",
    "Visibility",
]

LARGEST_NORM = 1e18
"""L2 norm above which no update is believed: products of longer ones overflow float32, and with it any judge."""


class Visibility(StrEnum):
    """What the judge may see of single updates."""

    CLEAR = "clear"  # every client's update
    SEALED = "sealed"  # every update, inside an attested oracle only
    GROUPED = "grouped"  # sums of random groups
    SUMMED = "summed"  # one sum


class Status(StrEnum):
    """What a verdict says, from best to worst."""

    ACCEPTED = "accepted"
    CLIPPED = "clipped"  # counted, shortened to the norm of its peers
    SUSPECTED = "suspected"  # counted with less weight
    QUARANTINED = "quarantined"  # not counted
    REJECTED = "rejected"  # never reached the judge; screening says why


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSpec:
    """What a round asks of its clients, fixed before it opens.

    Parameters
    ----------
    run : str
        Identifier of the run.
    round : int
        Index of the round, from 0; also the version of the model it starts from.
    model_hash : str
        SHA-256 of the parameters the clients start from.
    layout_hash : str
        Digest of the `ParamLayout`.
    kind : str
        What an update holds: ``"delta"`` (new minus old parameters), ``"histogram"`` or ``"masked"``.
    visibility : Visibility
        What the judge will see.
    codec : str
        How payload bytes are encoded; ``"safetensors"`` is plain named arrays.
    max_norm : float or None
        L2 norm above which screening rejects an update; ``None`` for no bound.
    max_examples : int
        Largest number of examples a client may claim; weights are proportional to it.
    clip : float or None
        L2 norm to which clients shorten their updates, where that changes from round to round.
    public_seed : int
        Seed everybody may know, for public randomness such as rotations.
    groups : int or None
        Fewest clients of a unit; 1 where every client is seen alone, ``None`` for one unit of all.
    phases : tuple of str
        Phases the host walks through.
    deadline : float or None
        Seconds after opening when the round closes; ``None`` to wait for everyone.
    max_staleness : int
        How many rounds old the model an update started from may be.
    recipe : mapping
        What clients do locally, as plain data.
    config_digest : str
        Digest of the configuration of the run.
    """

    run: str
    round: int
    model_hash: str
    layout_hash: str
    kind: str = "delta"
    visibility: Visibility = Visibility.CLEAR
    codec: str = "safetensors"
    max_norm: float | None = None
    max_examples: int = 1_000_000
    clip: float | None = None
    public_seed: int = 0
    groups: int | None = 1
    phases: tuple[str, ...] = ("collect",)
    deadline: float | None = None
    max_staleness: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    config_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one client sends in one round. Nothing in it is trusted before screening.

    Parameters
    ----------
    client_id : str
        Who claims to send it.
    run, round : str, int
        The round it is meant for.
    base_version : int
        The round whose model the client started from.
    model_hash : str
        The hash of that model, as the client saw it.
    payload : bytes or arrays
        Encoded bytes as they came over a wire, or named arrays when the client lives in the same process.
    payload_sha256 : str or None
        SHA-256 (hex) of the bytes; ``None`` for arrays.
    num_examples : int or None
        How many examples it was trained on; absent under distributed privacy or masking.
    kind : str
        As `RoundSpec.kind`.
    nonce : str
        Makes two sendings distinguishable.
    created_at : float
        The client's own clock, Unix seconds.
    received_at : float
        When it arrived, seconds after the round opened.
    signature : bytes
        Over the canonical text of the above; checked by the verifier that the host injects.
    evidence : mapping
        What else the client offers, such as an attestation.
    """

    client_id: str
    run: str
    round: int
    base_version: int
    model_hash: str
    payload: bytes | Arrays
    payload_sha256: str | None = None
    num_examples: int | None = None
    kind: str = "delta"
    nonce: str = ""
    created_at: float = 0.0
    received_at: float = 0.0
    signature: bytes = b""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an update never reached the judge.

    Parameters
    ----------
    client_id : str
        Who claimed to send it.
    code : str
        Stable short name of the reason, e.g. ``"shape"``, ``"not_finite"``, ``"duplicate"``.
    reason : str
        The same in words, with the value seen and the value allowed.
    """

    client_id: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unit:
    """What a verdict attaches to: one client, or a group of which only the sum is visible."""

    id: str
    members: tuple[str, ...]

    @classmethod
    def of(cls, client_id: str) -> Unit:
        """The unit of a client that is seen alone."""
        return cls(client_id, (client_id,))


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Everything a judge is given about a round.

    Parameters
    ----------
    spec : RoundSpec
        What was asked.
    params : float32 array of shape (d,)
        The parameters the clients started from.
    units : tuple of Unit
        The n units; row i of ``X`` belongs to ``units[i]``.
    X : UpdateMatrix
        The screened updates, (n, d).
    weights : float64 array of shape (n,)
        What each counts for: example counts, capped, and less for stale units.
    examples : float64 array of shape (n,)
        Example counts as they were claimed; of a group, the mean of its members. They tell a judge how long a unit
        trained and how closely it fits its data, and are no measure of what it should count for.
    staleness : int64 array of shape (n,)
        Rounds between the model a unit started from and the current one.
    received_at : float64 array of shape (n,)
        Seconds after the round opened.
    within_clip : float or None
        Share of the clients whose updates were no longer than the clipping norm, where that adapts.
    max_byzantine : int
        Declared bound on the number of malicious units; never the true count.
    seed : int
        Drawn after collection closed, and recorded: all randomness of the judge comes from it.
    self_index : int or None
        The judge's own row, when the judge is itself a participant (gossip).
    """

    spec: RoundSpec
    params: Float32
    units: tuple[Unit, ...]
    X: UpdateMatrix
    weights: NDArray[np.float64]
    examples: NDArray[np.float64]
    staleness: NDArray[np.int64]
    received_at: NDArray[np.float64]
    within_clip: float | None = None
    max_byzantine: int = 0
    seed: int = 0
    self_index: int | None = None

    def __post_init__(self) -> None:
        n = len(self.units)
        validate.at_least(1, units=n)
        if self.X.shape != (n, self.params.size):
            raise InvalidValueError(
                f"expected X of shape (units, parameters) = ({n}, {self.params.size}), got {self.X.shape}"
            )
        if len({unit.id for unit in self.units}) != n:
            raise InvalidValueError("expected unique unit ids, got duplicates; screening removes them")
        validate.vector(params=self.params)
        validate.sample_weights(n, weights=self.weights)
        validate.sample_weights(n, examples=self.examples)
        for name in ("staleness", "received_at"):
            validate.vector(n, **{name: getattr(self, name)})
        if not 0 <= self.max_byzantine < n:
            raise InvalidValueError(
                f"expected 0 <= max_byzantine < n, got max_byzantine={self.max_byzantine} and n={n}"
            )

    @property
    def ids(self) -> tuple[str, ...]:
        """Unit ids in row order."""
        return tuple(unit.id for unit in self.units)

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        *,
        params: NDArray[Any] | None = None,
        ids: tuple[str, ...] | list[str] | None = None,
        weights: NDArray[Any] | None = None,
        max_byzantine: int | None = None,
        round: int = 0,  # noqa: A002 - the field's word
        seed: int = 0,
    ) -> Cohort:
        """A cohort from a bare matrix of updates, for a judge used outside a federation.

        Parameters
        ----------
        X : array of shape (n, d)
            One update per row.
        params : array of shape (d,), optional
            The parameters the updates started from; zeros if not given. Mode 1 needs the real ones.
        ids : sequence of str, optional
            Client names; ``"client-000"``, ... if not given.
        weights : array of shape (n,), optional
            Example counts; all equal if not given.
        max_byzantine : int, optional
            Declared bound on malicious units; a third of n, the most that holds without trusted data, if not given.
        round, seed : int
            As in `RoundSpec` and `Cohort`.

        Examples
        --------
        >>> import numpy as np
        >>> Cohort.of(np.eye(3)).ids
        ('client-000', 'client-001', 'client-002')
        """
        matrix = UpdateMatrix.of(X)
        validate.finite_matrix(X=matrix.dense())
        longest = float(matrix.norms().max())
        if longest > LARGEST_NORM:
            raise InvalidValueError(
                f"expected rows of norm <= {LARGEST_NORM:g}, got {longest:.3g}; screen updates first"
            )
        n, d = matrix.shape
        counts = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
        start = np.zeros(d, np.float32) if params is None else np.asarray(params, dtype=np.float32)
        layout = ParamLayout.of({"params": np.zeros(d, np.float32)})
        names = ids if ids is not None else [f"client-{i:03d}" for i in range(n)]
        return cls(
            spec=RoundSpec(run="direct", round=round, model_hash="", layout_hash=layout.digest),
            params=start,
            units=tuple(Unit.of(name) for name in names),
            X=matrix,
            weights=counts,
            examples=counts,
            staleness=np.zeros(n, np.int64),
            received_at=np.zeros(n),
            max_byzantine=n // 3 if max_byzantine is None else max_byzantine,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says about one unit in one round.

    Parameters
    ----------
    unit : str
        The unit's id.
    weight : float
        Share of its own weight with which it counted, in [0, 1].
    status : Status
        What was decided.
    evidence : mapping of str to float
        Value of every channel that had an opinion.
    reason : str
        The decision in words a person can check; never empty unless the unit was accepted.
    """

    unit: str
    weight: float
    status: Status
    evidence: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a round.

    Parameters
    ----------
    aggregate : float32 array of shape (d,)
        What the server optimiser applies.
    verdicts : tuple of Verdict
        One per unit, in the cohort's order.
    diagnostics : mapping
        Numbers and words about the round as a whole, as plain data.
    digests : mapping of str to str
        Hashes of what went in (updates, state, judge), so that the round can be re-verified.
    """

    aggregate: Float32
    verdicts: tuple[Verdict, ...]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


class Mode(Protocol):
    """A judge: a pure function over serialisable state.

    ``judge`` reads no clock and no global randomness, and does not change what it is given: the same cohort and state
    give the same bits, anywhere.

    Examples
    --------
    The smallest judge there is believes everyone:

    >>> class Trusting:
    ...     digest = "trusting-1"
    ...     bound = 0.0
    ...     gives_verdicts = True
    ...     channels = ()
    ...
    ...     def init(self, layout):
    ...         return {"version": 1, "rounds": 0}
    ...
    ...     def judge(self, cohort, state):
    ...         verdicts = tuple(Verdict(id, 1.0, Status.ACCEPTED) for id in cohort.ids)
    ...         mean = np.average(cohort.X.dense(), axis=0, weights=cohort.weights).astype(np.float32)
    ...         return Judgement(mean, verdicts), {**state, "rounds": state["rounds"] + 1}
    >>> mode: Mode = Trusting()
    >>> cohort = Cohort.of(np.array([[1.0, 3.0], [3.0, 5.0]]))
    >>> judgement, state = mode.judge(cohort, mode.init(ParamLayout.of([cohort.params])))
    >>> judgement.aggregate
    array([2., 4.], dtype=float32)
    """

    @property
    def digest(self) -> str:
        """SHA-256 of everything the judge is built from."""

    @property
    def bound(self) -> float:
        """Largest fraction of malicious units it is designed for."""

    @property
    def gives_verdicts(self) -> bool:
        """Whether it names malicious units at all, or only aggregates."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all evidence channels its verdicts may hold."""

    def init(self, layout: ParamLayout) -> State:
        """The state before the first round."""

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """Judge one round; return the judgement and the state after it."""
