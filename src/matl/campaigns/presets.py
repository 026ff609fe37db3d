"""Campaigns that come with MATL: whole runs with a name, at a size that one machine holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matl import validate
from matl.errors import InvalidValueError
from matl.simulation import RunConfig, load_config

__all__ = ["CAMPAIGNS", "CSV_COLUMNS", "MARK", "Campaign", "campaign", "progress_rows"]


@dataclass(frozen=True, slots=True)
class Campaign:
    """A run with a name.

    Parameters
    ----------
    title : str
        What it shows.
    values : mapping
        Its configuration, where it is not the default.
    full_clients : int
        How many clients it is meant for; ``values`` may have fewer, so that one machine holds it.
    """

    title: str
    values: Mapping[str, Any]
    full_clients: int

    @property
    def clients(self) -> int:
        """How many clients it runs with here."""
        return int(self.values["clients"])

    def reduced(self, clients: int) -> str:
        """How many clients a run of it has of those it is meant for, in words; empty if it has all of them."""
        if clients >= self.full_clients:
            return ""
        why = ", to fit on one machine" if clients == self.clients else ""
        return f"{clients} of {self.full_clients} nodes{why}"


_MNIST = {"dataset": "mnist", "clients": 100, "mode": "mode1", "rounds": 30, "local": {"epochs": 1}}
_RECIPE = {"steps": 20, "learning_rate": 0.05}
_CIFAR = {"dataset": "cifar10", "task": "cnn", "clients": 20, "mode": "mode1", "rounds": 40, "local": _RECIPE}

CAMPAIGNS: dict[int, Campaign] = {
    1: Campaign("MNIST, nobody attacks", {**_MNIST, "attack": "none", "byzantine": 0.0}, 100),
    2: Campaign("MNIST, 20 % send the opposite", {**_MNIST, "attack": "sign_flip", "byzantine": 0.2}, 100),
    3: Campaign("MNIST, 40 % send the opposite", {**_MNIST, "attack": "sign_flip", "byzantine": 0.4}, 100),
    4: Campaign("CIFAR-10, 20 % send the opposite", {**_CIFAR, "attack": "sign_flip", "byzantine": 0.2}, 100),
    5: Campaign("CIFAR-10, 30 % send the opposite", {**_CIFAR, "attack": "sign_flip", "byzantine": 0.3}, 100),
}
"""By number. An epoch is a round; a node is a client."""

MARK = "campaign.toml"
"""Says that a run is a campaign, and which."""

CSV_COLUMNS = ("epoch", "active_nodes", "detected", "accuracy", "seconds", "average_seconds")
"""Columns of ``campaign.csv``."""


def campaign(number: int, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a campaign, with what was given elsewhere in place of its own.

    Raises
    ------
    InvalidValueError
        There is no campaign of that number.
    ConfigError
        What was given is wrong.
    """
    validate.whole(0, campaign=number)
    if number not in CAMPAIGNS:
        known = ", ".join(f"{known} ({one.title})" for known, one in CAMPAIGNS.items())
        raise InvalidValueError(f"there is no campaign {number}; campaigns: {known}")
    return load_config(None, {**CAMPAIGNS[number].values, **given}, source=f"campaign {number}")


def progress_rows(history: tuple[Mapping[str, Any], ...]) -> list[dict[str, Any]]:
    """What a campaign shows after each round: one row per round of a run's history.

    Examples
    --------
    >>> counts = {"accepted": 7, "clipped": 0, "suspected": 1, "quarantined": 2, "rejected": 0}
    >>> rounds = [{"round": i, "accuracy": 0.5, "seconds": 1.0 + i, **counts} for i in range(2)]
    >>> progress_rows(tuple(rounds))[1]
    {'epoch': 2, 'active_nodes': 10, 'detected': 2, 'accuracy': 0.5, 'seconds': 2.0, 'average_seconds': 1.5}
    """
    rows, spent = [], 0.0
    for count, row in enumerate(history, start=1):
        spent += row["seconds"]
        detected = row["quarantined"] + row["rejected"]
        active = detected + row["accepted"] + row["clipped"] + row["suspected"]
        values = (row["round"] + 1, active, detected, row["accuracy"], row["seconds"], spent / count)
        rows.append(dict(zip(CSV_COLUMNS, values, strict=True)))
    return rows
