"""A run on disk: configuration, figures, verdicts, checkpoint, model and result.

A run directory is always consistent. Tables are appended to and the checkpoint, written last and atomically, remembers
how long they were; what a crash left behind it is cut off when the run is resumed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from matl.errors import StateError
from matl.files import make_directory, storage_error, write_atomic
from matl.params import ParamLayout
from matl.privacy.ledger import PrivacyLedger
from matl.simulation.config import RunConfig, load_config
from matl.simulation.engine import Charge, Simulation, spend_nothing
from matl.simulation.result import RunResult
from matl.simulation.scoring import RoundRecord, RoundReport
from matl.state import State, pack, unpack
from matl.workloads import Private, TrainingWorkload

__all__ = ["RunDirectory", "open_new", "refuse_other_kind", "resume_command"]

_ROUND_COLUMNS = [item.name for item in fields(RoundRecord)]
_VERDICT_COLUMNS = ["round", "client", "status", "weight", "reason"]
_CHECKPOINT_VERSION = 2


# The file whose presence says what a folder holds; a campaign is a run besides, so its own stands first.
_MARKS = {
    "campaign.toml": ("campaign", "matl campaign"),
    "config.toml": ("run", "matl run"),
    "compare.toml": ("comparison", "matl compare"),
    "sweep.toml": ("sweep", "matl sweep"),
    "sweep.yaml": ("sweep", "matl sweep"),
    "matrix.toml": ("matrix", "matl matrix"),
    "tune.toml": ("search", "matl tune"),
    "tune.yaml": ("search", "matl tune"),
}


def open_new(path: Path) -> None:
    """Create a folder, or take one that holds no run, campaign, comparison, sweep, matrix or search yet.

    Raises
    ------
    StateError
        It holds one.
    StorageError
        It cannot be created.
    """
    make_directory(path)
    for mark, (kind, command) in _MARKS.items():
        if (path / mark).exists():
            raise StateError(
                f"{path} already holds a {kind}; go on with {command} --resume {path}, or choose another --out"
            )


def refuse_other_kind(path: Path, expected: str) -> None:
    """Refuse a folder that holds another kind of work than the one whose mark is ``expected``.

    Raises
    ------
    StateError
        It holds a run where a comparison is expected, or the like.
    """
    if (path / expected).is_file():
        return
    for mark, (kind, _) in _MARKS.items():
        if mark != expected and (path / mark).is_file():
            wanted = _MARKS[expected][0]
            raise StateError(f"{path} holds a {kind}, not a {wanted}; go on with {resume_command(path)}")


def resume_command(path: Path) -> str:
    """What to type to go on with the work in a folder."""
    command = next((command for mark, (_, command) in _MARKS.items() if (path / mark).is_file()), "matl run")
    return f"{command} --resume {path}"


class RunDirectory:
    """Reads and writes one run directory.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").is_file()

    def create(self, simulation: Simulation, config_toml: str) -> None:
        """Start a run.

        Raises
        ------
        StateError
            The folder already holds a run or a comparison.
        StorageError
            It cannot be written.
        """
        open_new(self.path)
        self._write_tables(simulation)
        # Last, since it is what makes the folder a run.
        write_atomic(self.path / "config.toml", config_toml)

    def read_config(self) -> RunConfig:
        """The configuration of a run that was started before.

        Raises
        ------
        StateError
            The folder holds no run.
        ConfigError
            Its configuration is not one any more.
        """
        self._require_run()
        return load_config(self.path / "config.toml", {})

    def record(self, report: RoundReport, state: State, workload: TrainingWorkload) -> None:
        """Append a round to the tables, then checkpoint."""
        values = asdict(report.record)
        self._append("rounds.csv", [[_cell(values[name]) for name in _ROUND_COLUMNS]])
        number = str(report.record.round)
        self._append(
            "verdicts.csv",
            (
                [number, row.client, row.status.value, _cell(row.weight), row.reason]
                + [_cell(row.evidence.get(name)) for name in workload.mode.channels]
                for row in report.verdicts
            ),
        )
        lengths = {name: (self.path / name).stat().st_size for name in ("rounds.csv", "verdicts.csv")}
        content = pack({"run": state, "lengths": lengths, "identity": _identity(workload)})
        checked = {"version": _CHECKPOINT_VERSION, "sha256": hashlib.sha256(content).hexdigest(), "content": content}
        write_atomic(self.path / "checkpoint.msgpack", pack(checked))

    @contextmanager
    def charging(self, simulation: Simulation) -> Iterator[Charge]:
        """Writes what every client spends into ``privacy.ledger`` before it is released; at the end, ``privacy.json``.

        A round that an interruption had run twice is charged once: its noise comes from the seed, and is the same.

        Raises
        ------
        StateError
            The ledger was lost, cut off or changed, or another process uses it.
        StorageError
            It cannot be written.
        """
        channel, planned = simulation.workload.channel, simulation.privacy
        if planned is None or not isinstance(channel, Private):
            yield spend_nothing
            return
        path, run = self.path / "privacy.ledger", simulation.workload.run
        delta = Fraction(str(planned.demand.delta))
        with PrivacyLedger.open(path) if path.exists() else PrivacyLedger.create(path, run, delta=delta) as ledger:
            what = {} if planned.instance is None else {"manifest": planned.manifest().sha256}
            ledger.declare(channel.codec, channel.mechanism.release, **what)

            def charge(number: int, clients: Sequence[str]) -> None:
                if ledger.last_round is None or number > ledger.last_round:
                    ledger.charge(number, channel.codec, clients)

            try:
                yield charge
            finally:
                write_atomic(self.path / "privacy.json", json.dumps(ledger.export(), indent=2, allow_nan=False) + "\n")

    def resume(self, simulation: Simulation) -> State:
        """The state to go on from; cuts off what was written after the last checkpoint.

        Raises
        ------
        StateError
            The folder holds no run, the checkpoint is damaged, or it belongs to another configuration or judge.
        """
        self._require_run()
        checkpoint = self.path / "checkpoint.msgpack"
        if not checkpoint.exists():  # stopped before the first round ended
            self._write_tables(simulation)
            return simulation.init()
        saved = _read_checkpoint(checkpoint)
        changed = [what for what, value in _identity(simulation.workload).items() if saved["identity"][what] != value]
        if changed:
            raise StateError(
                f"{checkpoint} was written under another {' and '.join(changed)}: config.toml, the data or the version "
                "of MATL was changed after the run had started; change it back, or start the run anew"
            )
        self._truncate(saved["lengths"])
        state: State = saved["run"]
        return state

    def finish(self, result: RunResult, layout: ParamLayout) -> None:
        """Write the model and the result; the run is finished when the result stands."""
        arrays = {name: np.ascontiguousarray(array) for name, array in layout.unflatten(result.params).items()}
        write_atomic(self.path / "model.safetensors", safetensors.numpy.save(arrays))
        write_atomic(self.path / "result.json", json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n")

    def read_result(self) -> dict[str, Any]:
        """The object of ``result.json``.

        Raises
        ------
        StateError
            There is none, or it is damaged.
        """
        path = self.path / "result.json"
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StateError(f"{path} cannot be read: {error}; is this the folder of a finished run?") from error
        if not isinstance(content, dict):
            raise StateError(f"{path} is not the result of a run")
        return content

    def _require_run(self) -> None:
        refuse_other_kind(self.path, "config.toml")
        if not (self.path / "config.toml").is_file():
            raise StateError(f"{self.path} holds no run (no config.toml); start one without --resume")

    def _write_tables(self, simulation: Simulation) -> None:
        write_atomic(self.path / "clients.csv", _clients_table(simulation))
        write_atomic(self.path / "rounds.csv", _csv([_ROUND_COLUMNS]))
        write_atomic(self.path / "verdicts.csv", _csv([[*_VERDICT_COLUMNS, *simulation.workload.mode.channels]]))

    def _append(self, name: str, rows: Iterable[list[str]]) -> None:
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_csv(rows))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise storage_error(path, error) from error

    def _truncate(self, lengths: Mapping[str, int]) -> None:
        for name, length in lengths.items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size < length:
                raise StateError(f"{path} is shorter than when the checkpoint was written; start the run anew")
            try:
                os.truncate(path, length)
            except OSError as error:
                raise storage_error(path, error) from error


def _identity(workload: TrainingWorkload) -> dict[str, str]:
    """What a checkpoint has to share with the run that goes on from it."""
    return {"configuration": workload.config_digest, "run": workload.run, "judge": workload.mode.digest}


def _read_checkpoint(path: Path) -> State:
    """What `RunDirectory.record` wrote; nothing of it is used unless all of it is intact."""
    try:
        checked = unpack(path.read_bytes())
    except (OSError, StateError) as error:
        raise StateError(f"{path} cannot be read: {error}; start the run anew in another folder") from error
    content = checked.get("content")
    if checked.get("version") != _CHECKPOINT_VERSION or not isinstance(content, bytes):
        raise StateError(f"{path} was not written by this version of MATL; start the run anew in another folder")
    if hashlib.sha256(content).hexdigest() != checked.get("sha256"):
        raise StateError(f"{path} is damaged, its checksum does not match; start the run anew in another folder")
    return unpack(content)


def _csv(rows: Iterable[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _cell(value: float | str | None) -> str:
    """Text, or a number that reads back as itself (also from NumPy, whose repr names the type); nothing for nothing."""
    return "" if value is None else str(value)


def _clients_table(simulation: Simulation) -> str:
    """Who holds what, and, since this is a simulation, who is malicious."""
    population = simulation.population
    classes = population.data.test.num_classes
    rows = [["client", "malicious", "samples", *(f"class_{c}" for c in range(classes))]]
    for index, (client, counts) in enumerate(zip(population.ids, population.data.class_counts(), strict=True)):
        malicious = str(int(index in population.malicious))
        rows.append([client, malicious, str(int(counts.sum())), *(str(int(count)) for count in counts)])
    return _csv(rows)
