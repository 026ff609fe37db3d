"""Worker processes: how they are started, and that they end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from matl.errors import MissingExtraError

__all__ = ["ONE_THREAD", "begin_worker", "require_loky"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a worker, set before any library starts its threads: one, whatever it computes with."""

_LOOK = 0.2  # seconds between looks at whether the parent is alive


def require_loky() -> Any:
    """The library that starts the processes.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import loky
        import loky.backend
    except ImportError as error:
        raise MissingExtraError("loky", extra="sim") from error
    return loky


def begin_worker(parent: int) -> None:
    """Prepare a worker process of ``parent``, a process id.

    Ctrl-C, which a terminal sends to the whole group, is for the parent to answer. A parent that is killed cannot end
    its workers; they notice and end themselves, like it at once: what is on disk is whole at any moment.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
