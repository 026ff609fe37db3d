"""HTTP as every line of MATL's speaks it: URLs that can be used, and answers of bounded length.

httpx unpacks an answer before anybody can count it, however often it was packed: a few hundred bytes become gigabytes.
So nothing packed is asked for or taken, and bytes are counted as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult

from matl.errors import InvalidValueError, MissingExtraError
from matl.protocol.addresses import parts_of
from matl.protocol.problems import Code, refusal

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("httpx", extra="client") from error

__all__ = ["PLAIN", "read", "read_async", "refuse_packed", "told", "web_parts"]

PLAIN = {"Accept-Encoding": "identity"}
"""Headers of every request."""

_UNUSABLE = (httpx.InvalidURL, UnicodeError)
"""What httpx raises at a URL that is none: neither is among its errors of requests."""


def web_parts(url: str, *, what: str = "an address") -> SplitResult:
    """The parts of a URL that httpx takes.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``, host and port.
    what : str
        What it is expected to be, for the message.

    Raises
    ------
    InvalidValueError
        It is none.

    Examples
    --------
    >>> web_parts("https://localhost:8470").port
    8470
    >>> web_parts("http://[::1")
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: expected an address as https://host:port (or http://), got 'http://[::1'
    """
    parts, why = parts_of(url), ""
    if parts is not None and parts.scheme in ("http", "https"):
        try:
            if httpx.URL(url).host:
                return parts
        except _UNUSABLE as error:
            why = f": {error!s:.200}"
    raise InvalidValueError(f"expected {what} as https://host:port (or http://), got {url!a:.200}{why}")


@contextmanager
def told(url: str, *, reason: str) -> Iterator[None]:
    """Say that what a host gave leads to a URL that is none: an id that is too long, or where it sends one on to."""
    try:
        yield
    except (*_UNUSABLE, httpx.RemoteProtocolError) as error:
        # Of some of the places that one is sent on to, httpx says that the host broke the protocol.
        if isinstance(error, httpx.RemoteProtocolError) and not isinstance(error.__context__, _UNUSABLE):
            raise
        raise refusal(
            Code.MALFORMED, f"{url} leads to an address that cannot be used: {error!s:.200}", reason=reason
        ) from error


def refuse_packed(response: httpx.Response, *, reason: str) -> None:
    """Refuse an answer that is not sent as it is.

    Raises
    ------
    ServiceError
        ``"malformed"``, with this reason.
    """
    if _packed(response):
        coding = response.headers["content-encoding"]
        raise refusal(
            Code.MALFORMED,
            f"{str(response.url)!a:.200} answers packed ({coding!a:.100}), and was asked not to: where a proxy stands "
            "before it, turn off its compression",
            reason=reason,
        )


def read(response: httpx.Response, most: int, *, reason: str) -> bytes:
    """The body of an answer that is being streamed; nothing, where it is packed and its status says enough.

    Raises
    ------
    ServiceError
        ``"malformed"``, with this reason: it is packed, or has more than ``most`` bytes.
    """
    if _says_enough(response):
        return b""
    refuse_packed(response, reason=reason)
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        _refuse_longer(response, len(content), most, reason)
    return bytes(content)


async def read_async(response: httpx.Response, most: int, *, reason: str) -> bytes:
    """The same of an `httpx.AsyncClient`."""
    if _says_enough(response):
        return b""
    refuse_packed(response, reason=reason)
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        _refuse_longer(response, len(content), most, reason)
    return bytes(content)


def _packed(response: httpx.Response) -> bool:
    return response.headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def _says_enough(response: httpx.Response) -> bool:
    """Whether an answer is packed and of a gateway: that nobody is there, or too many, passes, however it is said."""
    status = response.status_code
    return _packed(response) and not response.is_success and (status == 429 or not 400 <= status < 500)


def _refuse_longer(response: httpx.Response, size: int, most: int, reason: str) -> None:
    if size > most:
        raise refusal(
            Code.MALFORMED, f"{str(response.url)!a:.200} answers more than {most} bytes; is it the right address?",
            reason=reason,
        )  # fmt: skip
