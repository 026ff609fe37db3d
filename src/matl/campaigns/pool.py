"""Worker processes for the cells of a sweep or a matrix: each on one thread, and none missed when it dies."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from matl.campaigns.parts import OwnPart, own_parts, register_parts
from matl.errors import RunInterrupted
from matl.simulation.workers import ONE_THREAD, begin_worker, require_loky

__all__ = ["run_in_processes"]

J = TypeVar("J")
R = TypeVar("R")
Stop = Callable[[], bool]

_POLL = 0.1  # seconds between looks at whether to stop
_KILLED = "its worker process was killed, and killed again when it ran alone; most likely it needs more memory"


def run_in_processes(
    jobs: Sequence[J], run: Callable[[J, Stop], R], *, processes: int, stop: Stop, killed: Callable[[str], R]
) -> Iterator[tuple[J, R]]:
    """Run jobs in processes of their own and yield each, with what came of it, as it comes to its end.

    When a process dies there is no telling whose fault it was, so the jobs that were running are put off and run again
    at the end, one at a time; one whose process dies then too has failed.

    Parameters
    ----------
    jobs : sequence
        Plain data that says what to do.
    run : callable
        A function of a module, which is given a job and a function to ask whether to stop.
    processes : int
        How many jobs run at once.
    stop : callable
        Whether to stop: no job is begun any more, and those that run are asked to.
    killed : callable
        What came of a job whose process died, given the reason in words.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    MissingExtraError
        Loky is not installed.
    """
    waiting, suspects = deque(jobs), deque[J]()
    while waiting:
        suspects.extend((yield from _until_one_dies(waiting, run, processes, stop)))
    while suspects:
        for job in (yield from _until_one_dies(suspects, run, 1, stop)):
            yield job, killed(_KILLED)


def _until_one_dies(
    jobs: deque[J], run: Callable[[J, Stop], R], processes: int, stop: Stop
) -> Generator[tuple[J, R], None, list[J]]:
    """Run jobs until none is left or a process dies; returns the jobs that were running then."""
    loky = require_loky()
    asked = loky.backend.get_context("loky").Event()
    pool = loky.ProcessPoolExecutor(
        max_workers=min(processes, len(jobs)),
        timeout=None,
        initializer=_begin,
        initargs=(asked, os.getpid(), own_parts()),
        env=ONE_THREAD,
    )
    running: dict[Future[R | None], J] = {}
    try:
        while jobs or running:
            if stop():
                asked.set()
            while jobs and len(running) < processes and not asked.is_set():
                future = pool.submit(_run, run, jobs[0])  # which raises if the pool is broken already
                running[future] = jobs.popleft()
            for future in wait(running, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                job = running.pop(future)
                if outcome is not None:
                    yield job, outcome
            if asked.is_set() and not running:
                raise RunInterrupted("stopped")
    except loky.BrokenProcessPool:
        return list(running.values())
    finally:
        pool.shutdown(wait=True, kill_workers=bool(running))
    return []


_asked: Any = None


def _begin(asked: Any, parent: int, parts: list[OwnPart]) -> None:
    """Prepare a worker: it knows the parts that its parent knows, which says when to stop."""
    global _asked
    begin_worker(parent)
    register_parts(parts)
    _asked = asked


def _stop() -> bool:
    return bool(_asked.is_set())


def _run(run: Callable[[J, Stop], R], job: J) -> R | None:
    """In a worker: run a job; nothing comes back if it was stopped."""
    try:
        return run(job, _stop)
    except RunInterrupted:
        return None
