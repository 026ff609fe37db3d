"""The oracle's door: evidence for anybody, judgement for the coordinator that holds the token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.middleware import Middleware

from matl.attest.claims import system_clock
from matl.attest.tpm_tools import TpmError
from matl.coordinator.http.bodies import JsonBody, pieces
from matl.coordinator.http.errors import HANDLERS
from matl.coordinator.http.guard import Guard
from matl.coordinator.limits import Rate, RateLimiter, neighbourhood
from matl.errors import AttestationError, ProtocolError, StorageError
from matl.oracle.answers import Answers
from matl.oracle.attesting import Attester
from matl.oracle.judging import Bench, Case
from matl.oracle.wire import LENGTH
from matl.protocol.messages import Health
from matl.protocol.oracle import (
    LARGEST_NONCE,
    Activation,
    ActivationRequest,
    ConfigText,
    EvidenceView,
    IdentityView,
    KeysView,
)  # fmt: skip
from matl.protocol.problems import Code, refusal
from matl.version import VERSION

__all__ = ["Limits", "application", "create_app"]

_LOG = logging.getLogger("matl.oracle")
_MEDIA = "application/vnd.matl.judgement"
_LARGEST_BLOB = 1 << 13  # a challenge has less than a kilobyte


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What anybody may ask for.

    Parameters
    ----------
    most_clients : int
        Updates of one round.
    brief : int
        Bytes of a brief beside 16 times those of the model, for the state.
    waiting, kept : int
        Requests for evidence that wait for the TPM, which answers one after another; and how many of these places are
        kept for who shows the token.
    address : Rate
        Those of one address that shows no token. A TPM answers about once a second, and a client asks once an hour.
    """

    most_clients: int = 10_000
    brief: int = 64 << 20
    waiting: int = 64
    kept: int = 16
    address: Rate = field(default_factory=lambda: Rate(1, 30))


class _Door:
    """What the routes share."""

    def __init__(
        self, bench: Bench, attester: Attester, config: ConfigText, answers: Answers, token: str, limits: Limits
    ) -> None:
        self.bench, self.attester, self.config, self.answers = bench, attester, config, answers
        self._token, self._limits = token.encode(), limits
        self._judging, self._machine = asyncio.Lock(), asyncio.Lock()
        self._waiting = 0
        self._addresses = RateLimiter(limits.address, "requests for evidence")
        layout = bench.workload.layout
        self._most_brief = limits.brief + 16 * layout.nbytes
        self._most = self._most_brief + limits.most_clients * (bench.workload.channel.largest(layout) + LENGTH)

    def admit(self, request: Request) -> None:
        """Only the coordinator may ask for judgement."""
        if not self._shown(request):
            raise refusal(
                Code.UNAUTHENTICATED, "expected the oracle's token in Authorization: Bearer; it is in the file that "
                "`matl oracle serve` names", reason="token",
            )  # fmt: skip

    def _shown(self, request: Request) -> bool:
        """Whether a request comes with the token."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), self._token)

    async def machine(self, request: Request, work: str, *arguments: bytes) -> bytes:
        """Have the attester do something, one at a time, and for nobody so often that others find no place."""
        most = self._limits.waiting
        if not self._shown(request):
            sender = neighbourhood(request.client.host if request.client is not None else "")
            self._addresses.take(sender, now=time.monotonic())
            most -= self._limits.kept
        if self._waiting >= most:
            raise refusal(Code.BUSY, f"{self._waiting} others wait for this oracle's evidence", retry_after=2)
        self._waiting += 1
        try:
            async with self._machine:
                done: bytes = await asyncio.to_thread(getattr(self.attester, work), *arguments)
                return done
        except AttestationError as error:
            raise refusal(Code.MALFORMED, str(error), reason=error.code) from error
        except TpmError as error:
            raise refusal(Code.BUSY, f"the TPM of this machine does not do it: {error}", retry_after=5) from error
        finally:
            self._waiting -= 1

    async def judge(self, request: Request) -> bytes:
        """The signed answer to a request: one that was given before, or else a new one."""
        if self._judging.locked():
            raise refusal(Code.BUSY, "another round is being judged", reason="judging", retry_after=1)
        async with self._judging, aclosing(pieces(request, self._most)) as arriving:  # type: ignore[type-var]
            parts = _Parts(arriving)
            brief = await parts.part(self._most_brief)
            digest = await asyncio.to_thread(_sha256, brief)
            if (known := await asyncio.to_thread(self.answers.get, digest)) is not None:
                return known
            try:
                case = await asyncio.to_thread(self.bench.open, brief)
                del brief
                if len(case.asked.heads) > self._limits.most_clients:
                    raise refusal(
                        Code.TOO_LARGE, f"expected at most {self._limits.most_clients} updates, "
                        f"got {len(case.asked.heads)}",
                    )  # fmt: skip
                for head in case.asked.heads:
                    await asyncio.to_thread(case.take, head, await parts.part(case.largest))
                await parts.end()
                return await asyncio.to_thread(self._finish, case)
            except ProtocolError as error:
                raise refusal(Code.MALFORMED, str(error), reason=error.code) from error
            except (TpmError, StorageError) as error:
                raise refusal(Code.BUSY, f"the round was not judged: {error}", retry_after=5) from error

    def _finish(self, case: Case) -> bytes:
        began = time.perf_counter()
        answer = case.judge()
        self.answers.put(case.asked.digest, answer)
        spec = case.asked.spec
        _LOG.info(
            "judged round %d of %s: %d updates, %.1f s",
            spec.round, spec.run, len(case.asked.heads), time.perf_counter() - began,
        )  # fmt: skip
        return answer


class _Parts:
    """A body of parts, each behind its length (8 bytes, big endian)."""

    def __init__(self, arriving: AsyncIterator[bytes]) -> None:
        self._arriving, self._buffer = arriving, bytearray()

    async def part(self, most: int) -> bytes:
        """The next part.

        Raises
        ------
        ServiceError
            It is longer than it may be, or not there.
        """
        size = int.from_bytes(await self._exactly(LENGTH), "big")
        if size > most:
            raise refusal(Code.TOO_LARGE, f"expected a part of at most {most} bytes, the next one has {size}")
        return await self._exactly(size)

    async def end(self) -> None:
        """There is no further part."""
        if self._buffer or await self._more():
            raise refusal(Code.MALFORMED, "expected nothing behind the last payload, there is more")

    async def _more(self) -> bytes:
        async for piece in self._arriving:
            return piece
        return b""

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = await self._more()
            if not piece:
                raise refusal(Code.MALFORMED, f"the body ends {size - len(self._buffer)} bytes too early")
            self._buffer += piece
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken


def _door(request: Request) -> _Door:
    door: _Door = request.app.state.door
    return door


_routes = APIRouter()
Door = Annotated[_Door, Depends(_door)]


@_routes.get("/v1/health")
async def health() -> Health:
    """That somebody is there."""
    return Health(version=VERSION, time=system_clock())


@_routes.get("/v1/keys")
async def keys(door: Door) -> KeysView:
    """Which key the oracle signs with at present; it is another one after every start."""
    return KeysView(signer=door.bench.keys.signing.public.fingerprint)


@_routes.get("/v1/evidence")
async def evidence(request: Request, door: Door, nonce: str) -> EvidenceView:
    """What the oracle proves to somebody who drew this nonce (1 to 64 bytes, hexadecimal digits)."""
    if not re.fullmatch(rf"([0-9a-f]{{2}}){{1,{LARGEST_NONCE}}}", nonce):
        raise refusal(
            Code.INVALID, f"expected nonce of 1 to {LARGEST_NONCE} bytes in lower-case hexadecimal digits, got "
            f"{nonce[:40]!a}, {len(nonce)} characters; draw 32 random bytes", reason="nonce",
        )  # fmt: skip
    own, bench = door.bench.keys, door.bench
    made = await door.machine(request, "evidence", bytes.fromhex(nonce), own.signing.public.der)
    return EvidenceView(
        format=door.attester.format,
        evidence=_text(made),
        keys=own.text.to_bytes().decode(),
        keys_signature=_text(own.signature),
        config=door.config.to_bytes().decode(),
        policy=bench.policy.to_bytes().decode(),
        hardware_root=door.attester.hardware_root,
    )


@_routes.get("/v1/identity")
async def identity(request: Request, door: Door) -> IdentityView:
    """Who made the oracle's TPM, for who wants to challenge it."""
    return IdentityView(identity=_text(await door.machine(request, "identity")))


@_routes.post("/v1/activations")
async def activate(
    request: Request,
    door: Door,
    asked: Annotated[ActivationRequest, Depends(JsonBody(ActivationRequest, limit=_LARGEST_BLOB))],
) -> Activation:
    """The TPM's answer to a challenge."""
    try:
        blob = base64.b64decode(asked.blob, validate=True)
    except ValueError as error:
        raise refusal(Code.MALFORMED, "the blob is not base64 (RFC 4648, section 4)") from error
    return Activation(answer=_text(await door.machine(request, "activate", blob)))


@_routes.get("/v1/judgements/{digest}")
async def judgement(request: Request, door: Door, digest: str) -> Response:
    """The answer to a request that was judged already."""
    door.admit(request)
    answer = await asyncio.to_thread(door.answers.get, digest)
    if answer is None:
        raise refusal(Code.NOT_FOUND, f"no answer to the request {digest[:12]!a} is kept here; ask for it")
    return Response(answer, media_type=_MEDIA)


@_routes.post("/v1/judge")
async def judge(request: Request, door: Door) -> Response:
    """Judge a round: its brief and its payloads, each behind its length."""
    door.admit(request)
    return Response(await door.judge(request), media_type=_MEDIA)


def create_app(
    bench: Bench, attester: Attester, config: ConfigText, answers: Answers, token: str, *, limits: Limits | None = None
) -> FastAPI:
    """The application.

    Parameters
    ----------
    bench : Bench
        Who judges.
    attester : Attester
        Who proves.
    config : ConfigText
        What was measured of the configuration.
    answers : Answers
        What was judged.
    token : str
        What the coordinator shows.
    limits : Limits, optional
        What anybody may ask for.
    """
    app = application()
    app.state.door = _Door(bench, attester, config, answers, token, limits or Limits())
    return app


def application() -> FastAPI:
    """The application by itself: enough to document it, and not to answer."""
    return FastAPI(
        title="MATL oracle",
        routes=_routes.routes,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        middleware=[Middleware(Guard)],
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
