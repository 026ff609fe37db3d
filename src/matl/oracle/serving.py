"""Serve an oracle: its parts put together, behind a server that waits for nobody too long."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from matl.attest.measurement import Measurement
from matl.coordinator.http.guard import LARGEST_HEADERS
from matl.errors import StateError
from matl.files import make_directory, read_private, write_atomic
from matl.oracle.answers import Answers
from matl.oracle.attesting import Attester
from matl.oracle.http import create_app
from matl.oracle.judging import Bench
from matl.oracle.keys import OracleKeys
from matl.oracle.settings import OracleConfig

__all__ = ["HEAD_SECONDS", "Oracle", "server"]

HEAD_SECONDS = 15.0
"""How long the head of a request may take."""

_LARGEST_TOKEN = 512  # bytes of the file; coordinators read no more


@dataclass(frozen=True)
class Oracle:
    """An oracle with new keys, ready to be served.

    Parameters
    ----------
    app : FastAPI
        The application.
    measurement : Measurement
        What it measured of itself.
    attester : Attester
        How it proves that.
    token_file : Path
        Where the token is that coordinators show.
    """

    app: FastAPI
    measurement: Measurement
    attester: Attester
    token_file: Path

    @classmethod
    def start(cls, config: OracleConfig, folder: Path, attester: Callable[[Measurement], Attester]) -> Oracle:
        """Measure this installation with a configuration, and make keys.

        Parameters
        ----------
        config : OracleConfig
            What was read.
        folder : Path
            Where the token, the answers and the files of the attester are kept.
        attester : callable
            Makes the attester of a measurement.

        Raises
        ------
        MatlError
            The machine cannot prove it, or the folder cannot be used.
        """
        measurement = config.measure()
        proves = attester(measurement)
        keys = OracleKeys(measurement.digest)
        bench = Bench(config.workload, config.policy, keys, proves)
        token_file = make_directory(folder) / "token"
        app = create_app(bench, proves, config.config, Answers(folder / "answers"), _token(token_file))
        return cls(app, measurement, proves, token_file)


def server(app: FastAPI, **options: Any) -> uvicorn.Server:
    """A server of the application that is careful with connections; it stops when ``should_exit`` is set.

    Parameters
    ----------
    app : FastAPI
        The application.
    **options
        Of `uvicorn.Config`: ``host``, ``port``, ``ssl_certfile``, ``ssl_keyfile``.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Punctual,
            loop="asyncio",  # and not another one that happens to be installed, and was not measured
            ws="none",
            lifespan="off",
            server_header=False,
            access_log=False,
            log_level="warning",
            h11_max_incomplete_event_size=LARGEST_HEADERS,
            timeout_graceful_shutdown=5,
            limit_concurrency=1000,
            **options,
        )
    )


class _Punctual(H11Protocol):
    """Closes connections whose next request has begun, or never does, and whose head does not come."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._late is None and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _token(path: Path) -> str:
    """The token in a file, which is made where there is none."""
    if not path.exists():
        write_atomic(path, f"matl_or_{secrets.token_urlsafe(32)}\n", mode=0o600)
    try:
        token = read_private(path, _LARGEST_TOKEN, given=True).decode("ascii", "replace").strip()
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}; remove it to have a new token made") from error
    if len(token) < 32 or not token.isascii() or not token.isprintable():
        raise StateError(f"{path} holds no token: remove it, and a new one is made")
    return token
