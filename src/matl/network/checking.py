"""Looks at everything that a coordinator needs before it is started: files, database, blobs, ports, runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable
from dataclasses import dataclass

from matl.coordinator.blobs import Blobs
from matl.errors import InvalidValueError, MatlError, StateError
from matl.files import make_directory
from matl.network.hosting import versions
from matl.network.planner import planner
from matl.network.serving import free_socket, tls_context
from matl.network.settings import NetworkSettings

__all__ = ["Finding", "check_all"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        The thing.
    problem : str
        What is wrong with it; empty if nothing is.
    """

    what: str
    problem: str = ""


async def check_all(settings: NetworkSettings) -> list[Finding]:
    """Look at everything, and say of each thing whether it will do; nothing is changed but a blob written and deleted.

    The folder is made if there is none.
    """
    found = [await _looked(f"folder {settings.folder}", asyncio.to_thread(_folder, settings))]
    if settings.tls is not None:
        found.append(
            await _looked(f"certificate {settings.tls.certificate}", asyncio.to_thread(tls_context, settings.tls))
        )
    ports = {"http": settings.port, "grpc": settings.grpc_port}
    for name, port in ports.items():
        if port is not None:
            found.append(
                await _looked(f"{name} at {settings.host}:{port}", asyncio.to_thread(_port, settings.host, port))
            )
    found.append(await _looked("database", _database(settings)))
    found.append(await _looked("blobs", _blobs(settings)))
    for name, given in settings.runs.items():
        found.append(await _looked(f"run {name}", asyncio.to_thread(planner, name, given)))
    return found


async def _looked(what: str, work: Awaitable[object]) -> Finding:
    try:
        await work
    except MatlError as error:
        return Finding(what, str(error))
    return Finding(what)


def _folder(settings: NetworkSettings) -> None:
    make_directory(settings.folder)
    if not os.access(settings.folder, os.W_OK | os.X_OK):
        raise InvalidValueError("this user cannot write there; give it to the user that runs the coordinator")


def _port(host: str, port: int) -> None:
    free_socket(host, port).close()


async def _database(settings: NetworkSettings) -> None:
    current, needed = await versions(settings)
    if current not in ("", needed):
        raise StateError(f"its tables are of version {current}, {needed} is needed: matl db upgrade")


async def _blobs(settings: NetworkSettings) -> None:
    content = os.urandom(32)
    blobs = Blobs(settings.blobs_url)
    name = await blobs.put(content)
    try:
        if hashlib.sha256(await blobs.read(name)).hexdigest() != name:
            raise StateError("what was written is not what is read")
    finally:
        await blobs.delete(name)
