"""Runs the cells of a matrix in one process or in several that stay alive, and goes on where it was stopped.

Cells are short and many. They keep no folder of their own and no checkpoint: a cell that is stopped is begun anew, and
what a finished one says is a line of the journal. Cells that share a federation follow one another, so that each
process deals it out once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from matl import validate
from matl.campaigns.compare import CEILING
from matl.campaigns.experiment import Cell
from matl.campaigns.matrix.design import FILE, Matrix
from matl.campaigns.matrix.journal import Journal
from matl.campaigns.parts import PART_ERRORS
from matl.campaigns.pool import run_in_processes
from matl.campaigns.sweep import Outcome
from matl.errors import BoundError, MatlError, RunInterrupted, StateError, StorageError
from matl.files import write_atomic
from matl.learning.datasets import Source, load_dataset
from matl.learning.partition import FederatedData
from matl.simulation import RunConfig, RunResult, build_simulation, execute, honest_only
from matl.simulation.build import deal
from matl.simulation.directory import open_new
from matl.simulation.result import provenance
from matl.simulation.workers import require_loky

__all__ = ["Job", "run_cell", "run_matrix"]

_MEASURES = (
    *("accuracy", "worst_class_accuracy", "minority_accuracy", "attack_success_rate", "tpr", "fpr", "lost_weight"),
    *("zero_weight_tpr", "zero_weight_fpr", "clients", "malicious", "gives_verdicts", "outside_bound"),
    *("failed_rounds", "last_failure", "model_hash"),
)
"""What a row takes over from ``result.json``; what it says of detection stands beside them."""

_DEALING = ("dataset", "clients", "alpha", "partition", "root_size", "seed")
"""Settings that say who holds what."""


@dataclass(frozen=True, slots=True)
class Job:
    """A cell as plain data, so that it can be sent to a process."""

    name: str
    config: dict[str, Any]
    ceiling: bool


def run_matrix(
    matrix: Matrix,
    *,
    out: Path,
    resume: bool = False,
    jobs: int = 1,
    notify: Callable[[Outcome], None] = lambda outcome: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Run every cell of a matrix and return their rows in canonical order.

    Parameters
    ----------
    matrix : Matrix
        What to run.
    out : Path
        The folder; its journal ``cells.jsonl`` grows by a line with every cell.
    resume : bool
        Go on where an interrupted matrix stopped. Finished cells are not run again; failed ones are.
    jobs : int
        Processes, each running one cell at a time on one thread; the results do not depend on it.
    notify : callable
        Told of every cell when it is done.
    stop : callable
        Asked after every round; ``True`` ends the matrix in an orderly way.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    StateError
        The folder holds results of other cells, or of a rule with other constants.
    MissingExtraError
        ``jobs`` needs what is not installed; nothing has been run.
    StorageError
        A file cannot be written.
    """
    validate.whole(1, jobs=jobs)
    if jobs > 1:
        require_loky()
    cells = {cell.name: cell for cell in matrix.cells}
    if not resume:
        open_new(out)
        write_atomic(out / FILE, matrix.to_toml())
    with Journal(out) as journal:
        judges = matrix.judges
        done = _finished(journal, cells, judges)
        for name, row in done.items():
            notify(Outcome(name, row, earlier=True))
        started, sitting = time.perf_counter(), 1 + max((row["sitting"] for row in journal.rows), default=0)
        commit = _commit()  # of what is loaded now, not of what the checkout has when a cell ends
        todo = [_job(cell) for cell in _in_order_of_data(cells.values()) if cell.name not in done]
        ends = (
            _run_here(todo, stop)
            if jobs == 1
            else run_in_processes(todo, run_cell, processes=jobs, stop=stop, killed=_failed)
        )
        try:
            for job, figures in ends:
                cell = cells[job.name]
                row = {
                    **_identity(cell),
                    **figures,
                    "judge": judges.get(cell.settings["rule"], ""),
                    "commit": commit,
                    "sitting": sitting,
                    "elapsed": round(time.perf_counter() - started, 3),
                }
                journal.append(row)
                done[job.name] = row
                notify(Outcome(job.name, row))
        except RunInterrupted as error:
            raise RunInterrupted(f"stopped with {len(done)} of {len(cells)} cells done", directory=str(out)) from error
    return [done[name] for name in cells]


def run_cell(job: Job, stop: Callable[[], bool]) -> dict[str, Any]:
    """Run a cell and return its figures, or why there are none.

    Raises
    ------
    RunInterrupted
        ``stop`` said so.
    """
    started = time.perf_counter()
    try:
        config = RunConfig.model_validate(job.config)
        simulation = build_simulation(config, data=_dealt(config))
        simulation = honest_only(simulation) if job.ceiling else simulation
        result = execute(simulation, config, name=config.label, stop=stop)
    except (RunInterrupted, StorageError):
        raise
    except BoundError as error:
        return {"not_applicable": " ".join(str(error).split()), "failure": ""}
    except MatlError as error:
        return _failed(str(error))
    except PART_ERRORS as error:
        return _failed(f"{type(error).__name__}: {error}")
    return {**_figures(result), "not_applicable": "", "failure": "", "seconds": round(time.perf_counter() - started, 3)}


def _figures(result: RunResult) -> dict[str, Any]:
    told = result.as_dict()
    detection = told["detection"] or {}
    curve = [round(row["accuracy"], 6) for row in result.history]
    return {**{key: told[key] for key in _MEASURES}, **detection, "curve": curve}


def _failed(reason: str) -> dict[str, Any]:
    return {"not_applicable": "", "failure": " ".join(reason.split())}


def _identity(cell: Cell) -> dict[str, Any]:
    return {"cell": cell.name, **cell.settings, "seed": cell.config.seed}


def _job(cell: Cell) -> Job:
    return Job(cell.name, cell.config.model_dump(), cell.settings["rule"] == CEILING)


def _in_order_of_data(cells: Any) -> list[Cell]:
    return sorted(cells, key=lambda cell: (cell.config.seed, cell.config.alpha))  # which keeps the order of the rest


def _run_here(jobs: Sequence[Job], stop: Callable[[], bool]) -> Iterator[tuple[Job, dict[str, Any]]]:
    for job in jobs:
        yield job, run_cell(job, stop)


def _finished(journal: Journal, cells: dict[str, Cell], judges: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The rows that need not be run again, by cell.

    Rows of cells that are not part of the matrix, or that were judged by other constants, would be taken for what they
    are not: a folder that has some is refused.
    """
    done = {}
    for row in journal.rows:
        cell = cells.get(row["cell"])
        if cell is None:
            raise StateError(
                f"{journal.path} holds {row['cell']}, which is no cell of this matrix: {FILE} or the version of MATL "
                "was changed after it had started; change it back, or start the matrix anew in another folder"
            )
        rule = cell.settings["rule"]
        if row["judge"] != judges.get(rule, ""):
            raise StateError(
                f"{journal.path} holds results of {rule} with other constants than it has now; a table must not mix "
                "them: start the matrix anew in another folder"
            )
        if not row["failure"]:
            done[cell.name] = row
    return done


def _commit() -> str:
    """The commit that runs, with an asterisk unless its files are known to be unchanged; empty without one."""
    origin = provenance()
    return f"{origin['commit'][:12]}{'' if origin['dirty'] is False else '*'}" if origin["commit"] else ""


def _dealt(config: RunConfig) -> FederatedData:
    """The federation of a configuration; the last one is kept, as the cells that share it follow one another."""
    return _dealt_anew(config.model_copy(update=_NEUTRAL).model_dump_json())


_NEUTRAL = {key: field.default for key, field in RunConfig.model_fields.items() if key not in _DEALING}
"""Whatever else a configuration says makes no other federation."""


@lru_cache(maxsize=1)
def _dealt_anew(text: str) -> FederatedData:
    config = RunConfig.model_validate_json(text)
    return deal(_source(json.dumps(config.dataset)), config)


@lru_cache(maxsize=1)
def _source(spec: str) -> Source:
    return load_dataset(json.loads(spec))
