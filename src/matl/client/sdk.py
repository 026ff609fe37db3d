"""The asynchronous client of a federation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from matl import validate
from matl.attest.claims import Clock, system_clock
from matl.attest.keys import PublicKey, SigningKey
from matl.client.connection import Connection, Evidence, open_transport
from matl.client.encoding import count_examples, encode, vector_of
from matl.client.folder import ClientFolder
from matl.client.loop import TrainingLoop
from matl.client.masked import MaskedRounds, read_participants
from matl.client.outcomes import Outcomes
from matl.client.participation import Participation
from matl.client.retrying import Retrying
from matl.client.rounds import Round
from matl.client.sealer import Sealer
from matl.client.sending import Outbox
from matl.client.watching import Watch
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.protocol.messages import Acknowledgement, RunView

__all__ = ["AsyncMATLClient"]


class AsyncMATLClient(Outcomes, TrainingLoop):
    """A client of a federation, for programs that have an event loop; `matl.client.MATLClient` is for all others.

    It belongs to the event loop in which it is first used.

    Parameters
    ----------
    url : str, optional
        The coordinator: ``https://host:8470`` (or ``http``), ``wss`` (``ws``) or ``grpcs`` (``grpc``).
    oracle_endpoint : str, optional
        Another name for ``url``; one of the two is given.
    mode : str, class or object, optional
        Which judge this client insists on, such as ``matl.Mode1`` or ``"mode2"``; a run under another is refused.
    client_id : str, optional
        The client's name. Without one it is made of the key's fingerprint, and stays.
    key : Path or SigningKey, optional
        The client's key, where it is kept elsewhere than in the folder.
    folder : Path or str
        Where the client keeps its key, what is still to be sent, and the latest model. One for each client.
    run : str, optional
        Which run to take part in; may be left out where there is but one.
    ca : Path or str, optional
        Certificates (PEM) to trust in place of the machine's.
    certificate : (Path, Path), optional
        This client's certificate and key (PEM), where the coordinator asks for one.
    insecure : bool
        Take ``http``, ``ws`` or ``grpc`` to another machine too, where invitations, tokens and models can be read on
        the way.
    sealer : Sealer, optional
        Seals updates for the oracle of a run in Mode 2, `matl.client.sealed.OracleWatch`. With it, no run without an
        oracle is taken part in. It is closed with the client.
    participants : Path or str, optional
        JSON file with the clients that may be in a masked sum, ``{"alice": "<public key>", ...}`` with keys in base64
        (DER); the coordinator's table unless given, and then it could invent clients.
    manifest_sha256 : str, optional
        The privacy manifest that this client agrees to; the one that it meets first unless given, with a warning.
    max_epsilon : float, optional
        What all masked rounds of this folder together may cost: zero-out epsilon at delta 1e-5. A manifest that allows
        more than is left is not agreed to, and no round is taken part in that would pass it. With any of these three,
        or where the folder agreed to a manifest of the run before, rounds that are not masked are refused.
    retrying : Retrying, optional
        When to ask again.
    clock : Clock
        Of tests.

    Raises
    ------
    InvalidValueError
        No address, or none that can be used, a name that is none, or an epsilon that is not above 0.
    StateError
        The folder is in use or belongs to another client, or a key or certificate cannot be read.
    MissingExtraError
        What the transport needs is not installed.

    Examples
    --------
    ::

        async with AsyncMATLClient("https://coordinator.example:8470", client_id="alice") as client:
            await client.join(invitation)
            await client.fit_loop(train)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        oracle_endpoint: str | None = None,
        mode: object = None,
        client_id: str | None = None,
        key: Path | SigningKey | None = None,
        folder: Path | str = "matl-client",
        run: str | None = None,
        ca: Path | str | None = None,
        certificate: tuple[Path, Path] | None = None,
        insecure: bool = False,
        sealer: Sealer | None = None,
        participants: Path | str | None = None,
        manifest_sha256: str | None = None,
        max_epsilon: float | None = None,
        retrying: Retrying | None = None,
        clock: Clock = system_clock,
    ) -> None:
        if (url is None) == (oracle_endpoint is None):
            raise InvalidValueError(
                "expected the coordinator's address, as url or as oracle_endpoint: MATLClient('https://host:8470')"
            )
        if max_epsilon is not None:
            validate.positive(max_epsilon=max_epsilon)
        known = None if participants is None else read_participants(Path(participants))
        trusted = None if ca is None else Path(ca)
        transport = open_transport(url or oracle_endpoint or "", ca=trusted, certificate=certificate, insecure=insecure)
        self._folder = ClientFolder(Path(folder), key=key, client_id=client_id)
        self._connection = Connection(transport, self._folder, retrying or Retrying(), clock)
        self._part = Participation(self._connection, self._folder, wanted=run, mode=mode, sealing=sealer is not None)
        self._masked = MaskedRounds(
            self._connection,
            self._folder,
            participants=known,
            manifest_sha256=manifest_sha256,
            max_epsilon=max_epsilon,
            chosen=run is not None or sealer is not None,
        )
        self._outbox = Outbox(self._connection, self._folder, clock, self._masked.refuse_clear)
        self._sealer = sealer
        self._sent = {}
        self._watch = Watch(self._part.verdict, self._part.about)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def client_id(self) -> str:
        """The client's name."""
        return self._folder.client_id

    @property
    def public_key(self) -> PublicKey:
        """What the coordinator checks this client's signatures with."""
        return self._folder.key.public

    @property
    def waiting(self) -> int:
        """How many updates are kept until somebody takes them."""
        return len(self._outbox)

    async def close(self) -> None:
        """Let go of the line and the folder. A second time does nothing."""
        if self._sealer is not None:
            await self._sealer.aclose()
        self._masked.close()
        await self._connection.close()
        self._folder.close()

    async def join(self, invitation: str, *, evidence: Evidence | None = None) -> None:
        """Become a client of the coordinator. Once is enough; again, with whatever invitation, it changes nothing.

        Parameters
        ----------
        invitation : str
            What the operator gave, ``matl_inv_...``.
        evidence : callable, optional
            Asks this machine for evidence with a nonce, where the operator wants some.

        Raises
        ------
        ServiceError
            The invitation is used up or was made for another name, the name is taken, ...
        InvalidValueError
            It does not look like an invitation.
        """
        await self._connection.join(invitation, evidence)

    async def runs(self) -> list[RunView]:
        """The runs of the coordinator.

        Raises
        ------
        ServiceError
            It refuses, or cannot be reached.
        """
        return await self._connection.ask(lambda transport: transport.runs())

    async def run(self) -> RunView:
        """The run that this client takes part in, as it stands now.

        Raises
        ------
        InvalidValueError
            There is none of that name, or there are several and none was named, or it is judged in another way than
            this client insists on.
        ServiceError
            As above.
        """
        return await self._part.look()

    async def next_round(self, *, wait: float | None = None) -> Round | None:
        """The round to take part in next, with its model; ``None`` when the run is over.

        The log ``matl.client`` says whether it is finished or was stopped by its operator; so does ``run().status``.
        A round for which nothing was sent yet is given again.

        Parameters
        ----------
        wait : float, optional
            Seconds to wait for one to open; without end unless given.

        Raises
        ------
        ServiceError
            Nobody can be reached; or no round opened in time, with the reason ``"no_round"``.
        InvalidValueError
            As `run`; or the round wants what this client cannot send.
        ProtocolError
            What the coordinator sent is not the model it said; or the round is not masked, as was agreed to.
        StateError
            Another masked round would cost more than this client may spend.
        """
        await self.flush()
        found = await self._part.next_round(wait)
        if found is not None and found.spec.kind == "masked":
            await self._masked.agree(found)
        elif found is not None:
            self._masked.refuse_clear(found.run, found.number)
        return found

    async def submit_gradient(
        self,
        update: Any,
        *,
        round: Round | None = None,  # noqa: A002 - the protocol's own word, here and below
        metadata: Mapping[str, Any] | None = None,
        kind: str = "delta",
        learning_rate: float | None = None,
    ) -> Acknowledgement:
        """Send an update for a round. When this returns, it is on the coordinator's disk.

        It is kept on this machine's disk first, and sent again later where nobody can be reached now.

        Parameters
        ----------
        update : mapping, sequence, array or model
            In any form that `matl.client.arrays.fit` takes.
        round : Round, optional
            The round it is for; the one that `next_round` gave last unless given.
        metadata : mapping, optional
            ``num_examples``: on how many examples it was trained, which is its weight.
        kind : str
            ``"delta"``: new minus old parameters, see `Round.delta`. ``"gradient"``: a gradient at the old parameters;
            what is sent is one step along it, ``-learning_rate * update``.
        learning_rate : float, optional
            Of that step.

        Returns
        -------
        Acknowledgement
            With the hash of what was sent.

        Raises
        ------
        LayoutError, InvalidValueError
            It does not fit the model or the round. Nothing was sent.
        ServiceError
            It was refused; or nobody could be reached, and it is kept.
        AttestationError
            The oracle of the run does not prove what this client asks of it. Nothing was sent.
        ProtocolError
            The round is not masked, as was agreed to: nothing was sent; or the coordinator broke the protocol.
        StateError, StorageError
            A masked update cannot be counted, or would cost more than this client may spend, and was not sent.
        """
        target = self._target(round)
        if target.spec.kind == "masked":
            vector = await asyncio.to_thread(vector_of, update, target, kind=kind, learning_rate=learning_rate)
            return await self._send_masked(target, vector)
        examples = count_examples(metadata, target.spec)
        payload = await asyncio.to_thread(encode, update, target, kind=kind, learning_rate=learning_rate)
        return await self.submit_payload(payload, round=target, num_examples=examples)

    async def submit_payload(
        self,
        payload: bytes,
        *,
        round: Round | None = None,  # noqa: A002
        num_examples: int | None = None,
    ) -> Acknowledgement:
        """Send an update that is encoded already. Nothing of what it holds is looked at.

        Parameters
        ----------
        payload : bytes
            In the encoding that ``round.spec.codec`` names.
        round : Round, optional
            As in `submit_gradient`.
        num_examples : int, optional
            On how many examples it was trained.

        Raises
        ------
        ServiceError, AttestationError, ProtocolError
            As `submit_gradient`.
        """
        spec = self._target(round).spec
        if spec.kind == "masked":
            raise InvalidValueError(
                f"round {spec.round} of {spec.run!r} is masked, and its payload is made anew by this client: hand over "
                "the update itself, with submit_gradient"
            )
        self._masked.refuse_clear(spec.run, spec.round)
        if self._sealer is not None:
            run = await self._part.chosen()
            payload = await self._sealer(run=run, number=spec.round, client_id=self.client_id, payload=payload)
        self._part.pass_over(spec.round)  # what is kept is sent by itself
        acknowledgement = await self._outbox.send(spec, payload, num_examples=num_examples)
        self._remember(acknowledgement)
        return acknowledgement

    async def flush(self) -> list[Acknowledgement]:
        """Send the updates that were kept; `next_round` does so by itself.

        What a coordinator does not want any more is dropped, and the log ``matl.client`` says so.

        Raises
        ------
        ServiceError
            Nobody can be reached; they stay.
        ProtocolError
            Masked rounds were agreed to meanwhile, and one of them is not masked; they stay.
        """
        acknowledged: list[Acknowledgement] = []

        def remember(each: Acknowledgement) -> None:
            self._remember(each)
            acknowledged.append(each)

        await self._outbox.flush(remember)
        return acknowledged

    def pass_over(self, round: Round) -> None:  # noqa: A002
        """Take no part in a round: the next one that is asked for is a later one."""
        self._part.pass_over(round.number)

    async def final_model(self) -> dict[str, NDArray[Any]]:
        """The model as it stands: the final one once `next_round` has returned ``None``.

        That of a run which is not finished is returned as well, and the log ``matl.client`` says so.

        Raises
        ------
        ServiceError, ProtocolError
            As `next_round`.
        """
        return await self._part.latest_model()

    async def _send_masked(self, target: Round, vector: Float32) -> Acknowledgement:
        """Take part in a masked round with an update (d,)."""
        acknowledgement = await self._masked.take_part(target, vector)
        self._part.pass_over(target.number)
        self._remember(acknowledgement)
        return acknowledgement

    def _remember(self, acknowledgement: Acknowledgement) -> None:
        number = acknowledgement.round  # of a late one it is the later round in which it counts
        self._sent[acknowledgement.payload_sha256] = number
        self._watch.sent(number)

    def _target(self, given: Round | None) -> Round:
        target = given if given is not None else self._part.current
        if target is None:
            raise InvalidValueError("there is no round yet: call next_round() first")
        return target
