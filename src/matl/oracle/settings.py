"""What an oracle is set up with: the configuration file that it measures, and the judge that it makes of it."""

from __future__ import annotations

import hashlib
import importlib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from matl import validate
from matl.attest.measurement import Measurement
from matl.errors import ConfigError
from matl.protocol.oracle import ConfigText, PolicyText
from matl.simulation import RunConfig, load_config
from matl.simulation.build import build_simulation
from matl.workloads import Sealed, TrainingWorkload

__all__ = ["LEAST_CLIENTS", "OracleConfig"]

LEAST_CLIENTS = 3
"""Fewest clients that count in a round, unless something else is asked for."""

_LARGEST_FILE = 1 << 20
_TERMS = "network"  # the table of what concerns coordinators, see `matl.network.settings`


@dataclass(frozen=True)
class OracleConfig:
    """A configuration that was read, and what follows from it.

    Attributes
    ----------
    run : RunConfig
        The run's configuration.
    workload : TrainingWorkload
        What judges, with sealed updates. It has the name of no run: the rounds bring theirs.
    config, policy : ConfigText, PolicyText
        What is measured of the file and of the judge.
    """

    run: RunConfig
    workload: TrainingWorkload
    config: ConfigText
    policy: PolicyText

    @classmethod
    def read(cls, path: Path, *, least_clients: int = LEAST_CLIENTS) -> Self:
        """Read the file that the coordinator's run is set up with, and build its judge.

        Parameters
        ----------
        path : Path
            A TOML file with the keys of a run's configuration and, perhaps, the table ``network``, of which
            ``max_staleness`` and ``simulated`` count here too.
        least_clients : int
            Fewest clients that have to count in a round.

        Raises
        ------
        MatlError
            The file cannot be read, keys or values are wrong, or the parts do not fit each other.
        """
        validate.whole(1, least_clients=least_clients)
        content = _content(path)
        values = _values(path, content)
        terms = values.pop(_TERMS, {})
        if not isinstance(terms, dict):
            raise ConfigError(str(path), [f"{_TERMS}: expected a table, got {terms!r:.80}"])
        if not terms.get("simulated", False):
            values.setdefault("attack", "none")  # as the coordinator has it: real clients' attacks are not planned
        run = load_config(None, values, source=str(path))
        staleness = terms.get("max_staleness", 0)
        validate.whole(0, max_staleness=staleness)
        plain = build_simulation(run).workload
        workload = replace(plain, channel=Sealed(plain.channel), max_staleness=staleness)
        return cls(
            run=run,
            workload=workload,
            config=ConfigText(file=hashlib.sha256(content).hexdigest(), run_config=run.digest),
            policy=PolicyText(mode=workload.mode.digest, max_staleness=staleness, least_clients=least_clients),
        )

    def measure(self) -> Measurement:
        """The measurement of this installation with this configuration and this policy."""
        # What serves is imported by now, or would be missing where somebody only measures.
        importlib.import_module("matl.oracle.serving")
        return Measurement.of(self.config.to_bytes(), self.policy.to_bytes())


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}; name an existing TOML file"]) from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(str(path), [f"is longer than {_LARGEST_FILE} bytes; it is no configuration"])
    return content


def _values(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
