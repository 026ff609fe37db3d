"""A real coordinator on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from matl.network.hosting import open_coordinator
from matl.network.operating import Operator
from matl.network.settings import NetworkSettings
from matl.protocol.messages import InviteRequest


@dataclass(frozen=True)
class Served:
    """Where it is, and who may invite."""

    url: str
    grpc_url: str | None
    operator: Operator

    def invite(self, uses: int = 1) -> str:
        """The token of an invitation."""
        return self.operator.invite(InviteRequest(uses=uses)).token

    def at(self, scheme: str) -> str:
        """Its address behind one of its doors."""
        return self.grpc_url if scheme == "grpc" else self.url.replace("http", scheme)


@contextmanager
def coordinator(folder, *, port=0, grpc=False, **runs):
    """A coordinator that has these runs, for as long as the block lasts."""
    settings = NetworkSettings(folder=folder, port=port, grpc_port=0 if grpc else None, runs=runs)
    ready, found = threading.Event(), {}

    async def serve():
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with open_coordinator(settings) as doors:
                found["doors"] = doors
                ready.set()
                await found["stop"].wait()
        except BaseException as error:
            found["error"] = error
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        assert "error" not in found, found
        with Operator.of(folder) as operator:
            yield Served(found["doors"].url, found["doors"].grpc_url, operator)
    finally:
        if "doors" in found:
            found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(60)
        assert not thread.is_alive()
