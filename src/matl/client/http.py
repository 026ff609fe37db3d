"""The transport over HTTP/1.1, with httpx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, RootModel, ValidationError

from matl.client.answers import PLAIN, read_async, refuse_packed, told, web_parts
from matl.client.transport import PIECE, Message
from matl.errors import MissingExtraError, ServiceError, StateError
from matl.protocol.messages import (
    Acknowledgement,
    ChallengeView,
    Enrolled,
    EnrolRequest,
    EventPage,
    EventView,
    Health,
    ParticipantsView,
    Problem,
    RoundView,
    RunView,
    SessionRequest,
    SessionView,
    UpdateView,
    UploadView,
)
from matl.protocol.problems import CODES, Code, refusal, seconds_of

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("httpx", extra="client") from error

__all__ = ["CONTENT_TYPE", "PHASE_TYPE", "HttpTransport", "sent_on", "stranger", "tls_context"]

CONTENT_TYPE = "application/vnd.matl.update"
"""Of a message of `matl.protocol.envelope`."""

PHASE_TYPE = "application/vnd.matl.phase"
"""Of what is said and asked in the phases of a masked round."""

_STRANGER = "not_a_coordinator"  # reason of the error of what answers, and not as a coordinator does
_LONGEST_ANSWER = 64 << 20  # bytes; a layout of ten thousand arrays has about one megabyte
_LONGEST_RECEIPT = 8192
_LONGEST_MANIFEST = 1 << 20
_EVENT_WAIT = 25.0  # seconds; below what proxies commonly cut
_SLICE = 64 << 10  # bytes written at once: the time limit is for each, and a line of 10 kB a second needs 7 s
_BUFFERED = 1 << 20  # bytes of a body that may still lie in buffers on the way when all of it is written
_SLOWEST = 8 << 10  # bytes a second in which they leave; a coordinator gives up what is slower
_HTTP_CODES = {numbers.http: code for code, numbers in CODES.items()}

M = TypeVar("M", bound=BaseModel)


class _Runs(RootModel[list[RunView]]):
    """All runs."""


class HttpTransport:
    """Speaks HTTP with a coordinator; see `matl.client.transport.Transport`.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``, host, port, and a path if the coordinator lies under one.
    ca : Path, optional
        Certificates (PEM) to trust in place of those the machine trusts.
    certificate : (Path, Path), optional
        This client's certificate and key (PEM), where the coordinator asks for one.
    timeout : float
        Seconds to wait for a connection, and for each piece of an answer.

    Raises
    ------
    InvalidValueError
        The URL is none.
    StateError
        A certificate cannot be read.
    MissingExtraError
        httpx is not installed (when this module is imported).
    """

    resumable = True

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._token: str | None = None
        secure = web_parts(self.url).scheme == "https"
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers=PLAIN,
            verify=tls_context(ca, certificate) if secure else False,
            timeout=timeout,
            # Proxies of the environment see what goes over http.
            trust_env=secure,
            follow_redirects=False,  # lest a token is shown to somebody else
        )

    def set_token(self, token: str) -> None:
        """See `matl.client.transport.Transport`."""
        self._token = token or None
        if token:
            self._client.headers["Authorization"] = f"Bearer {token}"
        else:
            self._client.headers.pop("Authorization", None)

    async def health(self) -> Health:
        """See `matl.client.transport.Transport`."""
        return await self._json(Health, "GET", "/v1/health")

    async def challenge(self) -> str:
        """See `matl.client.transport.Transport`."""
        return (await self._json(ChallengeView, "POST", "/v1/challenge")).challenge

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """See `matl.client.transport.Transport`."""
        return await self._json(Enrolled, "POST", "/v1/clients", json=request.model_dump(mode="json"))

    async def session(self, request: SessionRequest) -> SessionView:
        """See `matl.client.transport.Transport`."""
        return await self._json(SessionView, "POST", "/v1/sessions", json=request.model_dump(mode="json"))

    async def runs(self) -> list[RunView]:
        """See `matl.client.transport.Transport`."""
        return (await self._json(_Runs, "GET", "/v1/runs")).root

    async def run(self, run: str) -> RunView:
        """See `matl.client.transport.Transport`."""
        return await self._json(RunView, "GET", f"/v1/runs/{_part(run)}")

    async def current_round(self, run: str, *, after: int | None = None, wait: float = 0.0) -> RoundView:
        """See `matl.client.transport.Transport`."""
        asked: dict[str, Any] = {"wait": wait} if after is None else {"after": after, "wait": wait}
        path = f"/v1/runs/{_part(run)}/rounds/current"
        return await self._json(RoundView, "GET", path, params=asked, timeout=self._timeout + wait)

    async def round(self, run: str, number: int) -> RoundView:
        """See `matl.client.transport.Transport`."""
        return await self._json(RoundView, "GET", _round(run, number))

    async def model(self, model_hash: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """See `matl.client.transport.Transport`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._answer("GET", f"/v1/models/{_part(model_hash)}", headers=headers) as response:
            skip = offset if response.status_code == 200 else 0  # who knows no ranges sends everything
            async for piece in response.aiter_raw(PIECE):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                yield piece[skip:]
                skip = 0

    async def submit(self, run: str, number: int, message: Message) -> Acknowledgement:
        """See `matl.client.transport.Transport`."""
        path = f"{_round(run, number)}/updates"
        body = self._sliced(message.framed(), message.size, {"Content-Type": CONTENT_TYPE})
        return await self._json(Acknowledgement, "POST", path, **body)

    async def begin_upload(self, run: str, number: int, head: bytes) -> UploadView:
        """See `matl.client.transport.Transport`."""
        headers = {"Content-Type": "application/json"}
        return await self._json(UploadView, "POST", f"{_round(run, number)}/uploads", content=head, headers=headers)

    async def upload(self, upload_id: str) -> UploadView:
        """See `matl.client.transport.Transport`."""
        return await self._json(UploadView, "GET", f"/v1/uploads/{_part(upload_id)}")

    async def append(self, upload_id: str, offset: int, piece: bytes) -> UploadView:
        """See `matl.client.transport.Transport`."""
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        path = f"/v1/uploads/{_part(upload_id)}"
        return await self._json(UploadView, "PATCH", path, **self._sliced([piece], len(piece), headers))

    async def update(self, run: str, number: int, client_id: str) -> UpdateView:
        """See `matl.client.transport.Transport`."""
        return await self._json(UpdateView, "GET", f"{_round(run, number)}/updates/{_part(client_id)}")

    async def receipt(self, run: str, number: int, client_id: str) -> bytes:
        """See `matl.client.transport.Transport`."""
        path = f"{_round(run, number)}/updates/{_part(client_id)}/receipt"
        return await self._body("GET", path, limit=_LONGEST_RECEIPT)

    async def manifest(self, run: str) -> bytes:
        """See `matl.client.transport.Transport`."""
        return await self._body("GET", f"/v1/runs/{_part(run)}/manifest", limit=_LONGEST_MANIFEST)

    async def participants(self, run: str) -> ParticipantsView:
        """See `matl.client.transport.Transport`."""
        return await self._json(ParticipantsView, "GET", f"/v1/runs/{_part(run)}/participants")

    async def say(self, run: str, number: int, phase: str, message: bytes) -> Acknowledgement:
        """See `matl.client.transport.Transport`."""
        path = f"{_round(run, number)}/phases/{_part(phase)}"
        body = self._sliced([message], len(message), {"Content-Type": PHASE_TYPE})
        return await self._json(Acknowledgement, "POST", path, **body)

    async def asked(self, run: str, number: int, phase: str, *, wait: float, limit: int) -> bytes:
        """See `matl.client.transport.Transport`."""
        path = f"{_round(run, number)}/phases/{_part(phase)}"
        return await self._body("GET", path, limit=limit, params={"wait": wait}, timeout=self._timeout + wait)

    async def events(self, *, after: int = 0, run: str | None = None) -> AsyncIterator[EventView]:
        """See `matl.client.transport.Transport`."""
        while True:
            asked: dict[str, Any] = {"after": after, "wait": _EVENT_WAIT, **({} if run is None else {"run": run})}
            timeout = self._timeout + _EVENT_WAIT
            page = await self._json(EventPage, "GET", "/v1/events", params=asked, timeout=timeout)
            for event in page.events:
                yield event
            after = page.next

    async def aclose(self) -> None:
        """See `matl.client.transport.Transport`."""
        await self._client.aclose()

    def _sliced(self, pieces: Iterable[bytes], size: int, headers: dict[str, str]) -> dict[str, Any]:
        """What httpx is given with a body that may be large, on a line that may be slow."""
        return {
            "content": _slices(pieces),
            "headers": {**headers, "Content-Length": str(size)},  # httpx sends chunks where the length is not told
            "timeout": httpx.Timeout(self._timeout, read=self._timeout + min(size, _BUFFERED) / _SLOWEST),
        }

    async def _json(self, kind: type[M], method: str, path: str, **given: Any) -> M:
        return _read(kind, await self._body(method, path, limit=_LONGEST_ANSWER, **given))

    async def _body(self, method: str, path: str, *, limit: int, **given: Any) -> bytes:
        async with self._answer(method, path, **given) as response:
            return await read_async(response, limit, reason=_STRANGER)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **given: Any) -> AsyncIterator[httpx.Response]:
        """An answer that is no refusal, with its body still to come."""
        try:
            with told(self.url, reason=_STRANGER):
                async with self._client.stream(method, path, **given) as response:
                    if not response.is_success:
                        body = await read_async(response, _LONGEST_ANSWER, reason=_STRANGER)
                        raise _refusal(response, body, self.url)
                    refuse_packed(response, reason=_STRANGER)
                    yield response
        except httpx.TimeoutException as error:
            raise refusal(Code.BUSY, f"{self.url} does not answer: {_words(error)}", reason="timeout") from error
        except httpx.RequestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ServiceError:
        cause = _tls_cause(error)
        if cause is not None:
            return refusal(
                Code.UNAUTHENTICATED,
                f"the certificate of {self.url} is not one to trust: {cause}; if it is signed by an authority of your "
                "own, name that: ca='ca.pem'",
                reason="tls",
            )
        return refusal(
            Code.BUSY,
            f"no coordinator can be reached at {self.url}: {_words(error)}; check host and port, or start one here "
            "with: matl up",
            reason="unreachable",
        )


def tls_context(ca: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    """How a client checks whom it talks to, and says who it is.

    Raises
    ------
    StateError
        A file cannot be read.
    """
    try:
        context = httpx.create_ssl_context() if ca is None else ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (ca, *(certificate or ())) if path is not None)
        raise StateError(f"certificates cannot be read from {files}: {error}; expected files in PEM") from error
    return context


def _refusal(response: httpx.Response, body: bytes, url: str) -> ServiceError:
    """What an answer of 300 and above says."""
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        return stranger(response, url)
    # A fault of the coordinator's own says nothing of the request, which is to be kept and sent again.
    unnamed = Code.BUSY if response.status_code >= 500 else Code.INVALID
    known = problem.code if problem.code in set(Code) else _HTTP_CODES.get(response.status_code, unnamed).value
    after = problem.retry_after if problem.retry_after is not None else _retry_after(response)
    return ServiceError(known, problem.message, reason=problem.reason, retry_after=after)


def stranger(response: httpx.Response, url: str) -> ServiceError:
    """An answer that is not the coordinator's own: of a proxy before it, or of something else altogether."""
    status = response.status_code
    if status in (429, 502, 503, 504):
        message = f"{url} answers {status}: what stands before the coordinator cannot reach it, or asks for a pause"
        return refusal(Code.BUSY, message, reason="unreachable", retry_after=_retry_after(response))
    if response.is_redirect:
        return sent_on(url, response.headers.get("location", "elsewhere"))
    message = f"{url} answers {status} in words no coordinator uses; is it the right address?"
    return refusal(Code.MALFORMED, message, reason=_STRANGER)


def sent_on(url: str, target: str) -> ServiceError:
    """The error of an address that sends one on: nobody is followed, lest a token is shown to somebody else."""
    message = f"{url} sends on to {target:.200}; give the address that answers itself"
    return refusal(Code.MALFORMED, message, reason=_STRANGER)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header; the form with a date is not used by coordinators."""
    return seconds_of(response.headers.get("retry-after"))


def _read(kind: type[M], content: bytes) -> M:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise refusal(
            Code.MALFORMED,
            f"the answer is no {kind.__name__} ({where}: {first['msg']}): another version of the protocol, or no "
            "coordinator",
            reason=_STRANGER,
        ) from error


async def _slices(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), _SLICE):
            yield piece[start : start + _SLICE]


def _tls_cause(error: BaseException) -> ssl.SSLError | None:
    """The TLS error behind an error, if that is what it is."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _round(run: str, number: int) -> str:
    return f"/v1/runs/{_part(run)}/rounds/{number}"


def _part(text: str) -> str:
    """A part of a path: an id may hold a colon or a percent sign, and never a slash."""
    return quote(text, safe="")
