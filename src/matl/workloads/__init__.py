"""What hosts run. A host knows nothing of judges; it knows a workload."""

from matl.workloads.channel import Channel, Clear, Encoded, Private, Sender, Shown
from matl.workloads.reputation import Earned
from matl.workloads.sealed import Sealed
from matl.workloads.standings import changes, suspicion
from matl.workloads.training import Accepted, Outcome, Screened, TrainingWorkload

__all__ = [
    "Accepted",
    "Channel",
    "Clear",
    "Earned",
    "Encoded",
    "Outcome",
    "Private",
    "Screened",
    "Sealed",
    "Sender",
    "Shown",
    "TrainingWorkload",
    "changes",
    "suspicion",
]
