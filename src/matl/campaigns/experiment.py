"""Experiments as data: a file that holds a configuration, what of it varies, and the seeds."""

from __future__ import annotations

import copy
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matl.campaigns.compare import CEILING, rule_config
from matl.errors import ConfigError, InvalidValueError, MatlError, MissingExtraError, UnknownNameError, nearest
from matl.simulation.config import RunConfig, load_config

__all__ = ["Cell", "Experiment", "cell_name", "flat_settings", "in_words", "parse_file", "put", "read_experiment"]

_NAME_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of an experiment.

    Parameters
    ----------
    name : str
        Its folder: what varies, readable, and the first digits of the configuration's digest.
    settings : mapping
        The value of every key that varies, in the experiment's order; the seed is not among them.
    config : RunConfig
        The whole configuration.
    """

    name: str
    settings: Mapping[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says.

    Parameters
    ----------
    name : str
        The file's name without its ending.
    values : mapping
        The configuration keys that all cells share.
    swept : tuple of str
        What varies but for the seed: configuration keys, dotted where nested, ``"rule"`` and ``"case"``.
    seeds : tuple of int
        Every setting is run on each.
    ceiling : bool
        Whether every cell also trains without its malicious clients.
    cells : tuple of Cell
        All runs in canonical order: cases, then the grid with its last key fastest, then seeds.
    tune : mapping
        The table ``[tune]``; see `matl.campaigns.tune`.
    source : Path
        Where it was read from.
    """

    name: str
    values: Mapping[str, Any]
    swept: tuple[str, ...]
    seeds: tuple[int, ...]
    ceiling: bool
    cells: tuple[Cell, ...]
    tune: Mapping[str, Any]
    source: Path


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file, TOML or (``.yaml``, ``.yml``) YAML, and check every cell of it.

    Its keys are those of a configuration and besides: ``seeds``, a list; ``ceiling``, true to train every cell also
    without its malicious clients; ``[sweep]``, lists of values for keys, of which every combination is run;
    ``[[sweep.cases]]``, settings that belong together, each combined with the grid; and ``[tune]``.

    Raises
    ------
    ConfigError
        The file cannot be read, or it or any of its cells has problems; all are listed.
    MissingExtraError
        It is YAML and PyYAML is not installed.
    """
    values = parse_file(path)
    reader = _Reader(path)
    seeds, ceiling = reader.seeds(values), reader.flag(values, "ceiling")
    sweep, tune = reader.table(values, "sweep"), reader.table(values, "tune")
    cases, grid = reader.cases(sweep), reader.grid(sweep)
    reader.check_keys(values, grid, cases)
    reader.raise_problems()

    named = any("name" in case for case in cases)
    swept = tuple(dict.fromkeys([*(["case"] if named else []), *_keys(cases), *grid]))
    settings = [
        {**case, **dict(zip(grid, combination, strict=True))}
        for case in cases or [{}]
        for combination in itertools.product(*grid.values())
    ]
    cells = reader.cells(values, settings, swept, seeds)
    reader.raise_problems()
    return Experiment(path.stem, values, swept, seeds, ceiling, tuple(cells), tune, path)


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a key in the values of a configuration; a dotted one is an option of a part, or of a table.

    Examples
    --------
    >>> values = {"attack": "sign_flip"}
    >>> put(values, "attack.scale", 2)
    >>> put(values, "local.learning_rate", 0.1)
    >>> values
    {'attack': {'name': 'sign_flip', 'scale': 2}, 'local': {'learning_rate': 0.1}}
    """
    first, dot, rest = key.partition(".")
    if not dot:
        values[first] = value
        return
    if first not in values and first in RunConfig.model_fields:
        values[first] = RunConfig.model_fields[first].default
    inner = values.get(first)
    if isinstance(inner, str):
        inner = {"name": inner}
    values[first] = dict(inner) if isinstance(inner, Mapping) else {}
    put(values[first], rest, value)


def flat_settings(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of a table under dotted keys; an inner table that has a name is a part, and so a value.

    Examples
    --------
    >>> flat_settings({"local": {"steps": 5}, "attack": {"name": "scaling", "scale": 10}})
    {'local.steps': 5, 'attack': {'name': 'scaling', 'scale': 10}}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and "name" not in value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def in_words(value: Any) -> str:
    """A setting as text: parts in the form of the command line, nothing for nothing.

    Examples
    --------
    >>> in_words({"name": "sleeper", "attack": "alie", "wake_round": 10}), in_words(0.5), in_words(True), in_words(None)
    ('sleeper:attack=alie,wake_round=10', '0.5', 'true', '')
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        if "name" in value and not any(isinstance(item, Mapping) for item in value.values()):
            options = ",".join(f"{key}={in_words(item)}" for key, item in value.items() if key != "name")
            return f"{value['name']}:{options}" if options else str(value["name"])
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(in_words, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_file(path: Path) -> dict[str, Any]:
    """The content of a TOML or YAML file with configuration keys.

    Raises
    ------
    ConfigError
        It cannot be read, or is not what its name says.
    MissingExtraError
        It is YAML and PyYAML is not installed.
    """
    yaml = path.suffix in (".yaml", ".yml")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}; name an existing TOML or YAML file"]) from error
    try:
        content = _parse_yaml(text) if yaml else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), [f"is not {'YAML' if yaml else 'TOML'}: {error}"]) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(str(path), [f"expected a table of configuration keys, got {type(content).__name__}"])
    return content


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", extra="sim") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    json.dumps(content, default=str)  # raises ValueError where an alias makes a value part of itself
    return content


@dataclass
class _Reader:
    """Takes what is an experiment's own out of a file's content, and collects what is wrong with it."""

    path: Path
    problems: list[str] = field(default_factory=list)

    def raise_problems(self) -> None:
        if self.problems:
            raise ConfigError(str(self.path), self.problems)

    def seeds(self, values: dict[str, Any]) -> tuple[int, ...]:
        if "seeds" not in values:
            return ()
        seeds = values.pop("seeds")
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
            self.problems.append(f"seeds: expected a list of whole numbers, got {seeds!r}")
            return ()
        if "seed" in values:
            self.problems.append(f"seeds: give either seed or seeds, got also seed={values['seed']!r}")
        if len(set(seeds)) < len(seeds):
            self.problems.append(f"seeds: expected each seed once, got {seeds!r}")
        return tuple(seeds)

    def flag(self, values: dict[str, Any], key: str) -> bool:
        value = values.pop(key, False)
        if not isinstance(value, bool):
            self.problems.append(f"{key}: expected true or false, got {value!r}")
        return value is True

    def table(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        value = values.pop(key, {})
        if not isinstance(value, dict):
            self.problems.append(f"{key}: expected a table, got {value!r}")
            return {}
        return value

    def cases(self, sweep: dict[str, Any]) -> list[dict[str, Any]]:
        cases = sweep.pop("cases", [])
        if not isinstance(cases, list) or not all(isinstance(case, dict) and case for case in cases):
            self.problems.append(f"sweep.cases: expected a list of tables of settings, got {cases!r}")
            return []
        return [flat_settings(case) for case in cases]

    def grid(self, sweep: dict[str, Any]) -> dict[str, list[Any]]:
        grid = flat_settings(sweep)
        for key, choices in grid.items():
            if not isinstance(choices, list) or not choices:
                self.problems.append(f"sweep.{key}: expected a list of values, got {choices!r}; write [{choices!r}]")
        return grid

    def check_keys(
        self, values: Mapping[str, Any], grid: Mapping[str, Any], cases: Iterable[Mapping[str, Any]]
    ) -> None:
        fields = RunConfig.model_fields
        keys = {key: f"sweep.{key}" for key in grid} | {key: f"sweep.cases.{key}" for key in _keys(cases)}
        for key in set(grid) & set(_keys(cases)):
            self.problems.append(f"sweep.{key}: give it either a list of its own or values in the cases, got both")
        for key, where in keys.items():
            if key == "seed":
                self.problems.append(f"{where}: name the seeds under seeds = [...], which every setting is run on")
            elif key == "rule" and (clash := {"mode", "aggregator"} & {*values, *(k.split(".")[0] for k in keys)}):
                self.problems.append(
                    f"{where}: a rule stands for mode and aggregator, got also {', '.join(sorted(clash))}"
                )
            elif key != "rule" and key.split(".")[0] not in fields:
                known = ["rule", *fields]
                self.problems.append(f"{where}: unknown key{nearest(key, known)}; keys: {', '.join(known)}")
        known = [*fields, "seeds", "ceiling", "sweep", "tune"]
        for key in values:
            if key not in fields:
                self.problems.append(f"{key}: unknown key{nearest(key, known)}; keys: {', '.join(known)}")

    def cells(
        self,
        values: Mapping[str, Any],
        settings: list[dict[str, Any]],
        swept: tuple[str, ...],
        seeds: tuple[int, ...],
    ) -> list[Cell]:
        cells: dict[str, Cell] = {}
        found: dict[str, list[str]] = {}  # a problem that many cells share is told once
        total = len(settings) * max(1, len(seeds))
        for setting, seed in itertools.product(settings, [{"seed": seed} for seed in seeds] or [{}]):
            label = ", ".join(f"{key}={in_words(value)}" for key, value in {**setting, **seed}.items())
            try:
                config = _configure(values, {**setting, **seed})
            except ConfigError as error:
                for problem in error.problems:
                    found.setdefault(problem, []).append(label)
                continue
            except MatlError as error:
                found.setdefault(str(error), []).append(label)
                continue
            cell = _cell(config, setting, swept)
            if config.digest in cells:
                found.setdefault(f"the same as cell {cells[config.digest].name}", []).append(label)
            cells[config.digest] = cell
        for problem, where in found.items():
            which = "" if len(where) == total else f" (in cell {where[0]}{_others(where)})"
            self.problems.append(problem + which)
        return list(cells.values())


def _others(cells: list[str]) -> str:
    return f" and {len(cells) - 1} more" if len(cells) > 1 else ""


def _keys(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for case in cases for key in case if key != "name"))


def _configure(values: Mapping[str, Any], settings: Mapping[str, Any]) -> RunConfig:
    put_together = copy.deepcopy(dict(values))
    for key in sorted(settings, key=lambda key: key.count(".")):  # the part before its options
        if key not in ("rule", "name"):
            put(put_together, key, copy.deepcopy(settings[key]))
    config = load_config(None, put_together)
    if "rule" not in settings:
        return config
    rule = settings["rule"]
    if rule == CEILING:
        raise InvalidValueError(f"rule: {CEILING} is not a rule of its own here; write ceiling = true")
    if not isinstance(rule, str):
        raise InvalidValueError(f"rule: expected the name of a mode or an aggregator, got {rule!r}")
    try:
        return rule_config(config, rule)
    except UnknownNameError as error:
        raise InvalidValueError(f"rule: {error}") from error


def _cell(config: RunConfig, setting: Mapping[str, Any], swept: tuple[str, ...]) -> Cell:
    plain = config.model_dump()
    own = {"case": setting.get("name"), "rule": setting.get("rule")}
    settings = {key: own[key] if key in own else _look_up(plain, key) for key in swept}
    return Cell(cell_name(settings, config), settings, config)


def cell_name(settings: Mapping[str, Any], config: RunConfig) -> str:
    """What varies, readable in the name of a file, and the first digits of the configuration's digest."""
    words = [_word(key, value) for key, value in settings.items() if value is not None]
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join([*words, f"seed{config.seed}"]))[:_NAME_LENGTH].strip("-.")
    return f"{name}-{config.digest[:8]}"


def _word(key: str, value: Any) -> str:
    """What a folder's name says of a setting: numbers need their key, names do not."""
    text = in_words(value)
    return text if isinstance(value, str | Mapping) else f"{key.rsplit('.', 1)[-1]}{text}"


def _look_up(plain: Mapping[str, Any], key: str) -> Any:
    value: Any = plain
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
