"""The client's side of a secure aggregation: five answers, each given once, and the checks a lying server fails."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from matl import validate
from matl.errors import AggregationAborted, InvalidValueError, MatlError, ProtocolError
from matl.privacy.secagg import shamir
from matl.privacy.secagg.graph import quorum
from matl.privacy.secagg.keys import (
    CONFIRMATION_BYTES,
    KEY_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    SIGNATURE_BYTES,
    Channel,
    advertised,
    consistent,
    mask_key,
    seed_commitment,
    self_mask_key,
    share_commitment,
    sharers_digest,
    verified,
)
from matl.privacy.secagg.masks import Vector, add_masks
from matl.privacy.secagg.messages import (
    Advertisement,
    Certificate,
    Consistency,
    Delivery,
    MaskedInput,
    Revealed,
    Roster,
    SealedShares,
    Survivors,
    pieces,
)
from matl.privacy.secagg.session import Phase, Registration, Session
from matl.records import Rejection

__all__ = ["Client"]


class Client:
    """One client in one round.

    Each method takes the server's request and returns the answer. The same request again gets the same bytes, so that
    a server may repeat what it lost; another request for the same phase is refused, and so is everything after the
    first refusal. Nothing here survives the process: a client that crashed has dropped out.

    What the server can learn, if at most ``session.corrupt`` clients work for it, is the sum over one set of at least
    ``session.min_survivors`` clients. See the page on secure aggregation for the argument.

    Parameters
    ----------
    session : Session
        What is aggregated, as the client knows it from outside.
    client_id : str
        Its own id.
    identity : Ed25519PrivateKey
        Its identity key.
    identities : mapping of str to bytes
        Ed25519 public keys (32 bytes) of all clients that may take part, from outside: whoever writes this table can
        pose as any number of clients.
    last_round : int
        The last round of this run that the client took part in, -1 if none. The host keeps it, and writes the new one
        down *before* it sends the first answer: two sums over one vector give away more than one.

    Raises
    ------
    ProtocolError
        The round is not after ``last_round``.
    InvalidValueError
        The table of identities has another key for this client than its own.

    Attributes
    ----------
    faults : list of Rejection
        What single neighbours, or the server in their name, did wrong and the round survives.

    Examples
    --------
    >>> identity = Ed25519PrivateKey.generate()
    >>> session = Session(run="demo", round=0, length=4, min_survivors=2)
    >>> client = Client(session, "a", identity, {"a": identity.public_key().public_bytes_raw()})
    >>> len(client.advertise())
    139
    """

    def __init__(
        self,
        session: Session,
        client_id: str,
        identity: Ed25519PrivateKey,
        identities: Mapping[str, bytes],
        *,
        last_round: int = -1,
    ) -> None:
        validate.whole(-1, last_round=last_round)
        if session.round <= last_round:
            raise ProtocolError(
                "replayed",
                f"expected a round after {last_round} of run {session.run!r}, got round {session.round}: a client "
                "takes part in a round once; a round that is repeated takes a new number",
            )
        if identities.get(client_id) != identity.public_key().public_bytes_raw():
            raise InvalidValueError(
                f"the table of identities does not have the public key of {client_id!r}; correct it"
            )
        self.session, self.client_id = session, client_id
        self.faults: list[Rejection] = []
        self._identity, self._identities = identity, identities
        self._answers: dict[Phase, tuple[bytes, bytes]] = {}  # digest of the request, and the answer
        self._refusal: str | None = None
        self._cipher_secret, self._mask_secret = _fresh_key(), _fresh_key()
        self._seed = secrets.randbelow(shamir.PRIME).to_bytes(SHARE_BYTES, "little")
        self._channels: dict[int, Channel] = {}
        self._held: dict[int, bytes] = {}  # by dealer: its share of the seed, then that of the mask key
        self._registered: Registration  # known from phase 2 on
        self._me: int
        self._sharers: tuple[int, ...]  # from phase 3 on
        self._survivors: tuple[int, ...]  # from phase 4 on

    def advertise(self) -> bytes:
        """Phase 1: the public keys of this round, signed.

        Returns
        -------
        bytes
            An `Advertisement`.
        """
        return self._answer(Phase.ADVERTISE, b"", self._advertise)

    def share(self, request: bytes) -> bytes:
        """Phase 2: check who takes part, and share the secrets behind the masks with the neighbours.

        Parameters
        ----------
        request : bytes
            The `Roster`.

        Returns
        -------
        bytes
            `SealedShares`.

        Raises
        ------
        ProtocolError
            The roster is malformed, has another advertisement in this client's name, unknown clients, or keys that
            were not signed for this round.
        AggregationAborted
            It has fewer clients than a sum may be over.
        """
        return self._answer(Phase.SHARE, request, self._share)

    def mask(self, request: bytes, vector: Vector) -> bytes:
        """Phase 3: open the neighbours' shares and mask the vector.

        Parameters
        ----------
        request : bytes
            The `Delivery`.
        vector : uint8, uint16 or uint32 array of shape (length,)
            The client's contribution, of which only the low ``bits`` bits of each word count. It is not changed.

        Returns
        -------
        bytes
            A `MaskedInput`, uniformly distributed whatever the vector is.

        Raises
        ------
        InvalidValueError
            The vector is not of the session's type and length. The client can go on with another.
        ProtocolError
            The delivery is malformed, or so many shares do not open that they must have been substituted.
        AggregationAborted
            Too few clients shared.
        """
        if vector.dtype != self.session.dtype or vector.shape != (self.session.length,):
            raise InvalidValueError(
                f"expected a vector of {self.session.length} {self.session.dtype} words, got shape {vector.shape} of "
                f"{vector.dtype}"
            )
        return self._answer(Phase.MASK, request, lambda data: self._mask(data, vector))

    def confirm(self, request: bytes) -> bytes:
        """Phase 4: sign whose vectors are in the sum.

        Parameters
        ----------
        request : bytes
            The `Survivors`.

        Returns
        -------
        bytes
            A `Consistency`.

        Raises
        ------
        ProtocolError
            The survivors are malformed, without this client, or not all among those who shared.
        AggregationAborted
            They are fewer than a sum may be over.
        """
        return self._answer(Phase.CONSISTENCY, request, self._confirm)

    def unmask(self, request: bytes) -> bytes:
        """Phase 5: for each neighbour reveal one share: of its seed if it survived, else of its mask key.

        Parameters
        ----------
        request : bytes
            The `Certificate`.

        Returns
        -------
        bytes
            `Revealed`. The secrets of the round are forgotten with it.

        Raises
        ------
        ProtocolError
            There is no quorum of valid signatures on exactly the survivors that this client signed.
        """
        return self._answer(Phase.UNMASK, request, self._unmask)

    def _answer(self, phase: Phase, request: bytes, give: Callable[[bytes], bytes]) -> bytes:
        """Give each answer once, in order, and none after a refusal."""
        received = hashlib.sha256(request).digest()
        known, answer = self._answers.get(phase, (b"", b""))
        if known and hmac.compare_digest(known, received):
            return answer
        try:
            if self._refusal:
                raise ProtocolError("refused", f"this client has left the round: {self._refusal}")
            if known:
                raise ProtocolError("repeated", f"the phase {phase} was answered, and this is another request for it")
            if (due := list(Phase)[len(self._answers)]) is not phase:
                raise ProtocolError("turn", f"expected the request of the phase {due}, got that of {phase}")
            answer = give(request)
        except MatlError as error:
            self._refusal = self._refusal or str(error)
            raise
        self._answers[phase] = (received, answer)
        return answer

    def _advertise(self, _: bytes) -> bytes:
        for_shares = self._cipher_secret.public_key().public_bytes_raw()
        for_masks = self._mask_secret.public_key().public_bytes_raw()
        text = advertised(self.session.digest, self.client_id, for_shares, for_masks)
        return Advertisement(self.client_id, for_shares, for_masks, self._identity.sign(text)).to_bytes()

    def _share(self, request: bytes) -> bytes:
        signed = Roster.from_bytes(request, self.session.max_message).advertisements
        self._require(len(signed), len(signed), "registered")
        registered = Registration(self.session, signed)
        registered.check(self._identities)
        if self._answers[Phase.ADVERTISE][1] not in signed:
            raise ProtocolError("roster", f"the roster does not have the keys that {self.client_id!r} advertised")
        self._registered, self._me = registered, registered.clients.index(self.client_id)
        for peer in registered.neighbours(self._me):
            public = registered.advertisements[peer].cipher_key
            self._channels[peer] = Channel.between(self._cipher_secret, public, registered.transcript, self._me, peer)
        return self._sealed_shares().to_bytes()

    def _sealed_shares(self) -> SealedShares:
        transcript, threshold = self._registered.transcript, self._registered.graph.threshold
        secrets_of = (self._seed, self._mask_secret.private_bytes_raw())
        dealt = [shamir.split(int.from_bytes(each, "little"), len(self._channels), threshold) for each in secrets_of]
        sealed, commitments = [], []
        for (peer, channel), *pair in zip(self._channels.items(), *dealt, strict=True):
            for_seed, for_key = (share.to_bytes(SHARE_BYTES, "little") for share in pair)
            sealed.append(channel.seal(for_seed + for_key))
            commitments.append(share_commitment(transcript, self._me, peer, b"seed", for_seed))
            commitments.append(share_commitment(transcript, self._me, peer, b"key", for_key))
        own = seed_commitment(transcript, self._me, self._seed)
        return SealedShares(b"".join(sealed), b"".join(commitments), own)

    def _mask(self, request: bytes, vector: Vector) -> bytes:
        delivery = Delivery.from_bytes(request, self.session.max_message)
        self._sharers = delivery.sharers
        self._require(len(self._sharers), len(self._registered.signed), "shared")
        if self._me not in self._sharers or self._sharers[-1] >= len(self._registered.signed):
            raise ProtocolError("sharers", "expected this client and none but registered ones among the sharers")
        peers = self._registered.neighbours_among(self._me, self._sharers)
        self._open(peers, pieces("Delivery.sealed", delivery.sealed, SEALED_BYTES, len(peers)))
        masked = vector.copy()
        self._add_masks(masked, peers)
        seen = sharers_digest(self._sharers)
        return MaskedInput(
            self.session.raw(masked),
            b"".join(self._channels[peer].confirm(seen) for peer in peers),
            tuple(peer for peer in peers if peer not in self._held),
        ).to_bytes()

    def _open(self, peers: Sequence[int], sealed: Sequence[bytes]) -> None:
        """Keep the neighbours' shares. One that does not open is noted: whoever sent it must not end the round."""
        for peer, item in zip(peers, sealed, strict=True):
            shares = self._channels[peer].open(item)
            if shares is None:
                self._note(peer, "sealed", "the shares in its name do not open: they were substituted on the way")
            else:
                self._held[peer] = shares
        threshold = self._registered.graph.threshold
        if len(peers) < threshold:
            raise AggregationAborted(f"expected at least {threshold} neighbours that shared, got {len(peers)}")
        if len(self._held) < threshold:
            raise ProtocolError(
                "sealed", f"the shares of {len(peers) - len(self._held)} of {len(peers)} neighbours do not open"
            )

    def _add_masks(self, masked: Vector, peers: Sequence[int]) -> None:
        """Each pair of neighbours adds and subtracts the same stream: the lower number adds."""
        transcript, others = self._registered.transcript, self._registered.advertisements
        keys = {peer: mask_key(self._mask_secret, others[peer].mask_key, transcript, self._me, peer) for peer in peers}
        plus = [self_mask_key(self._seed, transcript, self._me), *(keys[peer] for peer in peers if peer > self._me)]
        add_masks(masked, plus=plus, minus=[keys[peer] for peer in peers if peer < self._me])

    def _confirm(self, request: bytes) -> bytes:
        message = Survivors.from_bytes(request, self.session.max_message)
        self._survivors = message.survivors
        self._require(len(self._survivors), len(self._registered.signed), "survived")
        if self._me not in self._survivors or not set(self._survivors) <= set(self._sharers):
            raise ProtocolError(
                "survivors",
                "expected this client and none but sharers among the survivors: the server contradicts itself",
            )
        peers = self._registered.neighbours_among(self._me, self._survivors)
        received = pieces("Survivors.confirmations", message.confirmations, CONFIRMATION_BYTES, len(peers))
        seen = sharers_digest(self._sharers)
        for peer, confirmation in zip(peers, received, strict=True):
            # Whoever masked under other sharers may lack this client's mask: its seed is none of our business.
            if not self._channels[peer].confirmed(seen, confirmation):
                self._held.pop(peer, None)
                self._note(peer, "confirmation", "it did not confirm the sharers that this client was shown")
        return Consistency(self._identity.sign(self._statement())).to_bytes()

    def _statement(self) -> bytes:
        return consistent(self._registered.transcript, self._sharers, self._survivors)

    def _unmask(self, request: bytes) -> bytes:
        certificate = Certificate.from_bytes(request, self.session.max_message)
        self._check_certificate(certificate)
        survivors = set(self._survivors)
        revealed = Revealed(
            tuple(self._held),
            b"".join(
                shares[:SHARE_BYTES] if dealer in survivors else shares[SHARE_BYTES:]
                for dealer, shares in self._held.items()
            ),
        ).to_bytes()
        self._forget()
        return revealed

    def _check_certificate(self, certificate: Certificate) -> None:
        signers, registered = certificate.signers, self._registered
        needed = quorum(len(registered.signed), self.session.corrupt)
        signatures = pieces("Certificate.signatures", certificate.signatures, SIGNATURE_BYTES, len(signers))
        if len(signers) < needed or not set(signers) <= set(self._survivors):
            raise ProtocolError(
                "certificate", f"expected signatures of at least {needed} survivors, got {len(signers)} signers"
            )
        text = self._statement()
        for signer, signature in zip(signers, signatures, strict=True):
            client = registered.clients[signer]
            if not verified(self._identities[client], signature, text):
                raise ProtocolError(
                    "certificate",
                    f"client {client!r} did not sign the survivors that {self.client_id!r} signed: the server showed "
                    "different sets, or changed the set afterwards",
                )

    def _require(self, count: int, registered: int, what: str) -> None:
        needed = self.session.needed(registered)
        if count < needed:
            raise AggregationAborted(
                f"expected at least {needed} clients that {what}, got {count}: nothing is revealed"
            )

    def _note(self, peer: int, code: str, reason: str) -> None:
        self.faults.append(Rejection(self._registered.clients[peer], code, reason))

    def _forget(self) -> None:
        """Drop the secrets. Python may have copied them; what counts is that no later request can ask for them."""
        self._held, self._channels, self._seed = {}, {}, b""
        del self._cipher_secret, self._mask_secret


def _fresh_key() -> X25519PrivateKey:
    """A key below 2^255, so that it is a number of Shamir's field; X25519 ignores the bit (RFC 7748, section 5)."""
    return X25519PrivateKey.from_private_bytes(_clamped(secrets.token_bytes(KEY_BYTES)))


def _clamped(key: bytes) -> bytes:
    return key[:-1] + bytes([key[-1] & 127])
