"""Whole rounds in one process, for the simulator: clients and server exchange the same bytes as over a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from matl.errors import AggregationAborted
from matl.privacy.secagg.client import Client
from matl.privacy.secagg.graph import draw_groups
from matl.privacy.secagg.masks import Vector
from matl.privacy.secagg.server import Aggregate, Server
from matl.privacy.secagg.session import Phase, Session
from matl.records import Rejection, Unit

__all__ = ["Dropouts", "Traffic", "aggregate_groups", "aggregate_in_memory", "answer", "new_identities", "public_keys"]

Dropouts = Mapping[Phase, Collection[str]]
"""By phase: ids of the clients that answer no more from then on."""


@dataclass(slots=True)
class Traffic:
    """Bytes and round trips of a round.

    Parameters
    ----------
    up, down : dict of Phase to int
        Bytes that all clients together sent to the server and received from it.
    largest_up, largest_down : dict of Phase to int
        The largest single message.
    round_trips : int
        Requests and answers one after another. The first two phases need nothing of the vector: they can run while
        clients compute it.
    """

    up: dict[Phase, int] = field(default_factory=dict)
    down: dict[Phase, int] = field(default_factory=dict)
    largest_up: dict[Phase, int] = field(default_factory=dict)
    largest_down: dict[Phase, int] = field(default_factory=dict)
    round_trips: int = 0

    def count(self, phase: Phase, down: Collection[int], up: Collection[int]) -> None:
        """Add one phase, from the sizes of its requests and answers."""
        self.down[phase], self.largest_down[phase] = sum(down), max(down, default=0)
        self.up[phase], self.largest_up[phase] = sum(up), max(up, default=0)
        self.round_trips += 1


def aggregate_in_memory(
    inputs: Mapping[str, Vector],
    session: Session,
    *,
    dropouts: Dropouts | None = None,
    identities: Mapping[str, Ed25519PrivateKey] | None = None,
) -> tuple[Aggregate, Traffic]:
    """Run one round among honest clients and an honest server.

    Parameters
    ----------
    inputs : mapping of str to uint8, uint16 or uint32 array of shape (length,)
        The vector of each client.
    session : Session
        What is aggregated.
    dropouts : mapping of Phase to collection of str, optional
        Who answers no more, from which phase on.
    identities : mapping of str to Ed25519PrivateKey, optional
        Identity keys; fresh ones by default.

    Returns
    -------
    aggregate : Aggregate
        The sum mod 2^bits and whose vectors are in it.
    traffic : Traffic
        Bytes and round trips.

    Raises
    ------
    AggregationAborted
        Too many dropped out.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = {name: np.full(3, 100, np.uint8) for name in "abcde"}
    >>> session = Session(run="demo", round=0, length=3, min_survivors=3)
    >>> aggregate, traffic = aggregate_in_memory(vectors, session, dropouts={Phase.MASK: ["b"], Phase.UNMASK: ["c"]})
    >>> aggregate  # 400 mod 256
    Aggregate(total=array([144, 144, 144], dtype=uint8), survivors=('a', 'c', 'd', 'e'))
    >>> traffic.round_trips, traffic.up[Phase.CONSISTENCY]
    (5, 276)
    """
    keys = new_identities(inputs) if identities is None else identities
    known = public_keys(keys)
    server = Server(session, known)
    clients = {name: Client(session, name, keys[name], known) for name in inputs}
    traffic, gone = Traffic(), set[str]()
    requests = dict.fromkeys(clients, b"")
    while server.phase is not Phase.DONE:
        phase = server.phase
        gone |= set((dropouts or {}).get(phase, ()))
        sent = []
        for name, request in requests.items():
            if name not in gone:
                data = answer(clients[name], phase, request, inputs[name])
                rejection = server.receive(name, data)
                if rejection is not None:
                    raise AssertionError(rejection.reason)
                sent.append(len(data))
        traffic.count(phase, [len(request) for request in requests.values()], sent)
        requests = server.advance()
    return server.result, traffic


def aggregate_groups(
    inputs: Mapping[str, Vector],
    session: Session,
    size: int,
    seed: int,
    *,
    dropouts: Dropouts | None = None,
    identities: Mapping[str, Ed25519PrivateKey] | None = None,
) -> dict[Unit, Aggregate | Rejection]:
    """Sums of random groups, each a secure aggregation of its own, for robust rules over group sums.

    Parameters
    ----------
    inputs, session, dropouts, identities
        As for `aggregate_in_memory`. ``session.min_survivors`` and ``session.corrupt`` are those of one group.
    size, seed : int
        As for `draw_groups`.

    Returns
    -------
    dict of Unit to Aggregate or Rejection
        The sum of each group, or why it has none. A group that fails costs no other.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = {name: np.ones(3, np.uint16) for name in "abcdefg"}
    >>> session = Session(run="demo", round=0, length=3, bits=16, min_survivors=2)
    >>> sums = aggregate_groups(vectors, session, size=3, seed=1, dropouts={Phase.MASK: ["a", "b", "c"]})
    >>> for unit, sum in sums.items():
    ...     print(unit.members, sum.code if isinstance(sum, Rejection) else sum.total)
    ('a', 'b', 'd', 'g') aborted
    ('c', 'e', 'f') [2 2 2]
    """
    keys = new_identities(inputs) if identities is None else identities
    sums: dict[Unit, Aggregate | Rejection] = {}
    for unit in draw_groups(inputs, size, seed):
        members = {name: inputs[name] for name in unit.members}
        try:
            sums[unit], _ = aggregate_in_memory(
                members, replace(session, group=unit.id), dropouts=dropouts, identities=keys
            )
        except AggregationAborted as error:
            sums[unit] = Rejection(unit.id, "aborted", str(error))
    return sums


def answer(client: Client, phase: Phase, request: bytes, vector: Vector) -> bytes:
    """What a client answers to the request of a phase."""
    if phase is Phase.ADVERTISE:
        return client.advertise()
    if phase is Phase.MASK:
        return client.mask(request, vector)
    return {Phase.SHARE: client.share, Phase.CONSISTENCY: client.confirm, Phase.UNMASK: client.unmask}[phase](request)


def new_identities(clients: Iterable[str]) -> dict[str, Ed25519PrivateKey]:
    """A fresh identity key for each client, from the operating system's randomness."""
    return {client: Ed25519PrivateKey.generate() for client in clients}


def public_keys(identities: Mapping[str, Ed25519PrivateKey]) -> dict[str, bytes]:
    """The table of public keys that every party is given."""
    return {client: key.public_key().public_bytes_raw() for client, key in identities.items()}
