"""What hosts run. A host knows nothing of judges; it knows a workload."""

from matl.workloads.training import Accepted, Outcome, TrainingWorkload

__all__ = ["Accepted", "Outcome", "TrainingWorkload"]
