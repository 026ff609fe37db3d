"""The SDK's transport over gRPC: updates and models of any size in one stream each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Never, TypeVar

from pydantic import BaseModel, ValidationError

from matl.client.transport import Message
from matl.errors import InvalidValueError, MissingExtraError, ServiceError, StateError
from matl.protocol.addresses import parts_of
from matl.protocol.messages import (
    Acknowledgement,
    ChallengeView,
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
)  # fmt: skip
from matl.protocol.problems import Code, refusal, seconds_of

try:
    import grpc
    import grpc.aio

    from matl.protocol.pb import training as pb
    from matl.protocol.pb.methods import (
        AUTHORIZATION,
        CODE,
        GO_ON,
        LARGEST_MESSAGE,
        LARGEST_PIECE,
        METHODS,
        REASON,
        RETRY_AFTER,
    )
except ModuleNotFoundError as error:
    raise MissingExtraError("grpcio", extra="grpc") from error

__all__ = ["GrpcTransport"]

_LARGEST_ANSWER = 1 << 24  # bytes; the layout of a model with many arrays is long
_SLOWEST = 1 << 15  # bytes a second at which an update is still waited for
_CODES = frozenset(code.value for code in Code)

_M = TypeVar("_M", bound=BaseModel)


class GrpcTransport:
    """A connection with the gRPC door of a coordinator; see `matl.client.transport.Transport`.

    It connects when something is asked for the first time, and again by itself after the line broke. It belongs to
    the event loop in which that was.

    Parameters
    ----------
    url : str
        ``grpc://host:port``, or ``grpcs://host:port`` with TLS.
    ca : Path, optional
        PEM: the authorities to trust, in place of those that gRPC brings along. For ``grpcs`` only.
    certificate : (Path, Path), optional
        PEM: the client's certificate and its key, where the door asks for one. For ``grpcs`` only.
    timeout : float
        Seconds for an answer, or for the next piece of a model. An update has a second more for every 32 KiB.

    Examples
    --------
    >>> GrpcTransport("grpc://localhost")
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: expected grpc://host:port or grpcs://host:port, got 'grpc://localhost'
    """

    resumable = False

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._target, self._secure = _target(url)
        if not self._secure and (ca or certificate):
            raise InvalidValueError(f"certificates are for grpcs://, got {url!r}")
        self._url, self._ca, self._certificate, self._timeout = url, ca, certificate, timeout
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: Any = None

    def set_token(self, token: str) -> None:
        """See `matl.client.transport.Transport`."""
        self._metadata = ((AUTHORIZATION, f"Bearer {token}"),) if token else ()

    async def health(self) -> Health:
        """See `matl.client.transport.Transport`."""
        return await self._view(Health, "Health", pb.HealthRequest())

    async def challenge(self) -> str:
        """See `matl.client.transport.Transport`."""
        return (await self._view(ChallengeView, "Challenge", pb.ChallengeRequest())).challenge

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """See `matl.client.transport.Transport`."""
        return await self._view(Enrolled, "Enrol", pb.JsonRequest(json=_json(request)))

    async def session(self, request: SessionRequest) -> SessionView:
        """See `matl.client.transport.Transport`."""
        return await self._view(SessionView, "Session", pb.JsonRequest(json=_json(request)))

    async def runs(self) -> list[RunView]:
        """See `matl.client.transport.Transport`."""
        answer = await self._ask("GetRuns", pb.RunsRequest())
        return [self._read(RunView, view) for view in answer.views]

    async def run(self, run: str) -> RunView:
        """See `matl.client.transport.Transport`."""
        return await self._view(RunView, "GetRun", pb.RunRequest(run=run))

    async def current_round(self, run: str, *, after: int | None = None, wait: float = 0.0) -> RoundView:
        """See `matl.client.transport.Transport`."""
        known = after if after is not None and after >= 0 else None  # above -1 is any
        request = pb.CurrentRoundRequest(run=run, after=known, wait_seconds=wait)
        return await self._view(RoundView, "CurrentRound", request, timeout=self._timeout + wait)

    async def round(self, run: str, number: int) -> RoundView:
        """See `matl.client.transport.Transport`."""
        return await self._view(RoundView, "GetRound", pb.RoundRequest(run=run, round=number))

    async def model(self, model_hash: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """See `matl.client.transport.Transport`."""
        expected, there = None, offset
        request = pb.ModelRequest(model_hash=model_hash, offset=offset)
        async with aclosing(self._stream("GetModel", request, idle=self._timeout)) as parts:
            async for part in parts:
                if part.WhichOneof("part") == "head" and expected is None:
                    expected = part.head.size
                elif part.WhichOneof("part") == "chunk" and expected is not None:
                    there += len(part.chunk)
                    yield part.chunk
                else:
                    self._stranger("a model that does not begin with its head")
        if expected != there:
            raise refusal(Code.BUSY, f"{self._url} sent {there} bytes of a model of {expected}", reason="unreachable")

    async def submit(self, run: str, number: int, message: Message) -> Acknowledgement:
        """See `matl.client.transport.Transport`. Where its head is refused, the payload stays here."""
        head = pb.UpdatePart(head=pb.UpdateHead(run=run, round=number, json=message.head))
        call = self._call("Submit")(timeout=self._timeout + message.size / _SLOWEST, metadata=self._metadata)
        try:
            with self._told():
                with suppress(asyncio.InvalidStateError):  # the call is over, and what follows says how
                    await call.write(head)
                    # Not only to save the way: a write that fails because the host has answered takes the place of
                    # the answer (https://github.com/grpc/grpc/issues/36066).
                    if GO_ON in dict(await call.initial_metadata() or ()):
                        for piece in message.pieces():
                            await call.write(pb.UpdatePart(chunk=piece))
                        await call.done_writing()
                return self._read(Acknowledgement, self._parsed(await call))
        finally:
            call.cancel()  # if it is not over

    async def begin_upload(self, run: str, number: int, head: bytes) -> UploadView:
        """See `matl.client.transport.Transport`."""
        _no_pieces()

    async def upload(self, upload_id: str) -> UploadView:
        """See `matl.client.transport.Transport`."""
        _no_pieces()

    async def append(self, upload_id: str, offset: int, piece: bytes) -> UploadView:
        """See `matl.client.transport.Transport`."""
        _no_pieces()

    async def update(self, run: str, number: int, client_id: str) -> UpdateView:
        """See `matl.client.transport.Transport`."""
        request = pb.UpdateRequest(run=run, round=number, client_id=client_id)
        return await self._view(UpdateView, "GetUpdate", request)

    async def receipt(self, run: str, number: int, client_id: str) -> bytes:
        """See `matl.client.transport.Transport`."""
        answer = await self._ask("GetReceipt", pb.UpdateRequest(run=run, round=number, client_id=client_id))
        return bytes(answer.receipt)

    async def manifest(self, run: str) -> bytes:
        """See `matl.client.transport.Transport`."""
        return bytes((await self._ask("GetManifest", pb.RunRequest(run=run))).json)

    async def participants(self, run: str) -> ParticipantsView:
        """See `matl.client.transport.Transport`."""
        return await self._view(ParticipantsView, "GetParticipants", pb.RunRequest(run=run))

    async def say(self, run: str, number: int, phase: str, message: bytes) -> Acknowledgement:
        """See `matl.client.transport.Transport`."""
        timeout = self._timeout + len(message) / _SLOWEST
        parts = [pb.PhasePart(head=pb.PhaseHead(run=run, round=number, phase=phase))]
        pieces = range(0, len(message), LARGEST_PIECE)
        parts += [pb.PhasePart(chunk=message[start : start + LARGEST_PIECE]) for start in pieces]
        with self._told():
            answer = await self._call("SayInPhase")(iter(parts), timeout=timeout, metadata=self._metadata)
        return self._read(Acknowledgement, self._parsed(answer))

    async def asked(self, run: str, number: int, phase: str, *, wait: float, limit: int) -> bytes:
        """See `matl.client.transport.Transport`."""
        request = pb.PhaseRequest(run=run, round=number, phase=phase, wait_seconds=wait)
        collected = bytearray()
        async with aclosing(self._stream("GetPhase", request, idle=self._timeout + wait)) as parts:
            async for part in parts:
                collected += part.chunk
                if len(collected) > limit:
                    self._stranger(f"more than {limit} bytes")
        return bytes(collected)

    async def events(self, *, after: int = 0, run: str | None = None) -> AsyncIterator[EventView]:
        """See `matl.client.transport.Transport`."""
        request = pb.EventsRequest(after=after, run=run or "")
        # Hours may pass without an event; keepalive watches the line.
        async with aclosing(self._stream("Events", request, idle=None)) as views:
            async for view in views:
                yield self._read(EventView, view)

    async def aclose(self) -> None:
        """See `matl.client.transport.Transport`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    # Calls -------------------------------------------------------------------------------------------------------

    async def _view(self, kind: type[_M], name: str, request: Any, *, timeout: float | None = None) -> _M:
        return self._read(kind, await self._ask(name, request, timeout=timeout))

    async def _ask(self, name: str, request: Any, *, timeout: float | None = None) -> Any:
        """Call a method that has one answer."""
        if request.ByteSize() > LARGEST_MESSAGE:
            raise refusal(Code.TOO_LARGE, f"expected a request of at most {LARGEST_MESSAGE} bytes: less evidence")
        with self._told():
            call = self._call(name)(request, timeout=timeout or self._timeout, metadata=self._metadata)
            return self._parsed(await call)

    async def _stream(self, name: str, request: Any, *, idle: float | None) -> AsyncGenerator[Any, None]:
        """Call a method whose answer is a stream; ``idle`` seconds may pass until the next part."""
        call = self._call(name)(request, metadata=self._metadata)
        try:
            with self._told():
                while True:
                    async with asyncio.timeout(idle):
                        part = await call.read()
                    if part is grpc.aio.EOF:
                        return
                    yield self._parsed(part)
        finally:
            call.cancel()  # whoever listened has had enough; after the end it does nothing

    def _call(self, name: str) -> Any:
        """The method, on the channel, which is made where there is none."""
        if self._channel is None:
            self._channel = self._connect()
        method = METHODS[name]
        kind = f"{'stream' if method.asks else 'unary'}_{'stream' if method.answers else 'unary'}"
        write, read = method.request.SerializeToString, method.response.FromString
        return getattr(self._channel, kind)(method.path, request_serializer=write, response_deserializer=read)

    def _connect(self) -> Any:
        options = [
            ("grpc.max_receive_message_length", _LARGEST_ANSWER),
            ("grpc.enable_retries", 0),  # that is decided above
            ("grpc.enable_http_proxy", int(self._secure)),  # a proxy of the environment reads what is not encrypted
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A connection of its own: clients of one process would share one, and its 100 streams, most of which wait.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if not self._secure:
            return grpc.aio.insecure_channel(self._target, options=options)
        certificate, key = self._certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_content(self._ca), private_key=_content(key), certificate_chain=_content(certificate)
        )
        return grpc.aio.secure_channel(self._target, credentials, options=options)

    def _read(self, kind: type[_M], view: Any) -> _M:
        try:
            return kind.model_validate_json(view.json)
        except ValidationError:
            self._stranger(f"what is no {kind.__name__}")

    def _parsed(self, message: Any) -> Any:
        """What came, if it is a message: gRPC writes a line in its log where it cannot be parsed, and gives nothing."""
        if message is None:
            self._stranger("what is no message of this protocol")
        return message

    def _stranger(self, what: str) -> Never:
        raise refusal(
            Code.MALFORMED,
            f"{self._url} answered {what}: expected the gRPC door of a MATL coordinator of this version",
            reason="not_a_coordinator",
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong with a call as every transport says it."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except TimeoutError as error:
            raise refusal(Code.BUSY, f"{self._url} did not answer in time", reason="timeout") from error

    def _error(self, error: Any) -> ServiceError:
        metadata = dict(error.trailing_metadata() or ())
        status, words = error.code(), error.details() or ""
        if metadata.get(CODE) in _CODES:
            return refusal(
                Code(metadata[CODE]),
                words,
                reason=metadata.get(REASON, ""),
                retry_after=seconds_of(metadata.get(RETRY_AFTER)),
            )
        code, reason, why = _unsaid(status, words)
        return refusal(code, f"{self._url} {why} ({status.name}: {words:.300})", reason=reason)


def _unsaid(status: Any, words: str) -> tuple[Code, str, str]:
    """Code, reason and words for a call that ended without a refusal of the coordinator's."""
    kind = grpc.StatusCode
    if status == kind.UNAVAILABLE and ("CERTIFICATE" in words or "handshak" in words.lower()):
        return Code.UNAUTHENTICATED, "tls", "has another certificate than expected, or expects one of the client"
    if status == kind.DEADLINE_EXCEEDED:
        return Code.BUSY, "timeout", "did not answer in time"
    if status == kind.UNIMPLEMENTED or "http1" in words.lower():
        return Code.MALFORMED, "not_a_coordinator", "is not the gRPC door of a MATL coordinator"
    if status == kind.RESOURCE_EXHAUSTED and "larger than max" in words:
        return Code.TOO_LARGE, "", "does not take, or sent, a message of this size"
    if status == kind.RESOURCE_EXHAUSTED:
        return Code.BUSY, "", "has too many calls at a time"
    if status in (kind.UNAVAILABLE, kind.CANCELLED) or "error from Core" in words:
        return Code.BUSY, "unreachable", "cannot be reached; is the coordinator up, as with `matl up`?"
    return Code.BUSY, "internal", "failed"


def _target(url: str) -> tuple[str, bool]:
    parts = parts_of(url)
    if (
        parts is None
        or parts.scheme not in ("grpc", "grpcs")
        or parts.port is None
        or "@" in parts.netloc
        or not url.endswith(parts.netloc)
    ):
        raise InvalidValueError(f"expected grpc://host:port or grpcs://host:port, got {url!a:.200}")
    return parts.netloc, parts.scheme == "grpcs"


def _content(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateError(f"certificates cannot be read from {path}: {error.strerror}; expected files in PEM") from error


def _json(request: BaseModel) -> bytes:
    return request.model_dump_json().encode()


def _no_pieces() -> Never:
    raise refusal(Code.INVALID, "gRPC takes an update in one stream; use submit", reason="not_resumable")
