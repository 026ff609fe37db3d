"""From the settings of a run to what a coordinator runs: the judge, the model, and when rounds close."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from matl.aggregators import FoolsGold, PreAggregator
from matl.coordinator.rounds.live import RunPlan
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.plan import PHASES
from matl.errors import ConfigError, InvalidValueError
from matl.network.settings import RunSettings, Terms
from matl.params import Float32
from matl.protocol.messages import OracleView
from matl.simulation import Simulation, build_simulation
from matl.simulation.randomness import derive_seed, stream
from matl.workloads import Channel, Clear, Private, Sealed, TrainingWorkload

__all__ = ["first_params", "plan_run", "planner", "stranger"]

_DAY = 86400.0  # seconds
_DEADLINE = 600.0  # seconds, of rounds that may be judged without all of their updates
_OVERSELECT = 1.3  # times the target
_LARGEST_ARRAY = 2**32 - 2**10  # bytes, in what states are packed as, with its header
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
    if not terms.simulated or terms.guests:
        _check_sent(channel)
    if (source := terms.oracle) is not None:
        workload = replace(workload, channel=Sealed(workload.channel))
    closing = rules(terms, parts)
    _check_history(workload, closing.target)
    return RunPlan(
        workload=workload,
        params=first_params(parts),
        rounds=run.rounds,
        seed=config.seed,
        rules=closing,
        manifest=parts.privacy.manifest() if masked and parts.privacy is not None else None,
        mode=config.label,
        oracle=None if source is None else OracleView(url=source.url, config=config.digest),
        judge=None if source is None else source.judge(),
        judge_seed=functools.partial(derive_seed, config.seed, "judge") if terms.simulated else None,
        noise_key=parts.noise_key if terms.simulated else None,
        arrival=parts.arrival if terms.simulated else None,
    )


def _check_sent(channel: Channel) -> None:
    """Refuse updates that no client of this library sends, see `matl.client.encoding.check_supported`."""
    if isinstance(channel, Clear) or (isinstance(channel, Private) and channel.by_phases):
        return
    if isinstance(channel, Private):
        raise InvalidValueError(
            "clients over a network mask updates under distributed noise, or send them in the clear, got "
            f"{channel.codec} noise; choose privacy.mechanism=distributed, leave privacy out, or simulate it with matl "
            "run"
        )
    raise InvalidValueError(
        f"clients over a network send safetensors, got the codec {channel.codec}; leave codec out, or simulate it with "
        "matl run"
    )


def _check_history(workload: TrainingWorkload, clients: int) -> None:
    """Refuse a rule that remembers an update of every client where a state has no place for so many."""
    rule = getattr(workload.mode, "aggregator", None)
    while isinstance(rule, PreAggregator):
        rule = rule.rule
    needed = 4 * clients * workload.layout.size
    if isinstance(rule, FoolsGold) and needed > _LARGEST_ARRAY:
        raise InvalidValueError(
            f"FoolsGold remembers an update of every client, which for {clients} clients of {workload.layout.size} "
            f"parameters is {needed / 1e9:.1f} GB, more than the {_LARGEST_ARRAY / 1e9:.1f} GB that a state has place "
            "for; choose another rule"
        )


def first_params(parts: Simulation) -> Float32:
    """The model (d,) of the first round, the one that simulations begin with."""
    return parts.task.init(stream(parts.seed, "init"))


def rules(terms: Terms, parts: Simulation) -> Rules:
    """When rounds close: unless it is given, at the updates that a round expects, or two thirds of them.

    A masked sum has the survivors that its noise needs. Clients are drawn for rounds that have a target of their own.
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
        deadline = terms.deadline or _DEADLINE
        over = _over_selection(terms, deadline)
        return Rules(target=target, quorum=quorum, deadline=deadline, over_selection=over, phases=PHASES, later=1)
    ends = terms.deadline or (_DAY if terms.simulated else _DEADLINE if quorum < target else None)
    return Rules(target=target, quorum=quorum, deadline=ends, over_selection=_over_selection(terms, ends))


def _over_selection(terms: Terms, deadline: float | None) -> float | None:
    """How many times the target is drawn; ``None`` where everybody takes part."""
    if deadline is None and terms.overselect is not None:
        raise InvalidValueError(
            f"expected a deadline with overselect={terms.overselect:g}, got none and a quorum that is the whole "
            "target: a round would wait for ever for a client that was drawn and is gone; add network.deadline, or a "
            "lower network.quorum"
        )
    if terms.target is None or deadline is None or terms.simulated or terms.max_staleness:
        return None
    return terms.overselect or _OVERSELECT
