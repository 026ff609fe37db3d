"""The client of a federation, for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from matl.attest.claims import Clock, system_clock
from matl.attest.keys import PublicKey, SigningKey
from matl.attest.receipts import Receipt
from matl.client.connection import Evidence
from matl.client.loop import Progress, TrainFunction
from matl.client.retrying import Retrying
from matl.client.rounds import Round
from matl.client.sdk import AsyncMATLClient
from matl.client.sealer import Sealer
from matl.errors import InvalidValueError
from matl.protocol.messages import Acknowledgement, RunView, UpdateView

__all__ = ["MATLClient"]

T = TypeVar("T")


class MATLClient:
    """A client of a federation: it gets the model of a round, and sends what it learned.

    Every method waits until it is done. Requests run in a thread of their own, training in the caller's. Several
    threads may use one client. What each method may raise is told at the method of `matl.client.AsyncMATLClient` of
    the same name.

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
        Seals updates for the oracle of a run in Mode 2, `matl.client.sealed.OracleWatch`.
    participants : Path or str, optional
        JSON file with the clients that may be in a masked sum, ``{"alice": "<public key>", ...}`` with keys in base64
        (DER); the coordinator's table unless given, and then it could invent clients.
    manifest_sha256 : str, optional
        The privacy manifest that this client agrees to; the one that it meets first unless given, with a warning.
    max_epsilon : float, optional
        What all masked rounds of this folder together may cost: zero-out epsilon at delta 1e-5. With any of these
        three, rounds that are not masked are refused.
    retrying : Retrying, optional
        When to ask again.
    clock : Clock
        Of tests.

    Raises
    ------
    InvalidValueError, StateError, MissingExtraError
        As `matl.client.AsyncMATLClient`.

    Examples
    --------
    All that a client needs is a function that trains::

        def train(params, round):
            for name, gradient in gradients(params, data).items():
                params[name] -= round.recipe["learning_rate"] * gradient
            return params, len(data)


        with MATLClient("https://coordinator.example:8470", client_id="alice", folder="alice") as client:
            client.join("matl_inv_...")  # once
            client.fit_loop(train)
            model = client.final_model()

    Or round by round::

        while (round := client.next_round()) is not None:
            params, examples = train(round.params, round)
            sent = client.submit_gradient(round.delta(params), metadata={"num_examples": examples})
            print(client.verdict(round.number, wait=60).verdict)
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = AsyncMATLClient(
            url,
            oracle_endpoint=oracle_endpoint,
            mode=mode,
            client_id=client_id,
            key=key,
            folder=folder,
            run=run,
            ca=ca,
            certificate=certificate,
            insecure=insecure,
            sealer=sealer,
            participants=participants,
            manifest_sha256=manifest_sha256,
            max_epsilon=max_epsilon,
            retrying=retrying,
            clock=clock,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="matl-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client_id(self) -> str:
        """The client's name."""
        return self._client.client_id

    @property
    def public_key(self) -> PublicKey:
        """What the coordinator checks this client's signatures with."""
        return self._client.public_key

    @property
    def waiting(self) -> int:
        """How many updates are kept until somebody takes them."""
        return self._client.waiting

    def close(self) -> None:
        """Let go of the line, the folder and the thread. A second time does nothing."""
        if self._loop is None:
            return
        try:
            self._wait(self._client.close())
            self._wait(self._loop.shutdown_asyncgens())
            self._wait(self._loop.shutdown_default_executor())
        finally:
            loop, self._loop = self._loop, None
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def join(self, invitation: str, *, evidence: Evidence | None = None) -> None:
        """Become a client of the coordinator. Once is enough; again, with whatever invitation, it changes nothing.

        Parameters
        ----------
        invitation : str
            What the operator gave, ``matl_inv_...``.
        evidence : callable, optional
            Asks this machine for evidence with a nonce, where the operator wants some.
        """
        self._wait(self._client.join(invitation, evidence=evidence))

    def runs(self) -> list[RunView]:
        """The runs of the coordinator."""
        return self._wait(self._client.runs())

    def run(self) -> RunView:
        """The run that this client takes part in, as it stands now."""
        return self._wait(self._client.run())

    def next_round(self, *, wait: float | None = None) -> Round | None:
        """The round to take part in next, with its model; ``None`` when the run is over.

        A round for which nothing was sent yet is given again.

        Parameters
        ----------
        wait : float, optional
            Seconds to wait for one to open, and then it is an error; without end unless given.
        """
        return self._wait(self._client.next_round(wait=wait))

    def submit_gradient(
        self,
        update: Any,
        *,
        round: Round | None = None,  # noqa: A002 - the protocol's own word, here and below
        metadata: Mapping[str, Any] | None = None,
        kind: str = "delta",
        learning_rate: float | None = None,
    ) -> Acknowledgement:
        """Send an update for a round. When this returns, it is on the coordinator's disk.

        Parameters
        ----------
        update : mapping, sequence, array or model
            In any form that `matl.client.arrays.fit` takes; see `Round.delta`.
        round : Round, optional
            The round it is for; the one that `next_round` gave last unless given.
        metadata : mapping, optional
            ``num_examples``: on how many examples it was trained, which is its weight.
        kind : str
            ``"delta"``: new minus old parameters; ``"gradient"``: one step along it, ``-learning_rate * update``, is
            sent.
        learning_rate : float, optional
            Of that step.
        """
        return self._wait(
            self._client.submit_gradient(update, round=round, metadata=metadata, kind=kind, learning_rate=learning_rate)
        )

    def submit_payload(
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
            The round it is for; the one that `next_round` gave last unless given.
        num_examples : int, optional
            On how many examples it was trained.
        """
        return self._wait(self._client.submit_payload(payload, round=round, num_examples=num_examples))

    def flush(self) -> list[Acknowledgement]:
        """Send the updates that were kept; `next_round` does so by itself."""
        return self._wait(self._client.flush())

    def pass_over(self, round: Round) -> None:  # noqa: A002
        """Take no part in a round: the next one that is asked for is a later one."""
        self._client.pass_over(round)

    @property
    def last_verdict(self) -> UpdateView | None:
        """The latest verdict on this client that `rounds` or `fit_loop` learned of; ``None`` before the first."""
        return self._client.last_verdict

    def verdict(self, round: int, *, wait: float = 0.0) -> UpdateView:  # noqa: A002
        """What became of this client's update in a round.

        Parameters
        ----------
        round : int
            The round.
        wait : float
            Seconds to wait for a verdict while the ``status`` is ``"received"``: a round is judged when it closes.
        """
        return self._wait(self._client.verdict(round, wait=wait))

    def receipt(self, round: int) -> Receipt:  # noqa: A002
        """The signed receipt of the verdict on this client's update in a round, checked."""
        return self._wait(self._client.receipt(round))

    def save_receipt(self, round: int, path: Path | str) -> Receipt:  # noqa: A002
        """Write the signed receipt of a round into a file, which others can check: ``matl verify receipt FILE``."""
        return self._wait(self._client.save_receipt(round, path))

    def verify_gradient(
        self,
        payload_sha256: str,
        *,
        round: int | None = None,  # noqa: A002
        wait: float = 0.0,
    ) -> Receipt | None:
        """Proof of what was decided about an update; ``None`` while it is not judged.

        Parameters
        ----------
        payload_sha256 : str
            `Acknowledgement.payload_sha256`.
        round : int, optional
            In which it was sent; needed for what an earlier process sent.
        wait : float
            Seconds to wait for the verdict.
        """
        return self._wait(self._client.verify_gradient(payload_sha256, round=round, wait=wait))

    def final_model(self) -> dict[str, NDArray[Any]]:
        """The model as it stands: the final one once `next_round` has returned ``None``."""
        return self._wait(self._client.final_model())

    def rounds(self, count: int | None = None, *, patience: float = 3600.0) -> Iterator[Round]:
        """Round after round until the run is over, through outages of the coordinator.

        The log ``matl.client`` says when the verdict on this client changes, and why.

        Parameters
        ----------
        count : int, optional
            How many at most.
        patience : float
            Seconds for which nobody may be reached before that is an error.
        """
        source = self._client.rounds(count, patience=patience)
        try:
            while True:
                try:
                    current = self._wait(source.__anext__())
                except StopAsyncIteration:
                    return
                yield current
        finally:
            self._wait(source.aclose())

    def fit_loop(
        self,
        train: TrainFunction,
        rounds: int | None = None,
        *,
        progress: Progress | None = None,
        patience: float = 3600.0,
    ) -> int:
        """Take part until the run is over. Where one round goes on without this client, it takes part in the next.

        ``train`` and ``progress`` are called in the caller's thread.

        Parameters
        ----------
        train : callable
            ``train(params, round)`` gets the model's arrays and the `Round`, and returns the new arrays (or the model
            that was trained) and how many examples were used.
        rounds : int, optional
            How many at most.
        progress : callable, optional
            ``progress(round, acknowledgement)`` is called for every update that arrived. What became of earlier ones
            is in `last_verdict`.
        patience : float
            As in `rounds`.

        Returns
        -------
        int
            How many updates arrived.
        """
        arrived = 0
        for current in self.rounds(rounds, patience=patience):
            acknowledgement = self._wait(self._client.offer(current, train(current.params, current)))
            if acknowledgement is not None:
                arrived += 1
                if progress is not None:
                    progress(current, acknowledgement)
        return arrived

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns, from the thread of the loop."""
        if self._loop is None:
            work.close()
            raise InvalidValueError("this client is closed; make another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a user who interrupts does not want it to go on behind
            raise
