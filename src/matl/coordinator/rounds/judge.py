"""What a run hands to its judge, and what it gets back, wherever the judge is: a thread, or an oracle elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from matl.records import Rejection, RoundSpec, Status, Update
from matl.state import State

__all__ = ["Judge", "JudgeAnswer", "JudgeRequest", "MemberVerdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """A round whose collection is closed. The same request, however often it is made, has the same answer.

    Parameters
    ----------
    spec : RoundSpec
        The round.
    state : State
        The workload's before the round.
    seed : int
        Of the judge, drawn after collection closed.
    heads : tuple of Update
        What was accepted, in the order of client ids, with empty payloads; signatures and hashes are there.
    payload : callable
        Reads the payload of a client, by its id. It is called in any thread, for one client after another.
    silent : tuple of str
        Clients that began the round and of whom nothing came that could be used, in order.
    total : array or None
        The sum of what the clients of the heads sent, in a masked round; nobody has their payloads then.
    """

    spec: RoundSpec
    state: State
    seed: int
    heads: tuple[Update, ...]
    payload: Callable[[str], bytes]
    silent: tuple[str, ...] = ()
    total: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberVerdict:
    """What was decided about one client; the members of a group share the verdict on it."""

    client: str
    status: Status
    weight: float
    reason: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None  # as far as the judge has an opinion, and a finite one


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAnswer:
    """What a round came to.

    Parameters
    ----------
    state : State
        The workload's after the round.
    verdicts : tuple of MemberVerdict
        One for each client that was judged, in the order of their ids; of a failed round, none.
    rejections : tuple of Rejection
        Updates of the request whose values only the judge could see, and could not take; in the order of client ids.
    failure : str
        Why the round failed, in words; empty if it did not.
    figures : mapping
        Of the round, JSON: ``aggregate_norm`` (0 if it failed), ``model_bytes``, ``diagnostics``, ``digests``.
    receipts : mapping of str to bytes, or None
        By client, signed where it was judged; ``None`` to have the coordinator sign them.
    """

    state: State
    verdicts: tuple[MemberVerdict, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    failure: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    receipts: Mapping[str, bytes] | None = None


class Judge(Protocol):
    """Judges a round.

    Raises
    ------
    ServiceError
        It cannot be reached, or not now; the round stays as it is and is judged later.
    AttestationError
        It does not prove to be what it was pinned to; the round stays as it is, and an operator has to look.
    UndecidedError
        It refuses this round, which fails, with the message as its reason.
    """

    async def __call__(self, request: JudgeRequest) -> JudgeAnswer:
        """Judge a round."""
