"""The server of ``matl.v1.Training``: each method is one call of the service object, and nothing more."""

from __future__ import annotations

import asyncio
import ssl
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc
import grpc.aio
from pydantic import BaseModel

from matl.coordinator.grpc_door.errors import asked, refuse
from matl.coordinator.grpc_door.incoming import digest, first, identifier, message, number, said, seconds
from matl.coordinator.grpc_door.settings import DoorSettings
from matl.errors import InvalidValueError
from matl.protocol.messages import EnrolRequest, SessionRequest
from matl.protocol.pb import training as pb
from matl.protocol.pb.methods import AUTHORIZATION, GO_ON, LARGEST_PIECE, METHODS, SERVICE, Method
from matl.protocol.problems import Code, refusal

if TYPE_CHECKING:
    from matl.coordinator.access import Caller
    from matl.coordinator.service import Service

__all__ = ["GrpcDoor"]

_T = TypeVar("_T")


class GrpcDoor:
    """Serves a coordinator over gRPC.

    Parameters
    ----------
    service : Service
        What is asked, see `matl.coordinator.service`.
    settings : DoorSettings
        Where, with which certificates and limits.

    Examples
    --------
    ::

        async with GrpcDoor(service, DoorSettings(port=50051, tls=Tls(certificate=..., key=...))) as door:
            ...
    """

    def __init__(self, service: Service, settings: DoorSettings | None = None) -> None:
        self._service, self._settings = service, settings or DoorSettings()
        self._server: Any = None
        self._closing = asyncio.Event()
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    async def start(self) -> None:
        """Open the door.

        Raises
        ------
        InvalidValueError
            The port is taken, the address is none of this machine, or a certificate cannot be read.
        """
        settings = self._settings
        credentials = settings.tls.credentials() if settings.tls else None
        self._server = grpc.aio.server(options=settings.options(), maximum_concurrent_rpcs=settings.most_calls)
        handlers = {name: self._handler(method) for name, method in METHODS.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        where = f"{host}:{settings.port}"
        try:
            if credentials is None:
                self._port = self._server.add_insecure_port(where)
            else:
                self._port = self._server.add_secure_port(where, credentials)
        except RuntimeError as error:
            await self._server.stop(None)
            raise InvalidValueError(
                f"gRPC cannot listen at {where}: expected an address of this machine, a port that is free, and "
                f"a key that belongs to its certificate"
            ) from error
        await self._server.start()

    async def stop(self) -> None:
        """Close the door: what waits is told so at once, and what arrives has the grace to end. Twice does nothing."""
        self._closing.set()
        if self._server is not None:
            await self._server.stop(self._settings.grace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # How a method is served --------------------------------------------------------------------------------------

    def _handler(self, method: Method) -> grpc.RpcMethodHandler:
        serve = getattr(self, f"_{method.name}")
        write = method.response.SerializeToString
        # Of a stream of requests the first can be waited for as long as is right; callers see no difference.
        if method.answers:
            return grpc.stream_stream_rpc_method_handler(partial(self._many, serve, method), None, write)
        return grpc.stream_unary_rpc_method_handler(partial(self._one, serve, method), None, write)

    async def _asked(self, method: Method, parts: AsyncIterator[bytes]) -> Any:
        """What a method is called with: what streams in, or the one request."""
        if method.asks:
            return parts
        return await first(method.request, parts, head_seconds=self._settings.head_seconds)

    async def _one(
        self, serve: Callable[..., Awaitable[Any]], method: Method, parts: AsyncIterator[bytes], context: Any
    ) -> Any:
        """Serve a call that has one answer."""
        try:
            return await serve(await self._asked(method, parts), context)
        except Exception as error:  # noqa: BLE001 - the last place where it can be said what happened
            await refuse(context, error)

    async def _many(
        self, serve: Callable[..., AsyncIterator[Any]], method: Method, parts: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[Any]:
        """Serve a call whose answer is a stream."""
        try:
            async with _closing(serve(await self._asked(method, parts), context)) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:  # noqa: BLE001 - as above
            await refuse(context, error)

    async def _caller(self, context: Any) -> Caller:
        """Who calls. Every method asks, those too that anybody may call: how often they may is limited in there."""
        said = [value for name, value in context.invocation_metadata() or () if name == AUTHORIZATION]
        if len(said) > 1:
            raise refusal(Code.MALFORMED, f"expected authorization once in the metadata, got it {len(said)} times")
        shown = context.auth_context().get("x509_pem_cert")
        return await self._service.authenticate(
            said[0] if said else None,
            certificate=ssl.PEM_cert_to_DER_cert(shown[0].decode()) if shown else None,
            address=_address(context.peer()),
        )

    async def _until_closing(self, coming: Awaitable[_T]) -> _T:
        """What comes, unless the door closes first."""
        task, closing = asyncio.ensure_future(coming), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise refusal(Code.BUSY, "the coordinator is shutting down; come back", reason="closing", retry_after=1.0)
        finally:
            closing.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    # Anybody -----------------------------------------------------------------------------------------------------

    async def _Health(self, request: pb.HealthRequest, context: Any) -> pb.View:  # noqa: N802 - as in the protocol
        return _view(await self._service.health())

    async def _Challenge(self, request: pb.ChallengeRequest, context: Any) -> pb.View:  # noqa: N802
        await self._caller(context)
        return _view(await self._service.challenge())

    async def _Enrol(self, request: pb.JsonRequest, context: Any) -> pb.View:  # noqa: N802
        await self._caller(context)
        return _view(await self._service.enrol(asked(EnrolRequest, request.json)))

    async def _Session(self, request: pb.JsonRequest, context: Any) -> pb.View:  # noqa: N802
        await self._caller(context)
        return _view(await self._service.session(asked(SessionRequest, request.json)))

    # Runs and rounds ---------------------------------------------------------------------------------------------

    async def _GetRuns(self, request: pb.RunsRequest, context: Any) -> pb.Views:  # noqa: N802
        caller = await self._caller(context)
        return pb.Views(views=[_view(run) for run in await self._service.runs(caller)])

    async def _GetRun(self, request: pb.RunRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        return _view(await self._service.run(caller, identifier(run=request.run)))

    async def _CurrentRound(self, request: pb.CurrentRoundRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        after = number(after=request.after) if request.HasField("after") else None
        asking = self._service.current_round(
            caller, identifier(run=request.run), after=after, wait=seconds(wait_seconds=request.wait_seconds)
        )
        return _view(await self._until_closing(asking))

    async def _GetRound(self, request: pb.RoundRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        return _view(await self._service.round(caller, identifier(run=request.run), number(round=request.round)))

    async def _GetModel(self, request: pb.ModelRequest, context: Any) -> AsyncIterator[pb.ModelPart]:  # noqa: N802
        caller = await self._caller(context)
        blob = await self._service.model(caller, digest(model_hash=request.model_hash))
        if request.offset > blob.size:
            raise refusal(Code.INVALID, f"expected an offset of at most {blob.size} bytes, got {request.offset}")
        yield pb.ModelPart(head=pb.ModelHead(sha256=blob.sha256, size=blob.size))
        async with _closing(blob.stream(request.offset, blob.size)) as pieces:
            async for piece in pieces:
                for start in range(0, len(piece), LARGEST_PIECE):
                    yield pb.ModelPart(chunk=piece[start : start + LARGEST_PIECE])

    # Updates -----------------------------------------------------------------------------------------------------

    @property
    def _waits(self) -> dict[str, float]:
        """How long a client may take for the head of what streams in, and for each further piece."""
        return {"head_seconds": self._settings.head_seconds, "idle_seconds": self._settings.idle_seconds}

    async def _Submit(self, parts: AsyncIterator[bytes], context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        go_on = partial(context.send_initial_metadata, ((GO_ON, "yes"),))
        head, framed = await message(parts, go_on, **self._waits)
        longest = self._settings.longest_submit
        async with aclosing(framed):
            try:
                async with asyncio.timeout(longest) as scope:
                    return _view(await self._service.submit(caller, head.run, head.round, framed))
            except TimeoutError as error:
                if not scope.expired():
                    raise  # somebody else's
                raise refusal(Code.BUSY, f"the update was not here after {longest:g} s", reason="too_slow") from error

    async def _GetUpdate(self, request: pb.UpdateRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        return _view(await self._service.update(caller, *_which(request)))

    async def _GetReceipt(self, request: pb.UpdateRequest, context: Any) -> pb.Receipt:  # noqa: N802
        caller = await self._caller(context)
        return pb.Receipt(receipt=await self._service.receipt(caller, *_which(request)))

    # Masked rounds -----------------------------------------------------------------------------------------------

    async def _GetManifest(self, request: pb.RunRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        return pb.View(json=await self._service.manifest(caller, identifier(run=request.run)))

    async def _GetParticipants(self, request: pb.RunRequest, context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        return _view(await self._service.participants(caller, identifier(run=request.run)))

    async def _SayInPhase(self, parts: AsyncIterator[bytes], context: Any) -> pb.View:  # noqa: N802
        caller = await self._caller(context)
        head, chunks = await said(parts, **self._waits)
        async with aclosing(chunks):
            return _view(await self._service.say(caller, head.run, head.round, head.phase, chunks))

    async def _GetPhase(self, request: pb.PhaseRequest, context: Any) -> AsyncIterator[pb.PhaseAnswer]:  # noqa: N802
        caller = await self._caller(context)
        run, count = identifier(run=request.run), number(round=request.round)
        asking = self._service.asked(caller, run, count, request.phase, wait=seconds(wait_seconds=request.wait_seconds))
        content = await self._until_closing(asking)
        for start in range(0, len(content), LARGEST_PIECE):
            yield pb.PhaseAnswer(chunk=content[start : start + LARGEST_PIECE])

    # Watching ----------------------------------------------------------------------------------------------------

    async def _Events(self, request: pb.EventsRequest, context: Any) -> AsyncIterator[pb.View]:  # noqa: N802
        caller = await self._caller(context)
        run = identifier(run=request.run) if request.run else None
        async with _closing(self._service.subscribe(caller, after=number(after=request.after))) as events:
            while True:
                try:
                    event = await self._until_closing(anext(events))
                except StopAsyncIteration:
                    return
                if run is None or event.run == run:
                    yield _view(event)


def _closing(stream: AsyncIterator[_T]) -> aclosing[AsyncGenerator[_T, None]]:
    """Close a stream at the end. All are generators, which hold files and subscriptions until then."""
    return aclosing(cast("AsyncGenerator[_T, None]", stream))


def _view(answer: BaseModel) -> pb.View:
    return pb.View(json=answer.model_dump_json().encode())


def _which(request: pb.UpdateRequest) -> tuple[str, int, str]:
    run, client = identifier(run=request.run), identifier(client_id=request.client_id)
    return run, number(round=request.round), client


def _address(peer: str) -> str:
    """The address of ``ipv4:127.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``, without the port, which is never the same.

    Examples
    --------
    >>> _address("ipv4:127.0.0.1:5000"), _address("ipv6:%5B::1%5D:5000")
    ('127.0.0.1', '::1')
    """
    return urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
