"""Secure aggregation: a server learns the sum of the clients' vectors, and nothing else of them.

Pure state machines for both sides, after SecAgg+ (Bell et al. 2020) with the consistency round of Bonawitz et al.
(2017): bytes in, bytes out, no network, no clock, no threads. `aggregate_in_memory` runs a whole round.
"""

from matl.privacy.secagg.client import Client
from matl.privacy.secagg.graph import Graph, choose_graph, draw_groups, quorum
from matl.privacy.secagg.memory import Dropouts, Traffic, aggregate_groups, aggregate_in_memory
from matl.privacy.secagg.server import Aggregate, Server
from matl.privacy.secagg.session import Phase, Session

__all__ = [
    "Aggregate",
    "Client",
    "Dropouts",
    "Graph",
    "Phase",
    "Server",
    "Session",
    "Traffic",
    "aggregate_groups",
    "aggregate_in_memory",
    "choose_graph",
    "draw_groups",
    "quorum",
]
