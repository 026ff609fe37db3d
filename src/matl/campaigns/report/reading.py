"""A finished run or comparison, read back from its directory and checked.

Ids and reasons come from clients and may be anything; numbers and statuses come from the simulation and must be right.
"""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matl.campaigns.compare import CEILING
from matl.campaigns.report.data import SEVERITY, Clients, Entry, Floats, Ints, Report, Rounds, Run, Verdicts
from matl.errors import StateError

__all__ = ["load"]


def load(directory: Path) -> Report:
    """Read a run or comparison directory.

    Raises
    ------
    StateError
        The directory is neither, or a file in it is damaged.
    """
    if (directory / "compare.json").is_file():
        return _load_comparison(directory)
    if (directory / "result.json").is_file():
        return _load_single(directory)
    state = "there is no such directory" if not directory.is_dir() else "it holds neither"
    raise StateError(
        f"expected a finished run (result.json) or comparison (compare.json) in {directory}, but {state}; "
        "both files are written last, when all rounds are done"
    )


def _load_single(directory: Path) -> Report:
    run = _load_run(directory)
    entries = [_entry(run.result, run)]
    nested = directory / CEILING
    if (nested / "result.json").is_file():
        ceiling_run = _load_run(nested)
        entries.append(_entry({**ceiling_run.result, "name": CEILING}, ceiling_run))
    ceiling = _number(run.result, "ceiling_accuracy")
    if ceiling is None and len(entries) == 2:
        ceiling = entries[1].accuracy
    facts = {**run.config, **run.result}
    return Report(directory=directory, kind="run", facts=facts, entries=tuple(entries), ceiling=ceiling)


def _load_comparison(directory: Path) -> Report:
    path = directory / "compare.json"
    facts = _json(path)
    rules = facts.get("rules")
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise StateError(f"expected a list of tables under 'rules' in {path}, got {type(rules).__name__}")
    entries = []
    for rule in rules:
        name = str(rule.get("directory", ""))
        # Only a plain child of this directory: the file might come from elsewhere.
        child = directory / name if name and Path(name).name == name else None
        run = _load_run(child) if child is not None and (child / "result.json").is_file() else None
        entries.append(_entry(rule, run))
    ceiling = next((entry.accuracy for entry in entries if entry.is_ceiling), None)
    lead = next((entry.run for entry in entries if entry.run is not None and not entry.is_ceiling), None)
    shared = lead.config if lead is not None else {}
    return Report(
        directory=directory,
        kind="comparison",
        facts={**shared, **facts},
        entries=tuple(entries),
        ceiling=ceiling,
    )


def _entry(row: Mapping[str, Any], run: Run | None) -> Entry:
    rule = str(row.get("rule", row.get("name", "unnamed rule")))
    return Entry(
        rule=rule,
        label=str(row.get("label", rule)),
        accuracy=_number(row, "accuracy"),
        tpr=_number(row, "tpr"),
        fpr=_number(row, "fpr"),
        zero_weight_tpr=_number(row, "zero_weight_tpr"),
        zero_weight_fpr=_number(row, "zero_weight_fpr"),
        seconds=_number(row, "seconds"),
        bound=_number(row, "bound"),
        outside_bound=row.get("outside_bound") is True,
        failed_rounds=int(_number(row, "failed_rounds") or 0),
        last_failure=str(row.get("last_failure", "")),
        run=run,
    )


def _load_run(directory: Path) -> Run:
    config = directory / "config.toml"
    text = config.read_text("utf-8", errors="replace") if config.is_file() else ""
    try:
        settings = tomllib.loads(text)
    except ValueError as error:  # of its digits too, not of its grammar alone
        raise StateError(f"{config} is not valid TOML: {error}") from error
    result = _json(directory / "result.json")
    return Run(
        directory=directory,
        result=result,
        config=settings,
        config_text=text,
        clients=_clients(directory / "clients.csv", result),
        rounds=_rounds(directory / "rounds.csv"),
        verdicts=_verdicts(directory / "verdicts.csv"),
    )


def _clients(path: Path, result: Mapping[str, Any]) -> Clients | None:
    columns = _csv(path, "client", "malicious", "samples")
    if columns is None:
        return None
    classes = [values for name, values in columns.items() if name.startswith("class_")]
    ids = tuple(columns["client"])
    counts = [_integers(path, "class_*", values) for values in classes]
    return Clients(
        ids=ids,
        malicious=_integers(path, "malicious", columns["malicious"]) != 0,
        samples=_integers(path, "samples", columns["samples"]),
        counts=np.stack(counts, axis=1) if counts else np.zeros((len(ids), 0), np.int64),
        names=_class_names(result, len(counts)),
    )


def _class_names(result: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """The names the data set gives its classes, or else their numbers."""
    data = result.get("data")
    names = data.get("class_names") if isinstance(data, dict) else None
    if isinstance(names, list) and len(names) == classes:
        return tuple(str(name) for name in names)
    return ("class 0", *map(str, range(1, classes)))[:classes]


def _rounds(path: Path) -> Rounds | None:
    columns = _csv(path, "round", "accuracy")
    if columns is None:
        return None
    index = _integers(path, "round", columns.pop("round"))
    columns.pop("failure", None)  # text; the result has its summary
    return Rounds(index, {name: _floats(path, name, values) for name, values in columns.items()})


def _verdicts(path: Path) -> Verdicts | None:
    known = ("round", "client", "status", "weight", "reason")
    columns = _csv(path, *known)
    if columns is None or not columns["round"]:
        return None
    codes = {str(status): code for code, status in enumerate(SEVERITY)}
    strange = sorted(set(columns["status"]) - set(codes))
    if strange:
        raise StateError(f"expected a status of {', '.join(codes)} in {path}, got {strange[0]!r}")
    units = {unit: i for i, unit in enumerate(dict.fromkeys(columns["client"]))}
    rounds = _integers(path, "round", columns["round"])
    order = np.argsort(rounds, kind="stable")
    evidence = {name: _floats(path, name, values)[order] for name, values in columns.items() if name not in known}
    return Verdicts(
        units=tuple(units),
        round=rounds[order],
        unit=np.array([units[unit] for unit in columns["client"]], np.int64)[order],
        status=np.array([codes[status] for status in columns["status"]], np.int64)[order],
        weight=_floats(path, "weight", columns["weight"])[order],
        reasons=[columns["reason"][i] for i in order],
        evidence={name: values for name, values in evidence.items() if np.isfinite(values).any()},
    )


def _csv(path: Path, *required: str) -> dict[str, list[str]] | None:
    """Columns of a CSV file by name, or None where there is no such file."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        try:
            header, *rows = list(csv.reader(stream))
        except (csv.Error, ValueError) as error:
            raise StateError(f"{path} is not a CSV file with a header: {error}") from error
    missing = [name for name in required if name not in header]
    if missing:
        raise StateError(f"expected columns {', '.join(required)} in {path}, but {', '.join(missing)} is missing")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise StateError(f"expected {len(header)} cells in row {line} of {path}, got {len(row)}")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _floats(path: Path, name: str, cells: Sequence[str]) -> Floats:
    try:
        values = np.array([float(cell) if cell else math.nan for cell in cells], np.float64)
    except ValueError as error:
        raise StateError(f"expected numbers in column {name!r} of {path}: {error}") from error
    return np.where(np.isfinite(values), values, np.nan)


def _integers(path: Path, name: str, cells: Sequence[str]) -> Ints:
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError) as error:
        raise StateError(f"expected whole numbers in column {name!r} of {path}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise StateError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise StateError(f"expected a table in {path}, got {type(content).__name__}")
    return content


def _number(row: Mapping[str, Any], key: str) -> float | None:
    """A finite number, or None where it is absent or not defined."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
