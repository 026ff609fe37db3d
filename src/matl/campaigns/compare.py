"""The same federation under several rules, on one seed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.aggregators import AGGREGATORS
from matl.errors import InvalidValueError, RunInterrupted, StateError, UnknownNameError
from matl.events import EventSink, ignore
from matl.files import write_atomic
from matl.learning.partition import FederatedData
from matl.modes import MODES
from matl.simulation import (
    RunConfig,
    RunDirectory,
    RunResult,
    Simulation,
    build_simulation,
    execute,
    honest_only,
    load_config,
)
from matl.simulation.build import deal
from matl.simulation.config import Spec, to_toml
from matl.simulation.directory import open_new, refuse_other_kind
from matl.simulation.result import SCHEMA_VERSION, provenance
from matl.simulation.workers import require_loky

__all__ = [
    "CEILING",
    "DEFAULT_RULES",
    "Comparison",
    "SinkFor",
    "compare",
    "resume_comparison",
    "rule_config",
    "run_with_ceiling",
]

CEILING = "honest_only"
DEFAULT_RULES = ("fedavg", "krum", "fltrust", "raw_pogq", "mode0", "mode1", CEILING)

_COLUMNS = (
    *("accuracy", "tpr", "fpr", "zero_weight_tpr", "zero_weight_fpr", "bound", "outside_bound"),
    *("failed_rounds", "last_failure", "seconds"),
)
"""What ``compare.json`` takes over from the result of each rule."""

SinkFor = Callable[[str], EventSink]
"""Gives each rule of a comparison its own event sink."""


def _silent(rule: str) -> EventSink:
    return ignore


@dataclass(frozen=True)
class Comparison:
    """Results of several rules on one federation, in the order they were asked for."""

    config: RunConfig
    results: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The object of ``compare.json``."""
        first = next(iter(self.results.values()))
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "comparison",
            "simulation": True,
            "dataset": first["dataset"],
            "clients": self.config.clients,
            "malicious": first["malicious"],
            "attack": self.config.attack,
            "alpha": self.config.alpha,
            "rounds": self.config.rounds,
            "seed": self.config.seed,
            "rules": [
                {"rule": rule, **{key: result.get(key) for key in _COLUMNS}, "directory": rule}
                for rule, result in self.results.items()
            ],
            **provenance(),
        }


def compare(
    config: RunConfig,
    rules: Sequence[str] = DEFAULT_RULES,
    *,
    out: Path,
    resume: bool = False,
    workers: int = 1,
    sink_for: SinkFor = _silent,
    stop: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Run every rule on the same data, clients, attack and seed, each into its own folder under ``out``.

    Parameters
    ----------
    config : RunConfig
        The federation; its own mode and aggregator are not used.
    rules : sequence of str
        Names of modes and aggregators, and ``"honest_only"`` for the ceiling.
    out : Path
        The comparison directory.
    resume : bool
        Go on where an interrupted comparison stopped; finished rules are not run again.
    workers : int
        Processes that train the clients; the results do not depend on it.
    sink_for : callable
        Gives each rule its event sink.
    stop : callable
        Asked after every round; ``True`` ends the comparison in an orderly way.

    Raises
    ------
    InvalidValueError
        There is no rule, or one that does not exist.
    BoundError
        A rule cannot tolerate that many malicious clients; nothing has been run.
    RunInterrupted
        ``stop`` said so.
    """
    if not rules:
        raise InvalidValueError(f"expected at least one rule to compare, got none; e.g. {', '.join(DEFAULT_RULES)}")
    if workers > 1:
        require_loky()
    configs = {rule: rule_config(config, rule) for rule in rules}
    # Every rule is built before any is run, so that an impossible one is refused before time is spent.
    data = deal(config.dataset, config)
    simulations = {rule: _simulation(configs[rule], rule, data) for rule in configs}
    if not resume:
        open_new(out)
        for rule in configs:  # an older run there would pass for one of this comparison
            open_new(out / rule)
        rule_list = ", ".join(f'"{rule}"' for rule in rules)
        write_atomic(out / "compare.toml", f"rules = [{rule_list}]\n{to_toml(config)}")
    results = {}
    for rule, simulation in simulations.items():
        target = out / rule
        directory = RunDirectory(target)
        if not directory.finished:
            begun = (target / "config.toml").is_file()
            with _resumed_from(out):
                execute(
                    simulation,
                    configs[rule],
                    name=rule,
                    out=target,
                    resume=begun,
                    workers=workers,
                    sink=sink_for(rule),
                    stop=stop,
                )
        results[rule] = directory.read_result()
    comparison = Comparison(config, results)
    write_atomic(out / "compare.json", json.dumps(comparison.as_dict(), indent=2, allow_nan=False) + "\n")
    return comparison


def rule_config(config: RunConfig, rule: Spec) -> RunConfig:
    """The configuration with one rule put in place of its mode and aggregator."""
    name = rule if isinstance(rule, str) else str(rule.get("name"))
    if name == CEILING:
        parts: dict[str, Any] = {"mode": "plain", "aggregator": "mean"}
    elif name in MODES and name != "plain":
        parts = {"mode": rule, "aggregator": None}
    elif name in AGGREGATORS:
        parts = {"mode": "plain", "aggregator": rule}
    else:
        known = [name for name in MODES if name != "plain"] + [*AGGREGATORS, "fedavg", CEILING]
        raise UnknownNameError("rule", name, known)
    return load_config(None, {**config.model_dump(), **parts}, source="rule")


def resume_comparison(out: Path) -> tuple[RunConfig, list[str]]:
    """Configuration and rules of a comparison that was started before.

    Raises
    ------
    StateError
        The folder holds none.
    """
    path = out / "compare.toml"
    refuse_other_kind(out, "compare.toml")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}; is this the folder of a comparison?") from error
    rules = content.pop("rules", None)
    if not isinstance(rules, list) or not rules:
        raise StateError(f"{path} names no rules, got rules={rules!r}; start the comparison anew in another folder")
    return load_config(None, content, source=str(path)), [str(rule) for rule in rules]


def run_with_ceiling(
    config: RunConfig,
    *,
    out: Path,
    ceiling: bool = True,
    mark: tuple[str, str] | None = None,
    resume: bool = False,
    workers: int = 1,
    sink_for: SinkFor = _silent,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """One run and, in a folder ``honest_only`` within it, the same federation without its malicious clients.

    Parameters are those of `compare`; ``ceiling`` says whether to run the second, and ``mark`` is the name and the
    content of a file that says what the run belongs to, so that an interrupted one is gone on with as such.
    """
    if workers > 1:
        require_loky()  # before anything is written
    simulation = build_simulation(config)
    directory = RunDirectory(out)
    if not resume:
        open_new(out)
        if ceiling:  # before the run's own files: to a resume, the folder says that the ceiling is wanted
            open_new(out / CEILING)
        directory.create(simulation, to_toml(config))
        if mark is not None:
            write_atomic(out / mark[0], mark[1])
    ceiling_accuracy = None
    with _resumed_from(out):
        if ceiling:
            target = RunDirectory(out / CEILING)
            if not target.finished:
                execute(
                    honest_only(simulation),
                    config,
                    name=CEILING,
                    out=target.path,
                    resume=(target.path / "config.toml").is_file(),
                    workers=workers,
                    sink=sink_for(CEILING),
                    stop=stop,
                )
            ceiling_accuracy = target.read_result()["accuracy"]
        return execute(
            simulation,
            config,
            name=config.label,
            out=out,
            resume=True,
            workers=workers,
            sink=sink_for(config.label),
            stop=stop,
            ceiling_accuracy=ceiling_accuracy,
        )


@contextmanager
def _resumed_from(out: Path) -> Iterator[None]:
    """An interruption anywhere within is resumed from the outer folder."""
    try:
        yield
    except RunInterrupted as error:
        raise RunInterrupted(str(error), directory=str(out)) from error


def _simulation(config: RunConfig, rule: str, data: FederatedData) -> Simulation:
    simulation = build_simulation(config, data=data)
    return honest_only(simulation) if rule == CEILING else simulation
