"""Finished runs side by side, wherever they lie and whatever they were part of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.campaigns.compare import CEILING
from matl.campaigns.experiment import flat_settings, in_words
from matl.errors import InvalidValueError, StateError
from matl.simulation import RunDirectory
from matl.simulation.directory import resume_command

__all__ = ["FinishedRun", "as_rows", "differing", "read_finished"]

_WHOLE = ("sweep.json", "compare.json", "result.json")
_FIGURES = (
    *("accuracy", "ceiling_accuracy", "tpr", "fpr", "bound", "outside_bound"),
    *("rounds", "failed_rounds", "seconds"),
)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that was found in a directory.

    Parameters
    ----------
    directory : Path
        Where it lies.
    result : mapping
        Its ``result.json``.
    """

    directory: Path
    result: Mapping[str, Any]

    @property
    def rule(self) -> str:
        """What judged it."""
        return str(self.result.get("name"))

    @property
    def settings(self) -> dict[str, str]:
        """Its settings in words, under dotted keys."""
        return {key: in_words(value) for key, value in flat_settings(self.result["settings"]).items()}


def read_finished(directories: Sequence[Path]) -> list[FinishedRun]:
    """The runs in directories of finished runs, comparisons and sweeps, in order.

    Raises
    ------
    StateError
        One of them is not finished, and the message says how to go on with it, or a file in it is damaged.
    InvalidValueError
        There is no directory.

    Examples
    --------
    >>> read_finished([Path("no-such-run")])
    Traceback (most recent call last):
        ...
    matl.errors.StateError: no-such-run holds no run, comparison or sweep: there is no such directory
    """
    if not directories:
        raise InvalidValueError("expected at least one directory of a finished run, comparison or sweep, got none")
    runs = [run for directory in directories for run in _read(directory)]
    if not runs:
        raise StateError(f"{', '.join(map(str, directories))}: all cells failed, there is nothing to compare")
    return runs


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """Settings in which the runs differ; mode and aggregator only where the rule's name does not tell."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if _differs(key, runs)]


def as_rows(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """One row per run: directory, rule, the settings in which the runs differ, and the figures."""
    keys = differing(runs)
    return [
        {
            "directory": str(run.directory),
            "rule": run.rule,
            **{key: run.settings.get(key) for key in keys},
            **{key: run.result.get(key) for key in _FIGURES},
        }
        for run in runs
    ]


def _differs(key: str, runs: Sequence[FinishedRun]) -> bool:
    if key not in ("mode", "aggregator"):
        return len({run.settings.get(key) for run in runs}) > 1
    by_rule: dict[str, set[str | None]] = {}
    for run in runs:
        by_rule.setdefault(run.rule, set()).add(run.settings.get(key))
    return any(len(values) > 1 for values in by_rule.values())


def _read(directory: Path) -> Iterator[FinishedRun]:
    found = next((name for name in _WHOLE if (directory / name).is_file()), None)
    if found is None:
        raise StateError(_why_not(directory))
    if found == "result.json":
        yield _run(directory)
        if (directory / CEILING / "result.json").is_file():
            yield _run(directory / CEILING)
        return
    path = directory / found
    try:
        content = json.loads(path.read_text("utf-8"))
        children = (
            [Path(row["directory"]) for row in content["rules"]]
            if found == "compare.json"
            else [Path("cells", row["cell"]) for row in content["cells"] if not row["failure"]]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} cannot be read: {error!r}; is this a finished comparison or sweep?") from error
    for child in children:
        yield _run(directory / child)


def _run(directory: Path) -> FinishedRun:
    result = RunDirectory(directory).read_result()
    figures = [result.get(key) for key in ("accuracy", "seconds", "rounds", "failed_rounds")]
    if not isinstance(result.get("settings"), Mapping) or not all(isinstance(one, int | float) for one in figures):
        raise StateError(f"{directory / 'result.json'} is not the result of a run of this version; run it again")
    return FinishedRun(directory, result)


def _why_not(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory} holds no run, comparison or sweep: there is no such directory"
    if any((directory / mark).is_file() for mark in ("config.toml", "compare.toml", "sweep.toml", "sweep.yaml")):
        return f"{directory} is not finished; go on with: {resume_command(directory)}"
    return f"{directory} holds no run, comparison or sweep"
