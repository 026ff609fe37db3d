"""What became of a client's updates: verdicts, and the receipts that prove them."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

from matl.attest.keys import PublicKey
from matl.attest.receipts import Receipt, verify_receipt
from matl.client.connection import Connection
from matl.client.folder import ClientFolder
from matl.client.participation import LONGEST_WAIT, PAUSE, Participation
from matl.client.sealer import Sealer
from matl.client.watching import Watch
from matl.errors import InvalidValueError, ProtocolError
from matl.files import write_atomic
from matl.protocol.messages import RunView, UpdateView

__all__ = ["Outcomes"]


class Outcomes:
    """What `matl.client.AsyncMATLClient` can say of the updates that it sent."""

    _connection: Connection
    _folder: ClientFolder
    _part: Participation
    _sealer: Sealer | None
    _sent: dict[str, int]  # rounds by the hash of what was sent in them
    _watch: Watch

    @property
    def last_verdict(self) -> UpdateView | None:
        """The latest verdict on this client that `rounds` or `fit_loop` learned of; ``None`` before the first."""
        return self._watch.last

    async def verdict(self, round: int, *, wait: float = 0.0) -> UpdateView:  # noqa: A002 - the protocol's own word
        """What became of this client's update in a round.

        Parameters
        ----------
        round : int
            The round.
        wait : float
            Seconds to wait for a verdict while the ``status`` is ``"received"``: a round is judged when it closes.

        Returns
        -------
        UpdateView
            Its ``status`` is ``"received"``, ``"judged"`` or ``"rejected"``. It stays ``"received"`` where the round
            failed.

        Raises
        ------
        ServiceError
            ``"not_found"``: it sent none; or the coordinator refuses, or cannot be reached.
        """
        ends = time.monotonic() + wait
        view = await self._part.verdict(round)
        while view.status == "received" and (left := ends - time.monotonic()) > 0:
            asked = time.monotonic()
            ended = await self._part.is_past(round, wait=min(left, LONGEST_WAIT))
            view = await self._part.verdict(round)
            if ended:
                break
            if time.monotonic() - asked < PAUSE:
                await asyncio.sleep(min(PAUSE, max(0.0, ends - time.monotonic())))
        return view

    async def receipt(self, round: int) -> Receipt:  # noqa: A002
        """The signed receipt of the verdict on this client's update in a round.

        Its signature is checked against the key that the run had when this client first saw it; in Mode 2, against
        those that the oracle proved to have since this client was made.

        Raises
        ------
        ProtocolError
            It is not signed by that key, or is about something else.
        ServiceError
            ``"not_found"``: there is none yet; and as `verdict`.
        """
        return (await self._signed(round))[1]

    async def save_receipt(self, round: int, path: Path | str) -> Receipt:  # noqa: A002
        """Write the signed receipt of a round into a file, which others can check: ``matl verify receipt FILE``.

        Parameters
        ----------
        round : int
            The round.
        path : Path or str
            The file; one that is there is replaced.

        Returns
        -------
        Receipt
            What the file says, checked as `receipt` does.

        Raises
        ------
        ProtocolError, ServiceError
            As `receipt`. Nothing is written.
        StorageError
            The file cannot be written.
        """
        document, receipt = await self._signed(round)
        await asyncio.to_thread(write_atomic, Path(path), document)
        return receipt

    async def verify_gradient(
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

        Raises
        ------
        ProtocolError
            The coordinator has another update of this client than the one that was sent, or the receipt is forged.
        InvalidValueError
            It is not known in which round it was sent.
        ServiceError
            ``"not_found"``: the coordinator has nothing of this client in that round; and as `verdict`.
        """
        number = self._sent.get(payload_sha256) if round is None else round
        if number is None:
            raise InvalidValueError(
                f"nothing of the hash {payload_sha256[:12]} was sent by this process; say in which round: round=..."
            )
        view = await self.verdict(number, wait=wait)
        receipt = await self.receipt(number) if view.status == "judged" else None
        found = view.payload_sha256 if receipt is None else receipt.update_hash
        if found != payload_sha256:
            raise ProtocolError(
                "mismatch",
                f"the coordinator has {found[:12]} of this client in round {number}, sent was {payload_sha256[:12]}",
            )
        return receipt

    async def _signed(self, number: int) -> tuple[bytes, Receipt]:
        """The receipt of a round as it was signed, and what it says."""
        run = await self._part.chosen()
        document = await self._connection.ask(
            lambda transport: transport.receipt(run.id, number, self._folder.client_id)
        )
        receipt = verify_receipt(document, self._signers(run))
        if (receipt.run, receipt.round, receipt.client_id) != (run.id, number, self._folder.client_id):
            raise ProtocolError(
                "mismatch",
                f"the coordinator sent a receipt of {receipt.client_id!r} in round {receipt.round} of {receipt.run!r}",
            )
        return document, receipt

    def _signers(self, run: RunView) -> tuple[PublicKey, ...]:
        """Whose receipts are believed."""
        if self._sealer is not None:
            return self._sealer.signers
        try:
            return (PublicKey(base64.b64decode(run.receipts_key, validate=True)),)
        except ValueError as error:
            raise ProtocolError("key", f"the key of run {run.id!r} for receipts cannot be read") from error
