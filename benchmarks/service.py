"""Rounds per second of a coordinator with clients in processes of their own, beside a Flower SuperLink with SuperNodes.

::

    make bench-service      # installs Flower in .venv-flower; writes benchmarks/results/service.{json,md}

Both systems run as they are deployed: a server process, a process per client, everything on the loopback interface of
one machine, without TLS, state of the server as it is by default (ours on a disk, Flower's in memory). Clients do not
train; what they send is the model and a number that depends on client and round, so that nothing but the system is
measured. Ours also signs and checks every update, and writes it down before it is acknowledged. The systems take turns,
and have to end with the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from network_case import QUIET, RUN, Coordinator, free_port, run_settings

HERE = Path(__file__).parent
WARM_UP = 2
"""Rounds that are not counted: processes start, and caches fill."""
PATIENCE = 900.0
HIDDEN = 1333
SIZE = HIDDEN * 75 + 10


def ours(clients: int, rounds: int, folder: Path) -> dict[str, Any]:
    """The ends of all rounds, and how the model changed in all."""
    settings = run_settings(clients=clients, hidden=HIDDEN, rounds=rounds, target=clients, deadline=PATIENCE)
    coordinator = Coordinator(folder / "coordinator", {RUN: settings})
    coordinator.start()
    try:
        invitation = coordinator.invite(clients)
        members = [
            subprocess.Popen(
                [sys.executable, str(HERE / "service_client.py"), coordinator.url, invitation, str(index), str(folder)],
                env={**os.environ, **QUIET},
            )
            for index in range(clients)
        ]
        with stopped(members):
            for each in members:
                each.wait(PATIENCE)
        said = json.loads((folder / "ours.json").read_text())
    finally:
        coordinator.stop()
    return {"ends": said["ends"], "change": np.load(folder / "ours.npy")}


def flower(clients: int, rounds: int, folder: Path, tools: Path) -> dict[str, Any]:
    """The same in Flower."""
    home, app, out = folder / "home", folder / "app", folder / "flower.json"
    home.mkdir()
    shutil.copytree(HERE / "flower" / "deployment", app)
    port = free_port()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    log = (folder / "flower.log").open("wb")

    def begin(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    listening = ["--insecure", "--host", "127.0.0.1", "--port"]
    processes = [begin("flower-superlink", *listening, str(port), "--disable-runtime-dependency-installation")]
    with log, stopped(processes):
        time.sleep(5)
        for index in range(clients):
            own = ["--superlink", f"127.0.0.1:{port}", "--node-config", f"partition-id={index}"]
            processes.append(begin("flower-supernode", *listening, str(free_port()), *own))
        given = f"clients={clients} rounds={rounds} size={SIZE} out='{out}'"
        command = ["flwr", "run", str(app), "bench", "--run-config", given]
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + PATIENCE
        while not out.exists() or not out.read_text():
            if time.monotonic() > deadline:
                raise RuntimeError((folder / "flower.log").read_text()[-2000:])
            time.sleep(0.2)
        time.sleep(0.5)
    return {"ends": json.loads(out.read_text())[1:], "change": np.load(out.with_suffix(".npy"))}


@contextmanager
def stopped(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End all of them, and what they started, when the block ends."""
    try:
        yield
    finally:
        for each in processes:
            if each.poll() is None:
                target = os.getpgid(each.pid)
                os.killpg(target, signal.SIGKILL) if target == each.pid else each.kill()
        for each in processes:
            each.wait()


def main() -> None:
    """Run both in turns, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--flower", type=Path, required=True, help="folder with Flower's commands")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "service")
    options = parser.parse_args()
    tools, began = options.flower.absolute(), time.perf_counter()
    rows: list[dict[str, Any]] = []
    for repeat in range(options.repeats):
        changes = {}
        for system in ("MATL", "Flower"):
            with tempfile.TemporaryDirectory(prefix="matl-service-") as name:
                run = ours if system == "MATL" else flower
                extra = () if system == "MATL" else (tools,)
                found = run(options.clients, options.rounds, Path(name), *extra)
            seconds = np.diff(found["ends"])[WARM_UP - 1 :].tolist()
            changes[system] = found["change"]
            rows.append({"system": system, "repeat": repeat, "round_seconds": seconds})
            median = statistics.median(seconds)
            print(f"{system}, {repeat + 1} of {options.repeats}: {median:.3f} s a round", file=sys.stderr)
        if (apart := float(np.abs(changes["MATL"] - changes["Flower"]).max())) > 1e-3:
            sys.exit(f"the systems came to different models: {apart:g} apart")
    medians = {
        system: [statistics.median(row["round_seconds"]) for row in rows if row["system"] == system]
        for system in ("MATL", "Flower")
    }
    ratios = [flower_s / ours_s for ours_s, flower_s in zip(medians["MATL"], medians["Flower"], strict=True)]
    head = ["system", "rounds per second", "seconds a round, median", "times as fast"]
    faster = {"MATL": f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})", "Flower": "1"}
    lines = [
        [system, f"{1 / statistics.median(values):.2f}", f"{statistics.median(values):.3f}", faster[system]]
        for system, values in medians.items()
    ]
    remarks = (
        f"{options.clients} clients, each a process, {SIZE:,} parameters, {options.rounds} rounds of which {WARM_UP} "
        f"are not counted, {options.repeats} turns each; the same models to rounding. Flower starts a process for "
        "every task of a client, which is most of its round; clients that train for long feel less of the difference."
    )
    print(write(options.out, markdown(head, lines), remarks, rows, time.perf_counter() - began))


if __name__ == "__main__":
    main()
