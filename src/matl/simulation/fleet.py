"""The clients of a simulation at work: in this process, or spread over worker processes.

A client's update depends on its own data and random stream alone, so it is the same bits wherever it is computed.
Workers read the samples and write the updates through files mapped into memory, and every worker computes on one
thread.
"""

from __future__ import annotations

import fcntl
import math
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from matl.attacks import Attack
from matl.errors import InvalidValueError, StorageError, WorkerLostError
from matl.files import storage_error
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.tasks import Task
from matl.params import Float32
from matl.simulation.randomness import stream
from matl.simulation.workers import ONE_THREAD, begin_worker, require_loky

__all__ = ["Fleet", "Trainer", "open_fleet", "read_only"]

# Clients handed to a worker at a time, at most: few enough that the workers finish together.
_PORTION = 8
# How often the workers are started again within one round before the run is given up.
_RESTARTS = 1


class Fleet(Protocol):
    """Whatever trains the clients of a round."""

    def train(self, indices: Sequence[int], number: int, params: Float32, shift: Float32 | None = None) -> Float32:
        """Updates (m, d) of the clients at ``indices`` in round ``number``, writable until the next call.

        Parameters
        ----------
        indices : sequence of m int
            Who takes part.
        number : int
            The round.
        params : float32 array of shape (d,)
            Where they start.
        shift : float32 array of shape (m, d), optional
            What each adds to its gradients.
        """


@dataclass(frozen=True)
class Trainer:
    """Trains clients in this process.

    Parameters
    ----------
    clients : sequence of Dataset
        What each client holds.
    malicious : frozenset of int
        Clients whose data the attack may poison.
    task : Task
        The model.
    recipe : LocalTraining
        What clients do.
    attack : Attack or None
        What malicious clients do to their data.
    seed : int
        Source of all randomness.
    """

    clients: Sequence[Dataset]
    malicious: frozenset[int]
    task: Task
    recipe: LocalTraining
    attack: Attack | None
    seed: int

    def train(self, indices: Sequence[int], number: int, params: Float32, shift: Float32 | None = None) -> Float32:
        """See `Fleet.train`."""
        acting = self.attack.at(number) if self.attack is not None else None
        data = [self._dataset(index, acting if index in self.malicious else None) for index in indices]
        rngs = [stream(self.seed, "client", number, index) for index in indices]
        return train_locally(self.task, params, data, self.recipe, rngs, shift=shift)

    def _dataset(self, index: int, acting: Attack | None) -> Dataset:
        clean = self.clients[index]
        if acting is None:
            return clean
        rng = stream(self.seed, "poison", index)  # the same poison every round
        X, y = acting.poison(read_only(clean.X), read_only(clean.y), clean.num_classes, rng)
        return replace(clean, X=X, y=y)


def read_only(array: Any) -> Any:
    """A view that an attack cannot write through: the data stay clean for all that comes after it."""
    view = array.view()
    view.flags.writeable = False
    return view


@contextmanager
def open_fleet(trainer: Trainer, workers: int, lost: Callable[[str], None]) -> Iterator[Fleet]:
    """The clients of a trainer, in this process for one worker, and in as many processes as asked for otherwise.

    Parameters
    ----------
    trainer : Trainer
        Who trains what.
    workers : int
        Number of worker processes; with one, this process does the work.
    lost : callable
        Told in words when workers were lost and started again.

    Raises
    ------
    MissingExtraError
        More than one worker is asked for, and loky is not installed.
    InvalidValueError
        The task or the attack cannot be sent to another process.
    StorageError
        There is no room for what the workers share.
    """
    if workers == 1:
        yield trainer
        return
    require_loky()  # a missing extra is told before anything is written
    d, clients = trainer.task.layout.size, trainer.clients
    samples, width = sum(len(client) for client in clients), clients[0].X.shape[1]
    with _scratch(4 * (samples * (width + 2) + (2 * len(clients) + 1) * d)) as folder:
        fleet = _WorkerFleet(trainer, workers, lost, folder)
        try:
            yield fleet
        finally:
            fleet.close()


class _WorkerFleet:
    """Trains clients in worker processes, which share files in a folder with this one; implements `Fleet`."""

    def __init__(self, trainer: Trainer, workers: int, lost: Callable[[str], None], folder: Path) -> None:
        self._workers, self._lost, self._folder = workers, lost, folder
        self._clients, self._d = len(trainer.clients), trainer.task.layout.size
        self._job = _packed(trainer)
        with _file(folder / "X") as X, _file(folder / "y") as y:
            for client in trainer.clients:
                X.write(np.ascontiguousarray(client.X, np.float32).data)
                y.write(np.ascontiguousarray(client.y, np.int64).data)
        self._params = self._shared("params", 1)
        self._updates = self._shared("updates", self._clients)
        self._pool = self._start()

    @cached_property
    def _shift(self) -> Float32:
        """Made when a stateful algorithm first needs it."""
        return self._shared("shift", self._clients)

    def train(self, indices: Sequence[int], number: int, params: Float32, shift: Float32 | None = None) -> Float32:
        """See `Fleet.train`."""
        from loky.process_executor import BrokenProcessPool, TerminatedWorkerError

        self._params[:] = params
        if shift is not None:
            self._shift[: len(indices)] = shift
        for attempt in range(_RESTARTS + 1):
            try:
                self._run(indices, number, shifted=shift is not None)
                break
            except TerminatedWorkerError as error:  # also of a worker that the system killed
                self._pool.shutdown(kill_workers=True)
                reason = str(error).strip().split("\n", 1)[0].rstrip(".")
                if attempt == _RESTARTS:
                    raise WorkerLostError(
                        f"workers were lost twice in round {number}: {reason}; if the system ran out of memory, use "
                        f"fewer workers than {self._workers}, fewer clients or a smaller model; a run on disk goes on "
                        "with --resume"
                    ) from error
                self._lost(reason)
                self._pool = self._start()
            except BrokenProcessPool as error:
                raise WorkerLostError(
                    f"an error in round {number} cannot be told from one process to another; use one worker to see it"
                ) from error
        return self._updates[: len(indices)]

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(kill_workers=True)

    def _run(self, indices: Sequence[int], number: int, *, shifted: bool) -> None:
        size = min(_PORTION, math.ceil(len(indices) / self._workers))
        portions = [slice(start, start + size) for start in range(0, len(indices), size)]
        futures = [self._pool.submit(_train, list(indices[at]), number, at.start, shifted) for at in portions]
        for future in futures:
            future.result()

    def _start(self) -> Any:
        return require_loky().ProcessPoolExecutor(
            max_workers=min(self._workers, self._clients),
            initializer=_start_worker,
            initargs=(os.getpid(), self._job, str(self._folder)),
            env=ONE_THREAD,
        )

    def _shared(self, name: str, rows: int) -> Float32:
        """A new array (rows, d) of zeros that workers can map."""
        with _file(self._folder / name) as stream:
            for _ in range(rows):
                stream.write(bytes(4 * self._d))
        shared: Float32 = _mapped(self._folder / name, np.float32, (rows, self._d), "r+")
        return shared


def _packed(trainer: Trainer) -> bytes:
    """A trainer without its samples, and what else each client's data set says, for workers to start from."""
    import cloudpickle

    holdings, start = [], 0
    for client in trainer.clients:
        kept = {item.name: getattr(client, item.name) for item in fields(client) if item.name not in _PER_SAMPLE}
        holdings.append((kept, slice(start, start + len(client))))
        start += len(client)
    try:
        # Not plain pickle: a task or an attack may be defined in the user's script or notebook.
        packed: bytes = cloudpickle.dumps((replace(trainer, clients=()), holdings, trainer.clients[0].X.shape[1]))
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise InvalidValueError(
            f"the task or the attack cannot be sent to worker processes: {error}; leave out what belongs to one "
            "process, such as open files and locks, or use one worker"
        ) from error
    return packed


_PER_SAMPLE = ("X", "y", "groups")


@dataclass(frozen=True)
class _Worker:
    """What a worker process holds between calls."""

    trainer: Trainer
    params: Float32
    updates: Float32
    folder: Path


_given: tuple[bytes, str] = (b"", "")


def _start_worker(parent: int, job: bytes, folder: str) -> None:
    """Prepare a worker process, which ends with its parent."""
    from loky import process_executor

    global _given
    begin_worker(parent)
    threadpool_limits(1)
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf  # loky takes the samples that a worker has mapped for a leak
    _given = job, folder


@cache
def _worker() -> _Worker:
    """Rebuild the trainer over the shared files: at the first call, whose errors reach the parent as they are."""
    job, folder = _given[0], Path(_given[1])
    trainer, holdings, width = pickle.loads(job)  # noqa: S301 - our own parent's bytes, never a file or a message
    d, samples = trainer.task.layout.size, holdings[-1][1].stop
    X = _mapped(folder / "X", np.float32, (samples, width))
    y = _mapped(folder / "y", np.int64, (samples,))
    return _Worker(
        trainer=replace(trainer, clients=tuple(Dataset(X=X[rows], y=y[rows], **kept) for kept, rows in holdings)),
        params=_mapped(folder / "params", np.float32, (d,)),
        updates=_mapped(folder / "updates", np.float32, (len(holdings), d), "r+"),
        folder=folder,
    )


def _train(indices: list[int], number: int, start: int, shifted: bool) -> None:
    """In a worker: train some clients and write their updates where the parent reads them."""
    worker = _worker()
    rows = slice(start, start + len(indices))
    shift = _mapped(worker.folder / "shift", np.float32, worker.updates.shape)[rows] if shifted else None
    worker.updates[rows] = worker.trainer.train(indices, number, worker.params, shift)


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...], mode: Literal["r", "r+"] = "r") -> Any:
    return np.asarray(np.memmap(path, dtype, mode, shape=shape))


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """A new file for something to be written out whole: mapping a file with holes ends the process on a full disk."""
    try:
        with path.open("wb") as stream:
            yield stream
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def _scratch(size: int) -> Iterator[Path]:
    """A folder with room for that many bytes, in memory if there is a file system in memory that has it."""
    folder = Path(tempfile.mkdtemp(prefix="matl-", dir=_roomy(size)))
    try:
        with _file(folder / "new") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)  # until this process ends, however it ends
            (folder / "new").rename(folder / "owner")  # locked, it may be seen by other runs
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bases() -> tuple[Path, ...]:
    return Path("/dev/shm"), Path(tempfile.gettempdir())  # noqa: S108 - the folder made there is private


def _roomy(size: int) -> Path:
    bases = _bases()
    for base in bases:
        if base.is_dir() and os.access(base, os.W_OK):
            _remove_abandoned(base)
            if shutil.disk_usage(base).free > 1.1 * size:
                return base
    raise StorageError(
        f"workers share {size / 2**20:.0f} MiB through files, and neither {' nor '.join(map(str, bases))} has "
        "that much room; free some, name another folder in TMPDIR, or use one worker"
    )


def _remove_abandoned(base: Path) -> None:
    """Remove what runs that were killed left behind."""
    for owner in base.glob("matl-*/owner"):
        # Another user's, locked by a run that lives, or removed by another run meanwhile.
        with suppress(OSError), owner.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)
