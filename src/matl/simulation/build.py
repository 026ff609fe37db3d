"""From a configuration to a simulation that can run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matl.aggregators import AGGREGATORS, Aggregator
from matl.attacks import ATTACKS, Attack
from matl.errors import BoundError, InvalidValueError, StateError
from matl.learning.datasets import Dataset, Source
from matl.learning.oracle import RootOracle
from matl.learning.partition import PARTITIONS, DirichletPartition, FederatedData, Partition
from matl.learning.server import SERVER_OPTIMIZERS
from matl.learning.tasks import TASKS, Task
from matl.modes import MODES, Plain
from matl.records import Mode
from matl.simulation.config import RunConfig, Spec
from matl.simulation.engine import Simulation
from matl.simulation.federation import Population, federate
from matl.trust.oracle import Oracle
from matl.workloads import TrainingWorkload

__all__ = ["build_simulation", "deal", "honest_only"]


def build_simulation(config: RunConfig, *, data: FederatedData | None = None, **parts: Any) -> Simulation:
    """Load the data, build the parts a configuration names, and check that they fit each other.

    Parameters
    ----------
    config : RunConfig
        What to run.
    data : FederatedData, optional
        Data that was dealt out already; the configuration's otherwise.
    **parts
        ``task``, ``attack``, ``mode``, ``server_optimizer`` as objects, in place of what the configuration names.

    Raises
    ------
    MatlError
        Something does not fit; nothing has been written.
    """
    if data is None:
        data = deal(config.dataset, config)
    attack = parts["attack"] if "attack" in parts else _attack(config.attack)
    population = Population.draw(data, config.byzantine if attack is not None else 0.0, config.seed)
    recipe = config.local.build()
    task = parts.get("task") or _task(config.task, data)
    oracle = RootOracle(task, data.root, recipe)
    mode = _checked(parts["mode"]) if parts.get("mode") is not None else _mode(config, population, oracle)
    workload = TrainingWorkload(
        mode=mode,
        layout=task.layout,
        run=f"{config.label}-{config.digest[:12]}",
        optimizer=parts.get("server_optimizer") or SERVER_OPTIMIZERS.create(config.server_optimizer),
        recipe=recipe.as_dict(),
        max_norm=config.max_norm,
        config_digest=config.digest,
    )
    try:
        _ = mode.digest  # every checkpoint names it: a mode that has none must fail before anything is written
    except StateError as error:
        raise InvalidValueError(
            f"the parameters of {type(mode).__name__} are not plain data and have no digest: {error}; "
            "use numbers, text, lists, dicts or arrays"
        ) from error
    return Simulation(
        population=population,
        task=task,
        workload=workload,
        recipe=recipe,
        attack=attack,
        rounds=config.rounds,
        participation=config.participation,
        seed=config.seed,
    )


def deal(dataset: str | Source | Dataset | tuple[Any, Any], config: RunConfig) -> FederatedData:
    """Deal a data set out as a configuration says."""
    return federate(
        dataset, clients=config.clients, partition=_partition(config), root_size=config.root_size, seed=config.seed
    )


def honest_only(simulation: Simulation) -> Simulation:
    """The ceiling of a simulation: the same federation, plain averaging, malicious clients left out."""
    workload = replace(simulation.workload, mode=Plain(), run=f"honest_only-{simulation.workload.config_digest[:12]}")
    return replace(simulation, workload=workload, attack=None, honest_only=True)


def _partition(config: RunConfig) -> Partition:
    if config.partition == "dirichlet":
        return DirichletPartition(config.alpha)
    return PARTITIONS.create(config.partition)


def _task(spec: Spec, data: FederatedData) -> Task:
    return TASKS.create(spec, features=data.test.X.shape[1], num_classes=data.test.num_classes)


def _attack(spec: Spec) -> Attack | None:
    return None if spec == "none" else ATTACKS.create(spec)


def _mode(config: RunConfig, population: Population, oracle: Oracle) -> Mode:
    spec = config.mode_spec
    name = spec if isinstance(spec, str) else spec["name"]
    if name == "plain":
        return _plain(config, spec, population, oracle)
    if config.aggregator is not None:
        raise InvalidValueError(
            f"mode {name} aggregates by its own rule, got aggregator={config.aggregator!r}; "
            "leave the aggregator out, or choose mode plain"
        )
    wanted = inspect.signature(MODES.get(name)).parameters
    return MODES.create(spec, **({"oracle": oracle} if "oracle" in wanted else {}))


def _checked(mode: Any) -> Mode:
    """A judge that was given as an object."""
    if not hasattr(mode, "judge"):
        name = type(mode).__name__
        advice = f"; wrap it: mode=Plain({name}(...))" if hasattr(mode, "aggregate") else ""
        kind = "aggregator" if hasattr(mode, "aggregate") else "object"
        raise InvalidValueError(f"expected a mode by name or with a method judge(), got the {kind} {name}{advice}")
    judge: Mode = mode
    return judge


def _plain(config: RunConfig, spec: Spec, population: Population, oracle: Oracle) -> Mode:
    """A baseline: the rule is told the true number of malicious clients, and 1 where nobody attacks."""
    rule: Aggregator = AGGREGATORS.create(config.aggregator if config.aggregator is not None else "mean")
    clients = len(population.data.clients)
    options: Mapping[str, Any] = {} if isinstance(spec, str) else {k: v for k, v in spec.items() if k != "name"}
    bound = float(options.get("bound", max(len(population.malicious), 1) / clients))
    cohort = max(1, round(config.participation * clients))
    f = getattr(rule, "f", None)
    f = min(int(bound * cohort + 1e-9), cohort - 1) if f is None else f
    if not 0 <= f <= rule.max_f(cohort):
        raise BoundError(
            f"{config.label} with {cohort} clients in a round tolerates at most {rule.max_f(cohort)} malicious ones, "
            f"got f={f}; lower byzantine, take part with more clients, or choose another rule"
        )
    m = getattr(getattr(rule, "rule", rule), "m", None)  # also of the rule that nnm mixes for
    if m is not None and m > cohort:
        raise BoundError(
            f"{config.label} averages m={m} updates, but only {cohort} clients take part in a round; "
            f"use m <= {cohort}, or take part with more clients"
        )
    return Plain(rule, bound=bound, oracle=oracle if rule.needs_root else None)
