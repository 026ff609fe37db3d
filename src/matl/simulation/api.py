"""``matl.simulate``: a federation with malicious clients in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from matl.attacks import Attack
from matl.errors import InvalidValueError, RunInterrupted
from matl.events import EventSink, ignore
from matl.learning.datasets import Dataset, Source
from matl.learning.partition import FederatedData
from matl.learning.server import ServerOptimizer
from matl.learning.tasks import Task
from matl.records import Mode
from matl.simulation.build import build_simulation, deal, honest_only
from matl.simulation.config import RunConfig, Spec, load_config, to_toml
from matl.simulation.directory import RunDirectory
from matl.simulation.engine import Simulation, spend_nothing
from matl.simulation.result import RunResult, summarise
from matl.simulation.workers import require_loky

__all__ = ["execute", "simulate"]

_DEALING = frozenset({"clients", "partition", "alpha", "root_size"})
"""Settings that say how data is dealt out."""


def simulate(
    *,
    dataset: Spec | Source | Dataset | FederatedData | tuple[Any, Any] = "digits",
    task: Spec | Task = "mlp",
    attack: Spec | Attack | None = "sign_flip",
    mode: Spec | Mode | None = None,
    server_optimizer: Spec | ServerOptimizer = "sgd",
    ceiling: bool = False,
    workers: int = 1,
    sink: EventSink = ignore,
    **settings: Any,
) -> RunResult:
    """Train a model over simulated clients, some of them malicious, under one judge.

    Parameters
    ----------
    dataset : str, dict, Source, Dataset, (X, y) or FederatedData
        A data set by name or table, the data, or data that `federate` dealt out already.
    task : str, dict or Task
        The model.
    attack : str, dict, Attack or None
        What malicious clients do.
    mode : str, dict, Mode or None
        The judge. A name builds what it needs from the data; None is Mode 1, or no judge if ``aggregator`` is given.
    server_optimizer : str, dict or ServerOptimizer
        What the server does with the aggregate.
    ceiling : bool
        Also train without the malicious clients, for ``ceiling_accuracy``.
    workers : int
        Processes that train the clients; the result does not depend on it.
    sink : callable
        Called with every `matl.events.Event`.
    **settings
        The other keys of the configuration: ``clients``, ``byzantine``, ``alpha``, ``rounds``, ``seed``, ...; see
        `matl.simulation.config.RunConfig`.

    Raises
    ------
    ConfigError
        Settings are wrong; all problems are listed.

    Examples
    --------
    >>> import matl
    >>> result = matl.simulate(dataset="synthetic", clients=12, byzantine=0.25, rounds=2, mode="plain", seed=1)
    >>> len(result.history), result.tpr
    (2, None)
    """
    parts: dict[str, Any] = {}
    named = {"task": task, "mode": mode, "server_optimizer": server_optimizer}
    for key, value in named.items():
        if value is None or isinstance(value, str | dict):
            settings[key] = value
        else:
            parts[key] = value
    if isinstance(attack, str | dict):
        settings["attack"] = attack
    else:
        parts["attack"] = attack
        settings["attack"] = "none"
    if isinstance(dataset, str | dict):
        settings["dataset"] = dataset
    if isinstance(dataset, FederatedData):
        dealt = sorted(_DEALING & set(settings))
        if dealt:
            raise InvalidValueError(f"this data set is dealt out already, got also {', '.join(dealt)}; see federate")
        settings["clients"] = len(dataset.clients)
    config = load_config(None, settings, source="settings")
    data = dataset if isinstance(dataset, FederatedData) else deal(dataset, config)
    simulation = build_simulation(config, data=data, **parts)
    # The configuration knows nothing of what was given as objects: the result has to name them.
    objects = {key: type(part).__name__ for key, part in parts.items() if part is not None}
    if not isinstance(dataset, str | dict):
        objects["dataset"] = data.test.name
    unknown = _DEALING - {"clients"} if isinstance(dataset, FederatedData) else set()
    shown = {k: v for k, v in config.model_dump(exclude_none=True).items() if k not in unknown} | objects
    ceiling_accuracy = None
    if ceiling:
        ceiling_accuracy = execute(honest_only(simulation), config, name="honest_only", workers=workers).accuracy
    return execute(
        simulation,
        config,
        name=objects.get("mode", config.label),
        settings=shown,
        workers=workers,
        sink=sink,
        ceiling_accuracy=ceiling_accuracy,
    )


def execute(
    simulation: Simulation,
    config: RunConfig,
    *,
    name: str,
    settings: Mapping[str, Any] | None = None,
    out: Path | None = None,
    resume: bool = False,
    workers: int = 1,
    sink: EventSink = ignore,
    stop: Callable[[], bool] = lambda: False,
    ceiling_accuracy: float | None = None,
) -> RunResult:
    """Run a simulation to its end, on disk if ``out`` is given, and score it.

    Parameters
    ----------
    simulation : Simulation
        What to run.
    config : RunConfig
        What it was built from.
    name : str
        What the result is called.
    settings : mapping, optional
        What was run, for the result; the configuration if not given.
    out : Path, optional
        The run directory.
    resume : bool
        Go on from the checkpoint in ``out``.
    workers : int
        Processes that train the clients; the result does not depend on it.
    sink : callable
        Called with every event.
    stop : callable
        Asked before every round; ``True`` ends the run in an orderly way.
    ceiling_accuracy : float, optional
        Recorded in the result.

    Raises
    ------
    RunInterrupted
        ``stop`` said so; the checkpoint holds everything up to the last whole round.
    """
    if workers > 1:
        require_loky()  # before anything is written
    directory = RunDirectory(out) if out is not None else None
    if directory is not None and resume:
        state = directory.resume(simulation)
    else:
        state = simulation.init()
        if directory is not None:
            directory.create(simulation, to_toml(config))
    with ExitStack() as stack:
        charge = stack.enter_context(directory.charging(simulation)) if directory is not None else spend_nothing
        rounds = stack.enter_context(closing(simulation.run(state, sink=sink, workers=workers, charge=charge)))
        while (done := int(state["workload"]["round"])) < simulation.rounds:
            if stop():
                raise RunInterrupted(
                    f"stopped in {name} after round {done} of {simulation.rounds}",
                    directory=str(out) if out is not None else None,
                )
            report, state = next(rounds)
            if directory is not None:
                directory.record(report, state, simulation.workload)
    result = summarise(
        simulation,
        state,
        name=name,
        settings=config.model_dump(exclude_none=True) if settings is None else settings,
        ceiling_accuracy=ceiling_accuracy,
    )
    if directory is not None:
        directory.finish(result, simulation.workload.layout)
    return result
