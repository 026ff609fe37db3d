"""Runs every cell of an experiment, in this process or in several, so that it can be stopped and gone on with."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matl import validate
from matl.campaigns import results
from matl.campaigns.compare import run_with_ceiling
from matl.campaigns.experiment import Cell, Experiment, read_experiment
from matl.campaigns.parts import PART_ERRORS
from matl.campaigns.pool import run_in_processes
from matl.campaigns.trackers import open_stores, require_trackers, track
from matl.errors import MatlError, RunInterrupted, StateError, StorageError
from matl.files import make_directory, write_atomic
from matl.simulation import RunDirectory, load_config
from matl.simulation.directory import open_new, refuse_other_kind
from matl.simulation.result import SCHEMA_VERSION, provenance
from matl.simulation.workers import require_loky

__all__ = ["Job", "Outcome", "SweepResult", "resume_sweep", "run_job", "sweep"]

_FILES = ("sweep.toml", "sweep.yaml")
_LOCK_POLL = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one cell.

    Parameters
    ----------
    name : str
        The cell.
    row : mapping
        Its row of ``results.csv``.
    earlier : bool
        Whether it was finished before this process began.
    """

    name: str
    row: dict[str, Any]
    earlier: bool = False

    @property
    def failure(self) -> str:
        """Why it has no result; empty if it has one."""
        return str(self.row["failure"])


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process needs to know to run a cell; plain data, so that it can be sent to one."""

    name: str
    config: dict[str, Any]
    directory: str
    ceiling: bool
    trackers: tuple[str, ...]
    store: str


@dataclass(frozen=True)
class SweepResult:
    """The rows of a finished sweep, in canonical order."""

    experiment: Experiment
    rows: list[dict[str, Any]]

    @property
    def failures(self) -> dict[str, str]:
        """Why cells failed, by name."""
        return {row["cell"]: row["failure"] for row in self.rows if row["failure"]}

    def as_dict(self) -> dict[str, Any]:
        """The object of ``sweep.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "sweep",
            "simulation": True,
            "experiment": self.experiment.name,
            "swept": list(self.experiment.swept),
            "seeds": sorted({cell.config.seed for cell in self.experiment.cells}),
            "settings": results.summary(self.experiment, self.rows),
            "cells": self.rows,
            "failed": len(self.failures),
            **provenance(),
        }


def sweep(
    experiment: Experiment,
    *,
    out: Path,
    resume: bool = False,
    jobs: int = 1,
    parquet: bool = False,
    trackers: Sequence[str] = (),
    notify: Callable[[Outcome], None] = lambda outcome: None,
    stop: Callable[[], bool] = lambda: False,
) -> SweepResult:
    """Run every cell of an experiment into its own folder under ``out/cells``, and write ``results.csv``.

    Parameters
    ----------
    experiment : Experiment
        What to run.
    out : Path
        The folder of the sweep.
    resume : bool
        Go on where an interrupted sweep stopped. Finished cells are not run again; failed ones are.
    jobs : int
        Processes, each running one cell at a time on one thread; the results do not depend on it.
    parquet : bool
        Also write ``results.parquet``.
    trackers : sequence of str
        Where rounds are also logged; see `matl.campaigns.trackers`.
    notify : callable
        Told of every cell when it is done.
    stop : callable
        Asked after every round; ``True`` ends the sweep in an orderly way.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    MissingExtraError
        ``jobs``, ``parquet`` or a tracker needs what is not installed; nothing has been run.
    StorageError
        A file cannot be written.
    """
    validate.whole(1, jobs=jobs)
    experiment = replace(experiment, name=out.resolve().name)  # the file's own name is gone when a sweep is resumed
    require_trackers(trackers)
    if parquet:
        results.require_pyarrow()
    if jobs > 1:
        require_loky()
    if not resume:
        open_new(out)
        suffix = "yaml" if experiment.source.suffix in (".yaml", ".yml") else "toml"
        write_atomic(out / f"sweep.{suffix}", experiment.source.read_bytes())
    make_directory(out / "cells")
    open_stores(trackers, out)
    done: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for outcome in _run_all(experiment, out, jobs, tuple(trackers), stop):
        done[outcome.name] = outcome.row
        rows = [done[cell.name] for cell in experiment.cells if cell.name in done]
        results.write_csv(out / "results.csv", results.columns(experiment), rows)
        notify(outcome)
    if parquet:
        results.write_parquet(out / "results.parquet", results.columns(experiment), rows)
    result = SweepResult(experiment, rows)
    write_atomic(out / "sweep.json", json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n")
    return result


def resume_sweep(out: Path) -> Experiment:
    """The experiment of a sweep that was started before.

    Raises
    ------
    StateError
        The folder holds none.
    """
    for name in _FILES:
        if (out / name).is_file():
            return read_experiment(out / name)
    refuse_other_kind(out, _FILES[0])
    raise StateError(f"{out} holds no sweep (no {' or '.join(_FILES)}); start one without --resume")


def run_job(job: Job, stop: Callable[[], bool]) -> str:
    """Run a cell, or go on with it, and return why it failed; nothing if it did not.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    StorageError
        The disk is full: nothing that follows can be written either.
    """
    directory = make_directory(Path(job.directory))
    try:
        config = load_config(None, job.config, source=job.name)
        with _alone_in(directory, stop):
            if RunDirectory(directory).finished:
                return ""
            with track(job.trackers, Path(job.store), config, name=job.name) as sink_for:
                begun = (directory / "config.toml").is_file()
                run_with_ceiling(config, out=directory, ceiling=job.ceiling, resume=begun, sink_for=sink_for, stop=stop)
    except (RunInterrupted, StorageError):
        raise
    except MatlError as error:
        return str(error)
    except PART_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _run_all(
    experiment: Experiment, out: Path, jobs: int, trackers: tuple[str, ...], stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """The outcomes of all cells: at once of those that are finished, then of the others as they come."""
    waiting: dict[str, Cell] = {}
    for cell in experiment.cells:
        if RunDirectory(out / "cells" / cell.name).finished:
            yield _outcome(out, cell, earlier=True)
        else:
            waiting[cell.name] = cell
    todo = [
        Job(name, cell.config.model_dump(), str(out / "cells" / name), experiment.ceiling, trackers, str(out))
        for name, cell in waiting.items()
    ]
    ends = (
        _run_here(todo, stop) if jobs == 1 else run_in_processes(todo, run_job, processes=jobs, stop=stop, killed=str)
    )
    try:
        for job, failure in ends:
            yield _outcome(out, waiting.pop(job.name), failure)
    except RunInterrupted as error:
        total = len(experiment.cells)
        raise RunInterrupted(
            f"stopped with {total - len(waiting)} of {total} cells done", directory=str(out)
        ) from error


def _run_here(jobs: Sequence[Job], stop: Callable[[], bool]) -> Iterator[tuple[Job, str]]:
    for job in jobs:
        yield job, run_job(job, stop)


def _outcome(out: Path, cell: Cell, failure: str = "", *, earlier: bool = False) -> Outcome:
    result = {} if failure else RunDirectory(out / "cells" / cell.name).read_result()
    return Outcome(cell.name, results.row(cell, result, " ".join(failure.split())), earlier)


@contextmanager
def _alone_in(directory: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other process runs this cell: a sweep that was killed leaves some that are about to end."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop():
                    raise RunInterrupted(f"stopped while another process was running {directory}") from None
                time.sleep(_LOCK_POLL)
        yield
    finally:
        os.close(handle)  # which gives the lock back
