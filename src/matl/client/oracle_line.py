"""The line to an oracle: HTTP, with answers of bounded length and errors in one wording."""

from __future__ import annotations

import ssl
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from matl.client.answers import PLAIN, read_async, told, web_parts
from matl.client.http import tls_context
from matl.errors import InvalidValueError, MissingExtraError, ServiceError
from matl.protocol.addresses import is_loopback
from matl.protocol.messages import Problem
from matl.protocol.problems import Code, refusal

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("httpx", extra="client") from error

__all__ = ["NO_ORACLE", "OracleLine"]

NO_ORACLE = "no_oracle"
"""Reason of the error of what answers, and not as an oracle does."""

_LARGEST_VIEW = 1 << 20

View = TypeVar("View", bound=BaseModel)


class OracleLine:
    """Asks one oracle. It is asked once in a while: every request has a connection of its own, and none stays open.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``, host and port.
    ca : Path, optional
        Certificates (PEM) to trust in place of those the machine trusts.
    token : str
        Shown with every request; empty for none.
    seconds : float
        To wait for a connection, and for each piece of an answer.
    transport : httpx.AsyncBaseTransport, optional
        What carries the requests, for tests.

    Raises
    ------
    InvalidValueError
        The URL is none, or the token would cross a network in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        token: str = "",
        seconds: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = web_parts(url, what="an oracle's address")
        if token and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise InvalidValueError(
                f"expected https for an oracle on another machine, got {url}: the token would be sent in the clear"
            )
        self.url, self._secure = url.rstrip("/"), parts.scheme == "https"
        self._ca, self._seconds, self._transport = ca, seconds, transport
        self._headers = PLAIN | ({"Authorization": f"Bearer {token}"} if token else {})

    async def view(self, method: str, path: str, view: type[View], **options: Any) -> View:
        """A small answer in JSON.

        Raises
        ------
        ServiceError
            Nobody answers, or refuses, or is no oracle.
        """
        body = await self.body(method, path, most=_LARGEST_VIEW, **options)
        try:
            return view.model_validate_json(body)
        except ValidationError as error:
            raise refusal(
                Code.MALFORMED, f"{self.url} is no oracle: what it answers to {path} cannot be read", reason=NO_ORACLE
            ) from error

    async def body(self, method: str, path: str, *, most: int, **options: Any) -> bytes:
        """An answer of at most so many bytes.

        Raises
        ------
        ServiceError
            As for `view`.
        """
        try:
            with told(self.url, reason=NO_ORACLE):
                async with self._open() as client, client.stream(method, path, **options) as response:
                    content = await read_async(response, most, reason=NO_ORACLE)
        except httpx.RequestError as error:
            reason = "timeout" if isinstance(error, httpx.TimeoutException) else "unreachable"
            words = str(error) or type(error).__name__
            raise refusal(
                Code.BUSY, f"the oracle at {self.url} does not answer ({words}); is it running?", reason=reason
            ) from error
        if response.status_code != 200:
            raise self._refused(path, response.status_code, content)
        return content

    @cached_property
    def _verify(self) -> ssl.SSLContext | bool:
        return tls_context(self._ca, None) if self._secure else False

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers=self._headers,
            verify=self._verify,
            timeout=self._seconds,
            transport=self._transport,
            trust_env=self._secure,  # proxies of the environment see what goes over http
            follow_redirects=False,  # lest a token is shown to somebody else
        )

    def _refused(self, path: str, status: int, body: bytes) -> ServiceError:
        try:
            problem = Problem.model_validate_json(body)
            return refusal(Code(problem.code), problem.message, reason=problem.reason, retry_after=problem.retry_after)
        except ValueError:  # pydantic's as well
            code = Code.BUSY if status >= 500 or status == 429 else Code.MALFORMED
            return refusal(code, f"{self.url} answers {status} to {path}, and not as an oracle does", reason=NO_ORACLE)
