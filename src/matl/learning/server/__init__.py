"""Server optimisers: what the server does with an aggregated update."""

from matl.learning.server.adaptive import FedAdam, FedExP, FedYogi
from matl.learning.server.auto import DampedNadam
from matl.learning.server.base import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer, StatefulOptimizer
from matl.learning.server.sgd import FedAvgM, ServerSGD
from matl.learning.server.stateful import FedDyn, FedNova, Scaffold

__all__ = [
    "SERVER_OPTIMIZERS",
    "DampedNadam",
    "FedAdam",
    "FedAvgM",
    "FedDyn",
    "FedExP",
    "FedNova",
    "FedYogi",
    "RoundSummary",
    "Scaffold",
    "ServerOptimizer",
    "ServerSGD",
    "StatefulOptimizer",
]
