"""From a configuration to a simulation that can run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matl.aggregators import AGGREGATORS, ROOT_DATA, Aggregator, Rule
from matl.attacks import ATTACKS, Attack
from matl.codec import CODECS
from matl.errors import BoundError, InvalidValueError, StateError
from matl.learning.datasets import Dataset, Source
from matl.learning.local import LocalTraining
from matl.learning.oracle import RootOracle
from matl.learning.partition import FederatedData
from matl.learning.server import SERVER_OPTIMIZERS, ServerOptimizer, StatefulOptimizer
from matl.learning.tasks import TASKS, Task
from matl.modes import MODES, Plain
from matl.privacy.groups import count_groups
from matl.privacy.planner import Kind, Plan
from matl.records import Mode
from matl.simulation.config import RunConfig, Spec
from matl.simulation.engine import Simulation
from matl.simulation.federation import Population, federate
from matl.simulation.private import check_judge, private_channel
from matl.simulation.randomness import derive_seed
from matl.trust.oracle import Oracle
from matl.workloads import Channel, Clear, Encoded, TrainingWorkload

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
    optimizer = parts.get("server_optimizer") or SERVER_OPTIMIZERS.create(config.server_optimizer)
    recipe = _recipe(config, optimizer)
    task = parts.get("task") or _task(config, data)
    _check_task(task, config, data.test)
    oracle = RootOracle(task, data.root, recipe)
    channel, planned = _channel(config, len(data.clients), task.layout.size)
    mode = _checked(parts["mode"]) if parts.get("mode") is not None else _mode(config, population, oracle, optimizer)
    if config.privacy is not None:
        check_judge(config.privacy, mode)
    workload = TrainingWorkload(
        mode=mode,
        layout=task.layout,
        run=f"{config.label}-{config.digest[:12]}",
        channel=channel,
        optimizer=optimizer,
        downlink=None if config.downlink is None else CODECS.create(config.downlink),
        recipe=recipe,
        clients=len(data.clients),
        max_norm=config.max_norm,
        public_seed=derive_seed(config.seed, "public"),
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
        attack=None if attack is None else attack.on(data.test.shape),
        oracle=oracle,
        rounds=config.rounds,
        participation=config.participation,
        dropouts=config.dropouts,
        seed=config.seed,
        privacy=planned,
    )


def _channel(config: RunConfig, clients: int, params: int) -> tuple[Channel, Plan | None]:
    """How updates travel, and the plan that their privacy follows, if any."""
    if config.privacy is None:
        return (Clear() if config.codec is None else Encoded(CODECS.create(config.codec))), None
    for key in ("codec", "max_norm"):
        if (value := getattr(config, key)) is not None:
            raise InvalidValueError(
                f"privacy encodes and shortens updates in its own way, got {key}={value!r} as well; leave it out, and "
                f"set privacy.{'budget_bits' if key == 'codec' else 'clip'}"
            )
    cohort = max(1, round(config.participation * clients))
    return private_channel(config.privacy, clients=clients, cohort=cohort, params=params, rounds=config.rounds)


def deal(dataset: Spec | Source | Dataset | tuple[Any, Any], config: RunConfig) -> FederatedData:
    """Deal a data set out as a configuration says."""
    keys = ("clients", "alpha", "partition", "root_size", "seed")
    return federate(dataset, **{key: getattr(config, key) for key in keys})


def honest_only(simulation: Simulation) -> Simulation:
    """The ceiling of a simulation: the same federation, plain averaging, malicious clients left out."""
    population = simulation.population
    workload = replace(
        simulation.workload,
        mode=Plain(),
        channel=Clear(),
        run=f"honest_only-{simulation.workload.config_digest[:12]}",
        clients=len(population.data.clients) - len(population.malicious),
    )
    return replace(simulation, workload=workload, attack=None, honest_only=True, privacy=None)


def _recipe(config: RunConfig, optimizer: ServerOptimizer) -> LocalTraining:
    """What clients do locally: the configuration's recipe, and what the server's algorithm asks of it."""
    asked = optimizer.recipe
    given = config.local.model_dump(exclude_defaults=True)
    for key in asked.keys() & given.keys():
        raise InvalidValueError(
            f"{type(optimizer).__name__} sets local.{key} = {asked[key]} itself, got local.{key} = {given[key]}; "
            "leave it out"
        )
    return replace(config.local.build(), **asked)


def _task(config: RunConfig, data: FederatedData) -> Task:
    samples = data.test
    given = {
        "features": samples.X.shape[1],
        "num_classes": samples.num_classes,
        "shape": samples.shape,
        "device": config.device,
    }
    name = config.task if isinstance(config.task, str) else config.task["name"]
    wanted = inspect.signature(TASKS.get(name)).parameters
    return TASKS.create(config.task, **{key: value for key, value in given.items() if key in wanted})


def _check_task(task: Task, config: RunConfig, samples: Dataset) -> None:
    """That a task is made for these samples and computes where the configuration says; it need not tell its shape."""
    features, shape, device = (getattr(task, name, None) for name in ("features", "shape", "device"))
    seen = f"{samples.name} has {_shaped(samples.shape, samples.X.shape[1])} and {samples.num_classes} classes"
    # What is no image has no order that a task could mistake: there the number of features says enough.
    images = (shape is None or len(shape) == 3) and samples.shape is not None and len(samples.shape) == 3
    other_image = images and shape not in (None, samples.shape)
    if features not in (None, samples.X.shape[1]) or other_image:
        raise InvalidValueError(f"task expects samples of {_shaped(shape, features)}, {seen}; make the task for these")
    if task.num_classes != samples.num_classes:
        raise InvalidValueError(f"task tells {task.num_classes} classes apart, {seen}; make the task for these")
    if config.device != "auto" and (device or "cpu") != config.device:
        raise InvalidValueError(
            f"{type(task).__name__} computes on {device or 'cpu'}, got device={config.device!r}; leave device out, or "
            "give it to the task where that is made"
        )


def _shaped(shape: tuple[int, ...] | None, features: Any) -> str:
    return f"shape {tuple(shape)} = {features} features" if shape is not None else f"{features} features"


def _attack(spec: Spec) -> Attack | None:
    return None if spec == "none" else ATTACKS.create(spec)


def _mode(config: RunConfig, population: Population, oracle: Oracle, optimizer: ServerOptimizer) -> Mode:
    spec = config.mode_spec
    name = spec if isinstance(spec, str) else spec["name"]
    if name == "plain":
        return _plain(config, spec, population, oracle)
    if config.aggregator is not None:
        raise InvalidValueError(
            f"mode {name} aggregates by its own rule, got aggregator={config.aggregator!r}; "
            "leave the aggregator out, or choose mode plain"
        )
    if isinstance(optimizer, StatefulOptimizer):
        raise InvalidValueError(
            f"mode {name} takes updates to follow from the model and the client's data alone; with "
            f"{type(optimizer).__name__} they also follow from what each client remembers, and honest clients would be "
            "accused; choose another server optimiser, or a rule, e.g. aggregator=median"
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
    # What is seen are groups, of which every malicious client may spoil one.
    if config.privacy is not None and config.privacy.mechanism != Kind.LOCAL:
        size = config.privacy.group_size
        units = 1 if size is None else count_groups(cohort, size)
        bound = 0.0 if units == 1 else bound * cohort / units
        cohort = units
    f = rule.given_f() if isinstance(rule, Rule) else getattr(rule, "f", None)
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
    return Plain(rule, bound=bound, oracle=oracle if ROOT_DATA & rule.needs else None)
