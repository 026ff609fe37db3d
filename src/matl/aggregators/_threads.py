"""Threads of the kernels: as many as BLAS may use, and never a result that depends on how many."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

__all__ = ["run", "stripes"]

T = TypeVar("T")

_NARROWEST = 16384  # columns per task: below, handing work over costs more than the work
_SMALL = 2**22  # numbers that are read before a second thread has started
_TASKS = 64  # at most: enough to balance the load of many cores

_lock = threading.Lock()
_inside = 0  # regions that hold BLAS to one thread
_before: list[int] = []  # what BLAS might use before the first of them


def stripes(d: int, count: int = _TASKS) -> list[tuple[int, int]]:
    """Cut d columns into at most ``count`` runs (start, stop); the cut depends on d alone, never on the machine.

    Examples
    --------
    >>> stripes(20_000)
    [(0, 16384), (16384, 20000)]
    """
    width = _NARROWEST * max(1, -(-d // (_NARROWEST * count)))
    return [(start, min(start + width, d)) for start in range(0, d, width)]


def run(tasks: Sequence[Callable[[], T]], cells: int = _SMALL) -> list[T]:
    """Results of all tasks, in their order, each computed with BLAS on one thread.

    Parameters
    ----------
    tasks : sequence of callables without arguments
        The work.
    cells : int
        How many numbers they read; few are not worth a thread.

    Notes
    -----
    There are as many workers as BLAS may use threads, so ``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS`` and
    ``threadpoolctl.threadpool_limits`` govern both, and a host that runs one process per core is not oversubscribed.
    While the tasks run, BLAS is held to one thread in the whole process. Where no BLAS can be asked, all cores are
    used.
    """
    with _one_blas_thread() as allowed:
        workers = min(allowed, len(tasks)) if cells >= _SMALL else 1
        if workers < 2:
            return [task() for task in tasks]
        with ThreadPoolExecutor(workers, thread_name_prefix="matl-kernel") as pool:
            return list(pool.map(lambda task: task(), tasks))


@contextmanager
def _one_blas_thread() -> Iterator[int]:
    """Hold BLAS to one thread; yields how many it might use before. Regions of several threads may overlap."""
    global _inside, _before
    libraries = _blas()
    with _lock:
        if _inside == 0:
            _before = [library.num_threads for library in libraries]
            _set(libraries, [1] * len(libraries))
        _inside += 1
        allowed = min(_before) if _before else os.cpu_count() or 1
    try:
        yield allowed
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                # Unless somebody else set another limit meanwhile.
                _set(
                    libraries,
                    [
                        was if library.num_threads == 1 else None
                        for library, was in zip(libraries, _before, strict=True)
                    ],
                )


def _set(libraries: list[Any], counts: list[int | None]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        if count is not None:
            library.set_num_threads(count)


def _forget() -> None:
    """A forked child has the parent's threads in name only."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@cache
def _blas() -> list[Any]:
    """NumPy's BLAS and those loaded beside it when the first rule runs."""
    from threadpoolctl import ThreadpoolController  # only who aggregates pays for it

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
