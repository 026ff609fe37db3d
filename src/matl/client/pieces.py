"""A large update on its way: a line that breaks costs a piece of it, and not all."""

from __future__ import annotations

from matl.client.transport import Message, Transport
from matl.errors import ServiceError
from matl.protocol.messages import Acknowledgement, UploadView
from matl.protocol.problems import Code, refusal

__all__ = ["InPieces"]

# Bytes. A line of 10 kB a second brings so many through in 105 s: within a coordinator's least rate, which is 8 KiB a
# second after a minute of grace, and without much to repeat where the line breaks.
_PIECE = 1 << 20
_IDLE = 10  # steps in a row that bring nothing forward
_ELSEWHERE = {"offset", "in_flight"}  # reasons: a piece that was cut off here has arrived there, or still does


class InPieces:
    """Sends one update, step by step.

    A step that fails may be done again: the next one asks first how far the upload is.

    Parameters
    ----------
    run, number : str, int
        The round.
    message : Message
        The update.
    """

    def __init__(self, run: str, number: int, message: Message) -> None:
        self._run, self._number, self._message = run, number, message
        self._view: UploadView | None = None
        self._certain = False  # whether it is known how far the upload is
        self._idle = 0

    @property
    def acknowledgement(self) -> Acknowledgement | None:
        """There is one when all of it has arrived and counts."""
        return None if self._view is None else self._view.acknowledgement

    async def step(self, transport: Transport) -> None:
        """Begin, send a piece, or find out what became of the last one.

        Raises
        ------
        ServiceError
            What the coordinator says; or ``"malformed"``, after many steps that brought nothing forward.
        """
        if self._view is None or not self._certain:
            self._moved(await self._look(transport))
            return
        start = self._view.offset
        # Where all of it is there and could not be taken just then, an empty piece asks once more.
        piece = bytes(self._message.payload[start : start + _PIECE])
        self._certain = False
        try:
            self._moved(await transport.append(self._view.id, start, piece))
        except ServiceError as error:
            if error.reason not in _ELSEWHERE:
                raise
            raise refusal(Code.BUSY, str(error), reason=error.reason, retry_after=error.retry_after) from error

    async def _look(self, transport: Transport) -> UploadView:
        if self._view is not None:
            try:
                return await transport.upload(self._view.id)
            except ServiceError as error:
                if error.code != Code.NOT_FOUND.value:
                    raise
        # Also where an upload is gone: it was taken with its last piece, or has expired. The head finds out which.
        return await transport.begin_upload(self._run, self._number, self._message.head)

    def _moved(self, view: UploadView) -> None:
        forward = self._view is None or view.offset > self._view.offset
        self._idle = 0 if forward else self._idle + 1
        if self._idle > _IDLE and view.acknowledgement is None:
            raise refusal(
                Code.MALFORMED,
                f"the upload stays at byte {view.offset} of {view.size} whatever is sent; tell the operator",
                reason="not_a_coordinator",
            )
        self._view, self._certain = view, True
