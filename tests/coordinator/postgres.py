"""A PostgreSQL server in processes of its own, of an unprivileged user, on a free port."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

BINARIES = Path("/usr/lib/postgresql")  # Debian's place; the tools are not in the PATH


class Server:
    """A server that can be stopped and started."""

    def __init__(self, folder: Path, tools: Path, user: list[str]) -> None:
        self.folder, self._tools, self._user, self._made = folder, tools, user, 0
        self._run("initdb", "-D", str(folder / "data"), "-U", "matl", "-A", "trust", "-E", "UTF8", "--no-sync")
        for _ in range(5):  # somebody else may take the port before the server does
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            if self.start():
                return
        raise AssertionError((folder / "log").read_text())

    def start(self) -> bool:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories='' -c fsync=off"
        done = self._run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"),
                         "-o", options, check=False)  # fmt: skip
        return done.returncode == 0

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def url(self, database: str) -> str:
        return f"postgresql://matl@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """A database that is empty, and its address."""
        self._made += 1
        name = f"test_{self._made}"
        asyncio.run(self._command(f"CREATE DATABASE {name}"))
        return self.url(name)

    def drop(self, url: str) -> None:
        asyncio.run(self._command(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)"))

    async def _command(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _run(self, tool: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        # Not through a pipe: the server would inherit it, and nobody would see its end.
        with (self.folder / f"{tool}.out").open("wb") as out:
            command = [*self._user, str(self._tools / tool), *arguments]
            return subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=check, cwd="/")


@contextmanager
def server() -> Iterator[Server]:
    """A server for a session of tests."""
    found = sorted(BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL not installed (Debian package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="matl-postgresql-"))
    user: list[str] = []
    if os.geteuid() == 0:  # as whom it refuses to run
        names = {entry.pw_name for entry in pwd.getpwall()}
        account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    try:
        running = Server(folder, found[-1].parent, user)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder)
