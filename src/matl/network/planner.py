"""From the settings of a run to what a coordinator runs: the judge, the model, and when rounds close."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from matl.coordinator.rounds.live import RunPlan
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.plan import PHASES
from matl.errors import ConfigError, InvalidValueError
from matl.network.settings import RunSettings, Terms
from matl.params import Float32
from matl.protocol.messages import OracleView
from matl.simulation import Simulation, build_simulation
from matl.simulation.randomness import derive_seed, stream
from matl.workloads import Private, Sealed

__all__ = ["first_params", "plan_run", "planner", "stranger"]

_DAY = 86400.0  # seconds
_DEADLINE = 600.0  # seconds, of rounds that may be judged without all of their updates
_HARMLESS = frozenset({"name", "pool", "loader"})  # options of data sets that are no files
_ADVICE = "files are named by the coordinator's own settings alone: add the run to those of matl serve"

Build = Callable[[RunSettings], Simulation]


def build(run: RunSettings) -> Simulation:
    """The parts that a configuration names, on its data."""
    return build_simulation(run.config)


def planner(run_id: str, settings: Mapping[str, Any], *, build: Build = build) -> RunPlan:
    """The `matl.coordinator.rounds.live.Planner` of a network.

    Parameters
    ----------
    run_id : str
        How the run is called.
    settings : mapping
        See `RunSettings`.
    build : callable
        Makes the parts; those of a simulated network are shared with its clients.

    Raises
    ------
    MatlError
        Something in them is wrong, does not fit, or is nothing that travels.
    """
    run = RunSettings.of(settings, source=f"run {run_id}")
    return plan_run(run_id, run, build(run))


def stranger(run_id: str, settings: Mapping[str, Any], *, build: Build = build) -> RunPlan:
    """The same for a run that an operator began from elsewhere, whose settings name no files of this machine.

    Whoever could name any would have the first operator's token told to him, as a table with a strange column or as
    what an oracle asks for.

    Raises
    ------
    MatlError
        As `planner`, or the settings name files.
    """
    run = RunSettings.of(settings, source=f"run {run_id}")
    dataset, problems = run.config.dataset, []
    if isinstance(dataset, Mapping) and (files := sorted(dataset.keys() - _HARMLESS)):
        problems.append(f"dataset: may have {', '.join(sorted(_HARMLESS))} in a run that was begun over the network, "
                        f"got {', '.join(files)}; {_ADVICE}")  # fmt: skip
    if run.terms.oracle is not None:
        problems.append(f"network.oracle: its token is in a file of the coordinator; {_ADVICE}")
    if problems:
        raise ConfigError(f"run {run_id}", problems)
    return plan_run(run_id, run, build(run))


def plan_run(run_id: str, run: RunSettings, parts: Simulation) -> RunPlan:
    """The plan of a run from its parts.

    A simulated run draws what `matl run` draws: the seed of the judge, and when updates arrive.
    """
    parts.check_remote()
    config, terms = run.config, run.terms
    workload = replace(parts.workload, run=run_id, max_staleness=terms.max_staleness)
    channel = workload.channel
    masked = isinstance(channel, Private) and channel.by_phases
    if masked and terms.simulated:
        raise InvalidValueError(
            "expected updates that may be seen one by one from simulated clients, got distributed noise, for whose "
            "masked sums every client has to answer by itself, phase by phase; simulate it with matl run, or serve it "
            "to real clients with matl serve"
        )
    if (source := terms.oracle) is not None:
        workload = replace(workload, channel=Sealed(workload.channel))
    return RunPlan(
        workload=workload,
        params=first_params(parts),
        rounds=run.rounds,
        seed=config.seed,
        rules=rules(terms, parts),
        manifest=parts.privacy.manifest() if masked and parts.privacy is not None else None,
        mode=config.label,
        oracle=None if source is None else OracleView(url=source.url, config=config.digest),
        judge=None if source is None else source.judge(),
        judge_seed=functools.partial(derive_seed, config.seed, "judge") if terms.simulated else None,
        noise_key=parts.noise_key if terms.simulated else None,
        arrival=parts.arrival if terms.simulated else None,
    )


def first_params(parts: Simulation) -> Float32:
    """The model (d,) of the first round, the one that simulations begin with."""
    return parts.task.init(stream(parts.seed, "init"))


def rules(terms: Terms, parts: Simulation) -> Rules:
    """When rounds close: unless it is given, at the updates that a round expects, or two thirds of them.

    A masked sum has the survivors that its noise needs.
    """
    channel = parts.workload.channel
    masked = isinstance(channel, Private) and channel.by_phases
    least = channel.least if isinstance(channel, Private) and masked else 1
    target = terms.target or parts.senders + terms.guests
    quorum = terms.quorum or (1 if terms.simulated else max(least, -(-2 * target // 3)))
    if quorum > target:
        raise InvalidValueError(f"expected quorum <= target, got quorum={quorum} and target={target}")
    # Simulated clients say when all of them have sent; the deadline is what they bring forward then. Elsewhere a quorum
    # would mean nothing without one: a single client that stays away would hold up all the others.
    if masked:
        # Later phases are asked of the aggregation, which knows how many it needs.
        return Rules(target=target, quorum=quorum, deadline=terms.deadline or _DEADLINE, phases=PHASES, later=1)
    deadline = terms.deadline or (_DAY if terms.simulated else _DEADLINE if quorum < target else None)
    return Rules(target=target, quorum=quorum, deadline=deadline)
