"""What carries a client's words to a coordinator: one protocol, behind which are HTTP, WebSocket and gRPC.

A transport does one thing at a time and once: it asks, and returns the answer or raises `matl.errors.ServiceError`.
Whether to ask again is decided above it, in `matl.client.retrying`.

The codes are those of `matl.protocol.problems.Code`. Where nothing was answered, a transport itself says:

=================  ===============  =============================================================
code               reason           when
=================  ===============  =============================================================
busy               unreachable      nobody listens there, the name is unknown, or the line broke
busy               timeout          no answer came in time
unauthenticated    tls              the certificate is not one to trust
malformed          not_a_coordinator  what answered does not speak this protocol
=================  ===============  =============================================================
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

from matl.protocol.envelope import LENGTH
from matl.protocol.messages import (
    Acknowledgement,
    Enrolled,
    EnrolRequest,
    EventView,
    Health,
    ParticipantsView,
    RoundView,
    RunView,
    SessionRequest,
    SessionView,
    UpdateView,
    UploadView,
)

__all__ = ["PIECE", "Message", "Transport"]

PIECE = 1 << 20
"""Bytes in which large things are sent and read."""


@dataclass(frozen=True, slots=True)
class Message:
    r"""An update as it is sent: the head as JSON, and the payload behind it.

    Parameters
    ----------
    head : bytes
        `matl.protocol.envelope.Head.to_bytes` of the signed update.
    payload : bytes or memoryview
        What it announces. A view may lie on a file that is mapped, so that a large model is never in memory.

    Examples
    --------
    >>> message = Message(b"{}", b"payload")
    >>> message.size, b"".join(message.framed())
    (13, b'\x00\x00\x00\x02{}payload')
    """

    head: bytes
    payload: bytes | memoryview

    @property
    def size(self) -> int:
        """Bytes of the framed message."""
        return LENGTH + len(self.head) + len(self.payload)

    def framed(self) -> Iterator[bytes]:
        """The message of `matl.protocol.envelope.frame`, in pieces; every call begins at its beginning."""
        yield len(self.head).to_bytes(LENGTH, "big") + self.head
        yield from self.pieces()

    def pieces(self, offset: int = 0) -> Iterator[bytes]:
        """The payload from a byte on, in pieces of at most `PIECE`."""
        # No view is held between two pieces: a file that is mapped must be closed though nobody reads on.
        for start in range(offset, len(self.payload), PIECE):
            yield bytes(self.payload[start : start + PIECE])


class Transport(Protocol):
    """A connection with one coordinator.

    Attributes
    ----------
    resumable : bool
        Whether an update can be sent in pieces (`begin_upload`, `upload`, `append`) and the rest of it after the line
        broke. A transport without it streams updates of any size through `submit`, and its three methods raise.
    """

    resumable: bool

    def set_token(self, token: str) -> None:
        """Show this session token, or an operator's, with everything that follows; the empty one shows none."""
        ...

    async def health(self) -> Health:
        """Who is there, and what its clock says."""
        ...

    async def challenge(self) -> str:
        """A challenge to sign."""
        ...

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Become a client. Asking again with the same key and id is the same answer."""
        ...

    async def session(self, request: SessionRequest) -> SessionView:
        """Get a session token."""
        ...

    async def runs(self) -> list[RunView]:
        """All runs."""
        ...

    async def run(self, run: str) -> RunView:
        """One run."""
        ...

    async def current_round(self, run: str, *, after: int | None = None, wait: float = 0.0) -> RoundView:
        """The open round with a number above ``after``, for which the host waits up to ``wait`` (at most 30) seconds.

        Where there is none by then, the latest round there is.
        """
        ...

    async def round(self, run: str, number: int) -> RoundView:
        """One round."""
        ...

    def model(self, model_hash: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes (safetensors) of a model from an offset on, in pieces."""
        ...

    async def submit(self, run: str, number: int, message: Message) -> Acknowledgement:
        """Send an update. Sending it again is the same answer, with ``duplicate`` set."""
        ...

    async def begin_upload(self, run: str, number: int, head: bytes) -> UploadView:
        """Announce an update that comes in pieces; it may hold an acknowledgement, where it has been there before."""
        ...

    async def upload(self, upload_id: str) -> UploadView:
        """How far an upload is."""
        ...

    async def append(self, upload_id: str, offset: int, piece: bytes) -> UploadView:
        """Send the piece that begins at ``offset``; the last one's answer holds the acknowledgement."""
        ...

    async def update(self, run: str, number: int, client_id: str) -> UpdateView:
        """What became of an update."""
        ...

    async def receipt(self, run: str, number: int, client_id: str) -> bytes:
        """The signed receipt of a verdict, see `matl.attest.receipts`."""
        ...

    async def manifest(self, run: str) -> bytes:
        """The privacy manifest of a run whose sums are masked."""
        ...

    async def participants(self, run: str) -> ParticipantsView:
        """Who may take part in masked rounds."""
        ...

    async def say(self, run: str, number: int, phase: str, message: bytes) -> Acknowledgement:
        """Send what this client says in a phase of a masked round. The same again is the same answer."""
        ...

    async def asked(self, run: str, number: int, phase: str, *, wait: float, limit: int) -> bytes:
        """What this client is asked in a phase, at most ``limit`` bytes; ``not_found`` if it does not begin in time."""
        ...

    def events(self, *, after: int = 0, run: str | None = None) -> AsyncIterator[EventView]:
        """What happens, without end, from the event after that number on. Operators and viewers may listen."""
        ...

    async def aclose(self) -> None:
        """Close the connection. A second time does nothing."""
        ...
