"""The client of a federation, for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from matl.attest.keys import PublicKey
from matl.attest.receipts import Receipt
from matl.client.connection import Evidence
from matl.client.loop import Progress, TrainFunction
from matl.client.rounds import Round
from matl.client.sdk import AsyncMATLClient
from matl.errors import InvalidValueError
from matl.protocol.messages import Acknowledgement, RunView, UpdateView

__all__ = ["MATLClient"]

T = TypeVar("T")


class MATLClient:
    """A client of a federation: it gets the model of a round, and sends what it learned.

    Every method waits until it is done. Requests run in a thread of their own, training in the caller's. Several
    threads may use one client.

    Parameters
    ----------
    url : str, optional
        The coordinator: ``https://host:8443`` (or ``http``), ``wss`` (``ws``) or ``grpcs`` (``grpc``).
    **options
        Those of `matl.client.AsyncMATLClient`, among them ``client_id``, ``folder``, ``run``, ``mode`` and ``ca``.

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


        with MATLClient("https://coordinator.example:8443", client_id="alice", folder="alice") as client:
            client.join("matl_inv_...")  # once
            client.fit_loop(train)
            model = client.final_model()

    Or round by round::

        while (round := client.next_round()) is not None:
            params, examples = train(round.params, round)
            sent = client.submit_gradient(round.delta(params), metadata={"num_examples": examples})
            print(client.verdict(round.number).status)
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = AsyncMATLClient(url, **options)
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
        """See `matl.client.AsyncMATLClient.join`."""
        self._wait(self._client.join(invitation, evidence=evidence))

    def runs(self) -> list[RunView]:
        """See `matl.client.AsyncMATLClient.runs`."""
        return self._wait(self._client.runs())

    def run(self) -> RunView:
        """See `matl.client.AsyncMATLClient.run`."""
        return self._wait(self._client.run())

    def next_round(self, *, wait: float | None = None) -> Round | None:
        """See `matl.client.AsyncMATLClient.next_round`."""
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
        """See `matl.client.AsyncMATLClient.submit_gradient`."""
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
        """See `matl.client.AsyncMATLClient.submit_payload`."""
        return self._wait(self._client.submit_payload(payload, round=round, num_examples=num_examples))

    def flush(self) -> list[Acknowledgement]:
        """See `matl.client.AsyncMATLClient.flush`."""
        return self._wait(self._client.flush())

    def pass_over(self, round: Round) -> None:  # noqa: A002
        """See `matl.client.AsyncMATLClient.pass_over`."""
        self._client.pass_over(round)

    def verdict(self, round: int) -> UpdateView:  # noqa: A002
        """See `matl.client.AsyncMATLClient.verdict`."""
        return self._wait(self._client.verdict(round))

    def receipt(self, round: int) -> Receipt:  # noqa: A002
        """See `matl.client.AsyncMATLClient.receipt`."""
        return self._wait(self._client.receipt(round))

    def verify_gradient(self, payload_sha256: str, *, round: int | None = None) -> Receipt | None:  # noqa: A002
        """See `matl.client.AsyncMATLClient.verify_gradient`."""
        return self._wait(self._client.verify_gradient(payload_sha256, round=round))

    def final_model(self) -> dict[str, NDArray[Any]]:
        """See `matl.client.AsyncMATLClient.final_model`."""
        return self._wait(self._client.final_model())

    def rounds(self, count: int | None = None, *, patience: float = 3600.0) -> Iterator[Round]:
        """See `matl.client.AsyncMATLClient.rounds`."""
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
        """See `matl.client.AsyncMATLClient.fit_loop`; ``train`` and ``progress`` are called in the caller's thread."""
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
