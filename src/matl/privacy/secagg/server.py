"""The server's side of a secure aggregation: it passes messages on, and ends with a sum and nothing else.

The server here is honest but may crash: its state is plain data, from which another process goes on. What protects
clients from a server that is not honest is in `matl.privacy.secagg.client`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import asdict, dataclass, replace

from matl.errors import AggregationAborted, ProtocolError, StateError
from matl.privacy.secagg.graph import quorum
from matl.privacy.secagg.keys import (
    COMMITMENT_BYTES,
    CONFIRMATION_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    check_key,
    consistent,
    verified,
)
from matl.privacy.secagg.masks import Vector
from matl.privacy.secagg.messages import (
    MAX_ADVERTISEMENT,
    Advertisement,
    Certificate,
    Consistency,
    Delivery,
    MaskedInput,
    Message,
    Revealed,
    Roster,
    SealedShares,
    Survivors,
    pieces,
)
from matl.privacy.secagg.session import Phase, Registration, Session, check_advertisement
from matl.privacy.secagg.unmasking import Unmasking
from matl.records import Rejection
from matl.state import State

__all__ = ["Aggregate", "Server"]

_STATE_VERSION = 2  # since 2 a session has terms


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What a round gives.

    Parameters
    ----------
    total : uint8, uint16 or uint32 array of shape (length,)
        Sum of the survivors' vectors mod 2^bits.
    survivors : tuple of str
        Whose vectors are in it.
    """

    total: Vector
    survivors: tuple[str, ...]


class Server:
    """The server of one round: it receives what clients answer, and `advance` ends a phase.

    A host calls `advance` when its deadline has passed or nobody is awaited any more, writes `state` down, and then
    sends what `advance` returned. After a crash it goes on from the state and sends `requests` again: clients repeat
    what they answered.

    Parameters
    ----------
    session : Session
        What is aggregated.
    identities : mapping of str to bytes
        Ed25519 public keys (32 bytes) of the clients that may take part.

    Attributes
    ----------
    phase : Phase
        What is being waited for.
    """

    def __init__(self, session: Session, identities: Mapping[str, bytes]) -> None:
        self.session, self.phase = session, Phase.ADVERTISE
        self._identities = identities
        self._signed: dict[str, bytes] = {}  # by id: its advertisement
        self._keys: set[bytes] = set()
        self._registered: Registration  # from phase 2 on; clients then go by their number in it
        self._shares: dict[int, SealedShares] = {}
        self._masked: dict[int, MaskedInput] = {}  # their vectors are in the total
        self._signatures: dict[int, Consistency] = {}
        self._revealed: dict[int, dict[int, bytes]] = {}  # by holder, then by dealer
        self._misfits: set[tuple[int, int]] = set()  # holder and dealer of revealed shares that were not as committed
        self._statement: bytes | None = None  # what survivors sign, once they are fixed
        self._total = session.empty()
        self._result: Aggregate | None = None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Ids of the clients that may still answer in this phase."""
        if self.phase is Phase.ADVERTISE:
            return tuple(sorted(set(self._identities) - set(self._signed)))
        return tuple(self._registered.clients[i] for i in self._asked() if i not in self._answered(self.phase))

    @property
    def disputes(self) -> tuple[tuple[str, str], ...]:
        """Pairs (holder, dealer) of clients one of whom broke the protocol: a share did not open or was another."""
        unopened = {(holder, dealer) for holder, message in self._masked.items() for dealer in message.unopened}
        names = self._registered.clients if unopened or self._misfits else ()
        return tuple((names[holder], names[dealer]) for holder, dealer in sorted(unopened | self._misfits))

    @property
    def result(self) -> Aggregate:
        """The sum.

        Raises
        ------
        AggregationAborted
            The round is not done.
        """
        if self._result is None:
            raise AggregationAborted(f"there is no sum yet: the round is in the phase {self.phase}")
        return self._result

    def receive(self, sender: str, data: bytes) -> Rejection | None:
        """Take one answer of the present phase.

        Parameters
        ----------
        sender : str
            Who sent it, as the host authenticated it.
        data : bytes
            The answer.

        Returns
        -------
        Rejection or None
            Why it does not count; ``None`` if it does. The first valid answer stands.
        """
        try:
            if self.phase is Phase.ADVERTISE:
                self._register(sender, data)
            else:
                self._take(sender, data)
        except ProtocolError as error:
            return Rejection(sender, error.code, str(error))
        return None

    def advance(self) -> dict[str, bytes]:
        """End the present phase and return the requests of the next; there are none once the round is done.

        Raises
        ------
        AggregationAborted
            Too few clients answered, or a secret cannot be recovered; the message says whose. Nobody's vector is known
            then. The phase has not ended, and answers that are late may still save the round.
        """
        if self.phase is Phase.ADVERTISE:
            self._require(len(self._signed), self.session.needed(len(self._signed)))
            self._registered = self._registration()
        elif self.phase is Phase.UNMASK:
            self._finish()
        elif self.phase is not Phase.DONE:
            signing = self.phase is Phase.CONSISTENCY
            needed = self._quorum if signing else self.session.needed(len(self._registered.signed))
            self._require(len(self._answered(self.phase)), needed)
        phases = list(Phase)
        self.phase = phases[min(phases.index(self.phase) + 1, len(phases) - 1)]
        return self.requests()

    def requests(self) -> dict[str, bytes]:
        """The request of the present phase to each client that is asked, by id; the same at every call."""
        asked = self._asked()
        requests: dict[int, bytes] = {}
        if self.phase is Phase.SHARE:
            requests = dict.fromkeys(asked, Roster(self._registered.signed).to_bytes())
        elif self.phase is Phase.MASK:
            blobs = {i: message.sealed for i, message in self._shares.items()}
            given = self._exchanged(blobs, SEALED_BYTES, frozenset(range(len(self._registered.signed))))
            requests = {i: Delivery(asked, given[i]).to_bytes() for i in asked}
        elif self.phase is Phase.CONSISTENCY:
            blobs = {i: message.confirmations for i, message in self._masked.items()}
            given = self._exchanged(blobs, CONFIRMATION_BYTES, self._shares.keys())
            requests = {i: Survivors(asked, given[i]).to_bytes() for i in asked}
        elif self.phase is Phase.UNMASK:
            signers = tuple(sorted(list(self._signatures)[: self._quorum]))
            signatures = b"".join(self._signatures[i].signature for i in signers)
            requests = dict.fromkeys(asked, Certificate(signers, signatures).to_bytes())
        return {self._registered.clients[i]: request for i, request in requests.items()}

    def _exchanged(self, blobs: Mapping[int, bytes], size: int, members: Set[int]) -> dict[int, bytes]:
        """Sort pieces that each sender has for its neighbours among some members into a blob for each sender."""
        received: dict[int, list[bytes]] = {client: [] for client in blobs}
        for sender in sorted(blobs):
            peers = self._registered.neighbours_among(sender, members)
            for peer, piece in zip(peers, pieces("a blob", blobs[sender], size, len(peers)), strict=True):
                if peer in received:
                    received[peer].append(piece)
        return {client: b"".join(parts) for client, parts in received.items()}

    def state(self) -> State:
        """All that a new process needs to go on, as plain data (see `matl.state`).

        It holds public keys, ciphertexts, commitments, signatures, and a masked sum or the result; no share of a
        secret, not even the revealed ones: clients repeat those.
        """
        return {
            "version": _STATE_VERSION,
            "session": asdict(self.session),
            "phase": self.phase.value,
            "signed": dict(self._signed),
            "shares": _packed(self._shares),
            "masked": _packed(self._masked),
            "signatures": _packed(self._signatures),
            "total": self.session.raw(self._total),
        }

    @classmethod
    def restore(cls, state: State, identities: Mapping[str, bytes]) -> Server:
        """Go on from a `state`.

        Raises
        ------
        StateError
            It is not one, or of another version.
        """
        if state.get("version") != _STATE_VERSION:
            raise StateError(f"expected an aggregation of version {_STATE_VERSION}, got {state.get('version')!r}")
        try:
            server = cls(Session(**state["session"]), identities)
            for client, data in state["signed"].items():
                server._register(client, data)
            server.phase, limit = Phase(state["phase"]), server.session.max_message
            if server.phase is not Phase.ADVERTISE:
                server._registered = server._registration()
            server._shares = {i: SealedShares.from_bytes(data, limit) for i, data in state["shares"]}
            server._masked = {i: MaskedInput.from_bytes(data, limit) for i, data in state["masked"]}
            server._signatures = {i: Consistency.from_bytes(data, limit) for i, data in state["signatures"]}
            server._total = server.session.vector(state["total"]).astype(server.session.dtype)
            if server.phase is Phase.DONE:
                server._result = server._aggregate()
        except (KeyError, TypeError, ValueError, AttributeError, ProtocolError) as error:
            raise StateError(f"the state of an aggregation cannot be read: {error}") from error
        return server

    def _register(self, sender: str, data: bytes) -> None:
        if sender in self._signed:
            raise ProtocolError("duplicate", f"{sender!r} has registered already; the first answer stands")
        item = Advertisement.from_bytes(data, MAX_ADVERTISEMENT)
        if item.client_id != sender:
            raise ProtocolError("unknown", f"{sender!r} sent the keys of {item.client_id!r}")
        check_advertisement(self.session, item, self._identities)
        keys = {item.cipher_key, item.mask_key}
        if len(keys) < 2 or keys & self._keys:
            raise ProtocolError("key", f"a key of {sender!r} serves twice")
        for key in keys:
            check_key(key)
        self._keys |= keys
        self._signed[sender] = data

    def _registration(self) -> Registration:
        return Registration(self.session, tuple(self._signed[client] for client in sorted(self._signed)))

    def _take(self, sender: str, data: bytes) -> None:
        client, phase = self._registered.numbers.get(sender), self.phase
        if client is None:
            raise ProtocolError("unknown", f"{sender!r} has not registered for this round")
        if client not in self._before():
            raise ProtocolError("unasked", f"{sender!r} is not asked in the phase {phase}: it left the round before")
        if client in self._answered(phase):
            raise ProtocolError("duplicate", f"{sender!r} has answered in the phase {phase}; the first answer stands")
        if phase is Phase.SHARE:
            self._take_shares(client, SealedShares.from_bytes(data, self.session.max_message))
        elif phase is Phase.MASK:
            self._take_masked(client, MaskedInput.from_bytes(data, self.session.max_message))
        elif phase is Phase.CONSISTENCY:
            self._take_signature(client, Consistency.from_bytes(data, self.session.max_message))
        else:
            self._take_revealed(client, Revealed.from_bytes(data, self.session.max_message))

    def _take_shares(self, client: int, message: SealedShares) -> None:
        degree = self._registered.graph.degree
        pieces("SealedShares.sealed", message.sealed, SEALED_BYTES, degree)
        pieces("SealedShares.commitments", message.commitments, 2 * COMMITMENT_BYTES, degree)
        self._shares[client] = message

    def _take_masked(self, client: int, message: MaskedInput) -> None:
        peers = self._registered.neighbours_among(client, self._shares)
        pieces("MaskedInput.confirmations", message.confirmations, CONFIRMATION_BYTES, len(peers))
        vector = self.session.vector(message.masked)
        if not set(message.unopened) <= set(peers):
            raise ProtocolError("malformed", "MaskedInput.unopened: expected numbers of neighbours that shared")
        self._total += vector
        self._masked[client] = replace(message, masked=b"")

    def _take_signature(self, client: int, message: Consistency) -> None:
        if self._statement is None:
            self._statement = consistent(self._registered.transcript, sorted(self._shares), sorted(self._masked))
        name = self._registered.clients[client]
        # A quorum of signatures is passed on, the first that came: later ones only say who is still there.
        missing = len(self._signatures) < self._quorum
        if missing and not verified(self._identities[name], message.signature, self._statement):
            raise ProtocolError("signature", f"{name!r} did not sign the survivors it was shown")
        self._signatures[client] = message

    def _take_revealed(self, client: int, message: Revealed) -> None:
        shares = pieces("Revealed.shares", message.shares, SHARE_BYTES, len(message.dealers))
        if not set(message.dealers) <= set(self._registered.neighbours_among(client, self._shares)):
            raise ProtocolError("malformed", "Revealed.dealers: expected numbers of neighbours that shared")
        self._revealed[client] = dict(zip(message.dealers, shares, strict=True))

    def _finish(self) -> None:
        unmasking = Unmasking(self._registered, self._shares, frozenset(self._masked), self._misfits)
        unmasking.unmask(self._total, self._revealed)
        self._result = self._aggregate()
        self._revealed.clear()

    def _aggregate(self) -> Aggregate:
        return Aggregate(
            self.session.reduced(self._total), tuple(self._registered.clients[i] for i in sorted(self._masked))
        )

    def _answered(self, phase: Phase) -> Mapping[int, object]:
        """What came in a phase, by client."""
        answers: dict[Phase, Mapping[int, object]] = {
            Phase.SHARE: self._shares,
            Phase.MASK: self._masked,
            Phase.CONSISTENCY: self._signatures,
            Phase.UNMASK: self._revealed,
        }
        return answers[phase]

    def _before(self) -> Collection[int]:
        """Who answered in the phase before, and is therefore asked in this one."""
        if self.phase is Phase.SHARE:
            return range(len(self._registered.signed))
        phases = list(Phase)
        asked = self.phase not in (Phase.ADVERTISE, Phase.DONE)
        return self._answered(phases[phases.index(self.phase) - 1]) if asked else ()

    def _asked(self) -> tuple[int, ...]:
        return tuple(sorted(self._before()))

    @property
    def _quorum(self) -> int:
        return quorum(len(self._registered.signed), self.session.corrupt)

    def _require(self, count: int, needed: int) -> None:
        if count < needed:
            raise AggregationAborted(
                f"expected at least {needed} clients in the phase {self.phase}, got {count}: nobody's vector is known; "
                "wait for more, or start a new round"
            )


def _packed(messages: Mapping[int, Message]) -> list[list[int | bytes]]:
    return [[client, message.to_bytes()] for client, message in messages.items()]
