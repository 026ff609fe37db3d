"""The in-process host: whole federations on one machine, with adversaries, from one seed."""

from matl.simulation.api import execute, simulate
from matl.simulation.build import build_simulation, honest_only
from matl.simulation.config import RunConfig, load_config
from matl.simulation.directory import RunDirectory
from matl.simulation.engine import Simulation
from matl.simulation.federation import Population, federate
from matl.simulation.result import RunResult

__all__ = [
    "Population",
    "RunConfig",
    "RunDirectory",
    "RunResult",
    "Simulation",
    "build_simulation",
    "execute",
    "federate",
    "honest_only",
    "load_config",
    "simulate",
]
