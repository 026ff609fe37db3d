"""Run a command and measure it from outside: wall time, and the memory of all its processes together."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Measured", "measure"]

_INTERVAL = 0.1  # seconds between two looks, and
_SHARE = 0.02  # of a core at most: looking must not slow down what is measured


@dataclass(frozen=True)
class Measured:
    """What a command wrote, how long it ran, and the most memory its processes held at once."""

    output: str
    seconds: float
    peak_mib: float


def measure(command: Sequence[str], *, env: Mapping[str, str], timeout: float) -> Measured:
    """Run a command to its end.

    Memory is the proportional set size, in which a page that k processes share counts 1/k for each of them, summed over
    the command and everything it started.

    Raises
    ------
    RuntimeError
        The command failed or took longer than ``timeout`` seconds; the message holds the end of what it wrote.
    """
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as written:  # not a pipe, which would fill up while nobody reads
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None and time.perf_counter() - started < timeout:
                looked = time.perf_counter()
                peak = max(peak, sum(_memory(pid) for pid in _tree(process.pid)))
                _wait(process, max(_INTERVAL, (time.perf_counter() - looked) / _SHARE))
            seconds = time.perf_counter() - started
        finally:
            _end(process)
        written.seek(0)
        output = written.read()
    if process.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)}: exit status {process.returncode} after {seconds:.0f} of {timeout:.0f} s allowed\n"
            f"{output[-3000:]}"
        )
    return Measured(output, seconds, peak / 2**20)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that is still running, with its process group; one that has ended cleans up after itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _read(entry / "stat")
            if stat:
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _memory(pid: int) -> int:
    """Proportional set size in bytes; 0 once the process has ended."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
