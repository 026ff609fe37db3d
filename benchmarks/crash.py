"""Kill a coordinator again and again while clients send updates, and check that nothing was lost or counted twice.

::

    make crash                    # 200 kills, half of them on PostgreSQL; writes benchmarks/results/crash.{json,md}
    python benchmarks/crash.py --kills 20 --databases sqlite

The coordinator is ``matl serve`` in a process of its own, killed with ``kill -9`` after a random time and started
again.
Clients are those of the SDK, which keep an update until it is acknowledged. After each series every round is replayed
from the updates that the clients' own ledger names: each acknowledged update has to be there once, and the hash of
every model has to be that of plain averaging over exactly what the round counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import markdown, write
from network_case import EXAMPLES, RUN, Check, Coordinator, Ledger, check, delta, free_port, run_settings

from matl.client import AsyncMATLClient
from matl.client.retrying import Retrying
from matl.errors import ServiceError

CLIENTS = 8
LONGEST = 3.0  # seconds between a start and the next kill


async def client(coordinator: Coordinator, name: str, invitation: str, folder: Path, ledger: Ledger, size: int) -> None:
    """Take part for as long as the run lasts."""
    # In a hurry: what should be under way when the coordinator is killed are updates, and not waits for it.
    hurry = Retrying(attempts=50, cap=0.2, share=1.0, burst=1000)
    async with AsyncMATLClient(coordinator.url, client_id=name, folder=folder, run=RUN, retrying=hurry) as member:
        while True:
            with contextlib.suppress(ServiceError):
                await member.join(invitation)
                break
            await asyncio.sleep(0.2)
        async for current in member.rounds(patience=300):
            with contextlib.suppress(ServiceError):  # the round went on without it, or it is sent again later
                update = delta(name, current.number, size)
                sent = await member.submit_gradient(update, round=current, metadata={"num_examples": EXAMPLES})
                ledger.note(current.number, name, sent.payload_sha256)


async def series(coordinator: Coordinator, kills: int, rng: random.Random, ledger: Ledger, size: int) -> list[float]:
    """Kill it that often; return the seconds that each start took."""
    invitation = await asyncio.to_thread(coordinator.invite, CLIENTS)
    tasks = [
        asyncio.create_task(
            client(coordinator, f"client-{i}", invitation, coordinator.folder / f"client-{i}", ledger, size)
        )
        for i in range(CLIENTS)
    ]
    starts = []
    try:
        for number in range(1, kills + 1):
            await asyncio.sleep(rng.uniform(0.05, LONGEST))
            await asyncio.to_thread(coordinator.kill)
            began = time.monotonic()
            await asyncio.to_thread(coordinator.start)
            starts.append(time.monotonic() - began)
            if failed := next((task for task in tasks if task.done()), None):
                raise RuntimeError(f"a client ended: {failed}") from failed.exception()
            if number % 10 == 0:
                print(f"{number}/{kills} kills, {len(ledger.acknowledged)} updates acknowledged", file=sys.stderr)
        await asyncio.sleep(2 * LONGEST)  # one more stretch without a kill
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return starts


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A server of its own on a free port; its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    if not found[-1].is_file():
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql, or use --databases sqlite")
    tools, data, port = found[-1].parent, folder / "postgresql", free_port()
    as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    data.mkdir()
    if as_owner:
        shutil.chown(data, "postgres", "postgres")
        folder.chmod(0o755)

    def tool(name: str, *options: str) -> None:
        command = [*as_owner, str(tools / name), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=data)

    tool("initdb", "-D", str(data / "db"), "-U", "matl", "-A", "trust")
    server = ("-D", str(data / "db"))
    tool("pg_ctl", *server, "-w", "-l", str(data / "log"), "-o", f"-p {port} -h 127.0.0.1 -k {data}", "start")
    try:
        tool("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "matl", "matl")
        yield f"postgresql://matl@127.0.0.1:{port}/matl"
    finally:
        tool("pg_ctl", *server, "-m", "immediate", "stop")


def run(database: str, kills: int, seed: int) -> dict[str, Any]:
    """One series as a row."""
    settings = run_settings(clients=CLIENTS, hidden=16, rounds=1_000_000, target=CLIENTS, quorum=5, deadline=4.0)
    size, ledger = 16 * 64 + 16 + 16 * 10 + 10, Ledger()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="matl-crash-")))
        url = stack.enter_context(postgresql(folder)) if database == "postgresql" else None
        coordinator = Coordinator(folder / "coordinator", {RUN: settings}, database=url)
        coordinator.start()
        try:
            starts = asyncio.run(series(coordinator, kills, random.Random(seed), ledger, size))
        finally:
            coordinator.stop()
        found: Check = check(coordinator.store_url, settings, ledger)
    return {
        "database": database,
        "kills": kills,
        "rounds": found.rounds,
        "committed": found.committed,
        "failed": found.failed,
        "acknowledged": found.acknowledged,
        "counted": found.counted,
        "median_start_seconds": round(sorted(starts)[len(starts) // 2], 2),
        "problems": found.problems,
    }


def main() -> None:
    """Run the series, and write what they came to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200, help="in all, shared out over the databases")
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--seed", type=int, default=1, help="of the times at which it is killed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crash")
    parser.add_argument("--json", action="store_true", help="print the rows, and write nothing")
    options = parser.parse_args()
    logging.getLogger("matl.client").setLevel(logging.ERROR)  # that nobody can be reached is what this is about
    began = time.perf_counter()
    share = options.kills // len(options.databases)
    rows = [run(database, share, options.seed + number) for number, database in enumerate(options.databases)]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        head = ["database", "kills", "rounds", "of them failed", "acknowledged", "counted", "start, median", "problems"]
        lines = [
            [
                row["database"], str(row["kills"]), str(row["rounds"]), str(row["failed"]), str(row["acknowledged"]),
                str(row["counted"]), f"{row['median_start_seconds']} s", str(len(row["problems"])),
            ]
            for row in rows
        ]  # fmt: skip
        remarks = (
            f"{CLIENTS} clients of the SDK; a kill every {LONGEST / 2:g} s on average, at random. Problems: "
            "acknowledged updates that are missing or differ, rounds whose model is not that of the updates they "
            "counted, replayed from the clients' own ledger. More can be counted than "
            "acknowledged: the answer may die with the process."
        )
        print(write(options.out, markdown(head, lines), remarks, rows, time.perf_counter() - began))
    if problems := [problem for row in rows for problem in row["problems"]]:
        sys.exit("\n".join(problems[:20]))


if __name__ == "__main__":
    main()
