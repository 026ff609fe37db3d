"""Where coordinators listen, and which addresses are of this machine alone: there, lines need no encryption."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from matl.errors import InvalidValueError

__all__ = ["PORT", "address_of", "is_loopback", "parts_of", "refuse_clear"]

PORT = 8470
"""Where a coordinator listens unless it is told otherwise."""

_LONGEST_URL = 2048
_CLEAR = {"http": "https", "ws": "wss", "grpc": "grpcs"}


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text is, or nothing; one of IPv4 in the clothes of IPv6 is the one of IPv4.

    Examples
    --------
    >>> address_of("10.0.0.5"), address_of("::ffff:10.0.0.5"), address_of("ten")
    (IPv4Address('10.0.0.5'), IPv4Address('10.0.0.5'), None)
    """
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by a line that nobody else can read.

    Examples
    --------
    >>> [host for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org") if is_loopback(host)]
    ['localhost', '127.0.0.1', '::1']
    """
    found = address_of(host)
    return host.lower() == "localhost" if found is None else found.is_loopback


def parts_of(url: str) -> SplitResult | None:
    r"""The parts of a URL, or nothing where it is none, has no host, or one that no resolver takes.

    Examples
    --------
    >>> parts_of("https://localhost:8470").port
    8470
    >>> bad = ("localhost", "http://", "http://[::1", "http://a:99999", "http://a..b", "http://a\n.b")
    >>> [url for url in bad if parts_of(url)]
    []
    """
    if len(url) > _LONGEST_URL or not url.isprintable():  # urlsplit takes line ends out
        return None
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # of Unicode as well
        return None
    return parts if usable else None


def refuse_clear(url: str, *, unless: str) -> None:
    """Refuse an address to which tokens would cross a network in the clear.

    Parameters
    ----------
    url : str
        Of a coordinator.
    unless : str
        What whoever means it can say, for the message.

    Raises
    ------
    InvalidValueError
        It is not encrypted, and on another machine.

    Examples
    --------
    >>> refuse_clear("http://127.0.0.1:8470", unless="insecure=True")
    >>> refuse_clear("http://10.0.0.5:8470", unless="insecure=True")
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: expected https:// for a coordinator on another machine, got 'http://10.0.0.5:8470'...
    """
    parts = urlsplit(url)
    if parts.scheme in _CLEAR and not is_loopback(parts.hostname or ""):
        raise InvalidValueError(
            f"expected {_CLEAR[parts.scheme]}:// for a coordinator on another machine, got {url!r:.200}: tokens and "
            f"models would be readable on the way; if that is meant, say {unless}"
        )
