"""Where the gRPC door listens, whom it trusts, and what it bears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from matl.errors import InvalidValueError
from matl.protocol.pb.methods import LARGEST_MESSAGE

__all__ = ["DoorSettings", "Tls"]

_CALLS_OF_A_LINE = 100  # at a time over one connection; further ones wait for their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Who the door is, and who may come in.

    Parameters
    ----------
    certificate, key : Path
        PEM: the chain of the door's certificate, its own first, and the private key.
    client_ca : Path, optional
        PEM: authorities of the certificates that every caller has to show (mTLS). Without it, none is asked for.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC takes.

        Raises
        ------
        InvalidValueError
            A file cannot be read.
        """
        chain = (_read("private key", self.key, b"PRIVATE KEY"), _read("certificate", self.certificate, b"CERTIFICATE"))
        if self.client_ca is None:
            return grpc.ssl_server_credentials([chain])
        roots = _read("certificates of clients' authorities", self.client_ca, b"CERTIFICATE")
        return grpc.ssl_server_credentials([chain], root_certificates=roots, require_client_auth=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """How the door is opened.

    Parameters
    ----------
    host : str
        Address or name to listen at.
    port : int
        0 for any that is free; `matl.coordinator.grpc_door.GrpcDoor.port` says which.
    tls : Tls, optional
        Without it everything is readable on the way, tokens included: on one machine, or behind a proxy that has TLS.
    most_calls : int
        Calls at a time, those that wait included; further ones are refused (``RESOURCE_EXHAUSTED``).
    head_seconds : float
        How long a client may take for what it asks: the request, or the head of an update. Until then nothing is known
        of the call but that it takes one of the places.
    idle_seconds : float
        How long a client may take for the next piece of an update.
    longest_submit : float
        Seconds after which an update that still arrives is given up.
    grace : float
        Seconds that calls have to end when the door closes.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: Tls | None = None
    most_calls: int = 1000
    head_seconds: float = 5.0
    idle_seconds: float = 60.0
    longest_submit: float = 3600.0
    grace: float = 5.0

    def options(self) -> list[tuple[str, int]]:
        """What gRPC is told."""
        return [
            ("grpc.so_reuseport", 0),  # otherwise two servers share a port, and nobody is told
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_concurrent_streams", _CALLS_OF_A_LINE),
            ("grpc.keepalive_time_ms", 60_000),  # finds listeners that have gone without a word
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ]


def _read(what: str, path: Path, mark: bytes) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidValueError(f"the {what} cannot be read from {path}: {error.strerror}") from error
    if b"-----BEGIN " not in content or mark not in content:
        raise InvalidValueError(f"expected PEM with a {mark.decode()} in {path}")
    return content
