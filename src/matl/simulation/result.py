"""What a finished run says about itself."""

from __future__ import annotations

import math
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from matl.attacks import Attack
from matl.learning.datasets import Dataset
from matl.learning.tasks import Task
from matl.params import Float32, values_hash
from matl.simulation.engine import Simulation
from matl.simulation.private import told
from matl.simulation.scoring import EXCLUDED, Detection, class_accuracies, minority_accuracy, rounds_to, share
from matl.state import State
from matl.workloads import Private

__all__ = ["SCHEMA_VERSION", "RunResult", "provenance", "summarise"]

SCHEMA_VERSION = 1
_NEARLY = 0.9
"""Share of the ceiling to which rounds are counted."""


@dataclass(frozen=True)
class RunResult:
    """The outcome of a simulated run.

    Parameters
    ----------
    name : str
        The rule: a mode, an aggregator, or ``"honest_only"``.
    accuracy : float
        Of the final model on the test set, in [0, 1].
    ceiling_accuracy : float or None
        Of the same federation without its malicious clients and with plain averaging; ``None`` if it was not run.
    tpr, fpr : float or None
        Share of the malicious / honest clients that are quarantined or rejected at the end; ``None`` for rules that
        give no verdicts, or where there are no such clients.
    zero_weight_tpr, zero_weight_fpr : float or None
        Share of the malicious / honest clients whose last update did not count, for whatever reason.
    lost_weight : float or None
        Mean share of its weight that an honest client lost in its last round although it was not excluded; ``None`` for
        rules that give no verdicts.
    worst_class_accuracy : float
        Of the final model on the class it knows worst.
    minority_accuracy : float or None
        Of the final model for the honest clients it serves worst: see `matl.simulation.scoring.minority_accuracy`.
    attack_success_rate : float or None
        Share of the attack's triggered test samples that get the label it wants; ``None`` for an attack without.
    detection : Detection or None
        How well the verdicts of all rounds told malicious from honest; ``None`` for rules that give none.
    quarantined : tuple of str
        Clients that are quarantined or rejected at the end.
    malicious : tuple of str
        Clients that really were malicious, known because this is a simulation.
    clients : int
        Number of clients.
    outside_bound : bool
        Whether there were more malicious clients than the rule is designed for.
    bound : float or None
        Largest malicious share it is designed for; ``None`` without verdicts.
    history : tuple of mapping
        One `matl.simulation.scoring.RoundRecord` per round, as plain data.
    params : float32 array of shape (d,)
        The final model.
    seconds : float
        Wall time of all rounds.
    dataset : str
        What the data set calls itself, which may say more than the name it was asked for by.
    data : mapping
        How it is spread over the clients: see `matl.learning.partition.PartitionStatistics.summary`.
    settings : mapping
        What was run, in words a reader can repeat.
    privacy : mapping or None
        What its sums of updates protect, see `matl.simulation.private.told`.
    metrics : mapping of str to float
        What the task itself measures of the final model on the test set, beside its accuracy.
    """

    name: str
    accuracy: float
    ceiling_accuracy: float | None
    tpr: float | None
    fpr: float | None
    zero_weight_tpr: float | None
    zero_weight_fpr: float | None
    lost_weight: float | None
    worst_class_accuracy: float
    minority_accuracy: float | None
    attack_success_rate: float | None
    detection: Detection | None
    quarantined: tuple[str, ...]
    malicious: tuple[str, ...]
    clients: int
    gives_verdicts: bool
    bound: float | None
    outside_bound: bool
    history: tuple[Mapping[str, Any], ...]
    params: Float32 = field(repr=False)
    seconds: float = 0.0
    dataset: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    privacy: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        accused = len(set(self.quarantined) - set(self.malicious))
        caught = len(set(self.quarantined)) - accused
        verdicts = (
            f", caught {caught} of {len(self.malicious)}, accused {accused} of {self.clients - len(self.malicious)}"
        )
        return f"{self.name}: accuracy {self.accuracy:.1%}" + (verdicts if self.gives_verdicts else "")

    @property
    def failures(self) -> list[str]:
        """Why rounds failed, one reason for each that did, in order."""
        return [row["failure"] for row in self.history if row.get("failure")]

    @property
    def failed_rounds(self) -> int:
        """How many rounds failed; each left the model as it was."""
        return len(self.failures)

    @property
    def payload_bytes(self) -> float:
        """Mean length of the updates, in bytes."""
        return float(np.mean([row["payload_bytes"] for row in self.history]))

    @property
    def rounds_to_90(self) -> int | None:
        """Rounds until the accuracy reaches 90 % of the ceiling; ``None`` if it never does or no ceiling is known."""
        if self.ceiling_accuracy is None:
            return None
        return rounds_to([row["accuracy"] for row in self.history], _NEARLY * self.ceiling_accuracy)

    def as_dict(self) -> dict[str, Any]:
        """The object of ``result.json``; everything but ``seconds`` and ``peak_memory_mib`` is reproducible."""
        settings = dict(self.settings)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "run",
            "name": self.name,
            "simulation": True,
            "dataset": self.dataset,
            **{key: settings.get(key) for key in ("attack", "alpha", "seed")},
            "rounds": len(self.history),
            "failed_rounds": self.failed_rounds,
            "last_failure": self.failures[-1] if self.failures else "",
            "clients": self.clients,
            "data": dict(self.data),
            "malicious": len(self.malicious),
            "gives_verdicts": self.gives_verdicts,
            "bound": self.bound,
            "outside_bound": self.outside_bound,
            "accuracy": self.accuracy,
            "ceiling_accuracy": self.ceiling_accuracy,
            "rounds_to_90": self.rounds_to_90,
            "worst_class_accuracy": self.worst_class_accuracy,
            "minority_accuracy": self.minority_accuracy,
            "attack_success_rate": self.attack_success_rate,
            "metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics.items()},
            "tpr": self.tpr,
            "fpr": self.fpr,
            "zero_weight_tpr": self.zero_weight_tpr,
            "zero_weight_fpr": self.zero_weight_fpr,
            "lost_weight": self.lost_weight,
            "payload_bytes": self.payload_bytes,
            "privacy": None
            if self.privacy is None
            else {**self.privacy, "bits_per_coordinate": 8 * self.payload_bytes / self.params.size},
            "detection": None if self.detection is None else self.detection.as_dict(),
            "quarantined": list(self.quarantined),
            "model_hash": values_hash(self.params),
            "settings": settings,
            **provenance(),
            "seconds": round(self.seconds, 3),
            "peak_memory_mib": peak_memory_mib(),
        }


def summarise(
    simulation: Simulation,
    state: State,
    *,
    name: str,
    settings: Mapping[str, Any],
    ceiling_accuracy: float | None = None,
) -> RunResult:
    """Score the state after the last round against the truth of the simulation."""
    population = simulation.population
    malicious = population.malicious_ids
    present = [one for one in population.ids if not (simulation.honest_only and one in malicious)]
    liars, honest = [c for c in present if c in malicious], [c for c in present if c not in malicious]
    excluded = {client for client, status in state["statuses"].items() if status in EXCLUDED}
    unused = {client for client, weight in state["weights"].items() if weight == 0}
    mode = simulation.workload.mode
    history = tuple(state["history"])
    params, test = state["workload"]["params"], population.data.test
    with np.errstate(over="ignore", invalid="ignore"):  # a model far out has figures too
        by_class = class_accuracies(simulation.task.predict(params, test.X), test.y, test.num_classes)
        success = _attack_success(simulation.attack, simulation.task, params, test)
    held = population.data.class_counts()[[i for i in range(len(population.ids)) if i not in population.malicious]]
    device, metrics = (getattr(simulation.task, name, None) for name in ("device", "metrics"))
    return RunResult(
        name=name,
        accuracy=history[-1]["accuracy"],
        ceiling_accuracy=ceiling_accuracy,
        tpr=share(excluded, liars) if mode.gives_verdicts else None,
        fpr=share(excluded, honest) if mode.gives_verdicts else None,
        zero_weight_tpr=share(unused, liars),
        zero_weight_fpr=share(unused, honest),
        lost_weight=_lost_weight(state["weights"], [c for c in honest if c not in excluded])
        if mode.gives_verdicts
        else None,
        worst_class_accuracy=float(np.nanmin(by_class)),
        minority_accuracy=minority_accuracy(by_class, held),
        attack_success_rate=success,
        detection=_detection(simulation, state) if mode.gives_verdicts else None,
        quarantined=tuple(sorted(excluded)),
        malicious=tuple(sorted(malicious)),
        clients=len(population.ids),
        gives_verdicts=mode.gives_verdicts,
        bound=mode.bound if mode.gives_verdicts else None,
        outside_bound=mode.gives_verdicts and len(liars) > mode.bound * len(present) + 1e-9,
        history=history,
        params=params,
        seconds=float(np.sum([row["seconds"] for row in history])),
        dataset=test.name,
        data={**population.data.statistics().summary(), "class_names": test.class_names},
        settings={**settings, "device": device} if device is not None else settings,
        privacy=_privacy(simulation, state),
        metrics=_as_floats(metrics(params, test.X, test.y)) if callable(metrics) else {},
    )


def _privacy(simulation: Simulation, state: State) -> Mapping[str, Any] | None:
    channel = simulation.workload.channel
    if simulation.privacy is None or not isinstance(channel, Private):
        return None
    return told(simulation.privacy, channel, state["workload"])


def _detection(simulation: Simulation, state: State) -> Detection:
    attack, population = simulation.attack, simulation.population
    rounds = range(len(state["scores"]))
    return Detection.of(
        np.array(state["scores"], np.float64),
        np.array(state["excluded"], np.bool_),
        np.isin(np.arange(len(population.ids)), list(population.malicious)),
        np.array([attack is not None and attack.at(number) is not None for number in rounds], np.bool_),
    )


def _lost_weight(weights: Mapping[str, float], kept: Sequence[str]) -> float | None:
    lost = [1.0 - weights[client] for client in kept if client in weights]
    return float(np.mean(lost)) if lost else None


def _attack_success(attack: Attack | None, task: Task, params: Float32, test: Dataset) -> float | None:
    """Share of the samples that carry an attack's trigger which the model gives the label the attack wants."""
    triggered = attack.triggered(test.X, test.y, test.num_classes) if attack is not None else None
    if triggered is None or not len(triggered[1]):
        return None
    X, wanted = triggered
    return float(np.mean(task.predict(params, X) == wanted))


def _as_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """A task's own metrics as JSON can hold them: NumPy's numbers it cannot."""
    return {name: float(value) for name, value in metrics.items()}


@cache
def provenance() -> dict[str, Any]:
    """Versions and, in a git checkout, the commit that ran and whether its files had been changed."""
    packages = ("matl", "numpy", "scikit-learn", "torch")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "commit": _git("rev-parse", "HEAD"), "dirty": _dirty()}


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _dirty() -> bool | None:
    # What a benchmark published is no part of what ran: it would call the code of the next benchmark changed.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    return None if changes is None else bool(changes)


def _git(*command: str) -> str | None:
    """What git says about the checkout this file lies in; ``None`` without one, or without git."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            # Without locks it writes nothing, not even its own index.
            ["git", "--no-optional-locks", "-C", str(root), *command],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
