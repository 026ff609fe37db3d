"""What hosts run. A host knows nothing of judges; it knows a workload."""

from matl.workloads.channel import Channel, Clear, Encoded, Private, Sender, Shown
from matl.workloads.standings import changes
from matl.workloads.training import Accepted, Outcome, Screened, TrainingWorkload

__all__ = [
    "Accepted",
    "Channel",
    "Clear",
    "Encoded",
    "Outcome",
    "Private",
    "Screened",
    "Sender",
    "Shown",
    "TrainingWorkload",
    "changes",
]
