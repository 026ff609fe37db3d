"""MATL, the trust layer for federated learning.

Names are imported when they are first used, so that ``import matl`` stays fast.

Examples
--------
>>> import numpy as np
>>> import matl
>>> matl.aggregators.Median()(np.array([[1.0], [2.0], [900.0]]))
array([2.], dtype=float32)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from matl.version import VERSION

if TYPE_CHECKING:
    from matl import aggregators, attacks, testing
    from matl.client import AsyncMATLClient, MATLClient
    from matl.learning.datasets import Dataset, read_csv, read_parquet
    from matl.learning.local import LocalTraining, train_locally
    from matl.learning.oracle import RootOracle
    from matl.learning.partition import FederatedData
    from matl.learning.tasks import CNNTask, MLPTask, SklearnTask, SoftmaxTask, Task, TorchTask
    from matl.modes.mode0 import Mode0
    from matl.modes.mode1 import Mode1
    from matl.modes.plain import Plain
    from matl.params import ParamLayout
    from matl.records import Cohort, Judgement, Status, Verdict
    from matl.simulation import RunResult, federate, simulate
    from matl.validator import MATLValidator

__version__ = VERSION

_HOMES = {
    "AsyncMATLClient": "matl.client",
    "CNNTask": "matl.learning.tasks",
    "Cohort": "matl.records",
    "Dataset": "matl.learning.datasets",
    "FederatedData": "matl.learning.partition",
    "Judgement": "matl.records",
    "LocalTraining": "matl.learning.local",
    "MATLClient": "matl.client",
    "MATLValidator": "matl.validator",
    "MLPTask": "matl.learning.tasks",
    "Mode0": "matl.modes.mode0",
    "Mode1": "matl.modes.mode1",
    "ParamLayout": "matl.params",
    "Plain": "matl.modes.plain",
    "RootOracle": "matl.learning.oracle",
    "RunResult": "matl.simulation",
    "SklearnTask": "matl.learning.tasks",
    "SoftmaxTask": "matl.learning.tasks",
    "Status": "matl.records",
    "Task": "matl.learning.tasks",
    "TorchTask": "matl.learning.tasks",
    "Verdict": "matl.records",
    "federate": "matl.simulation",
    "read_csv": "matl.learning.datasets",
    "read_parquet": "matl.learning.datasets",
    "simulate": "matl.simulation",
    "train_locally": "matl.learning.local",
}
_ROOMS = ("aggregators", "attacks", "testing")

__all__ = [
    "AsyncMATLClient",
    "CNNTask",
    "Cohort",
    "Dataset",
    "FederatedData",
    "Judgement",
    "LocalTraining",
    "MATLClient",
    "MATLValidator",
    "MLPTask",
    "Mode0",
    "Mode1",
    "ParamLayout",
    "Plain",
    "RootOracle",
    "RunResult",
    "SklearnTask",
    "SoftmaxTask",
    "Status",
    "Task",
    "TorchTask",
    "Verdict",
    "__version__",
    "aggregators",
    "attacks",
    "federate",
    "read_csv",
    "read_parquet",
    "simulate",
    "testing",
    "train_locally",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"matl.{name}")
    raise AttributeError(f"module 'matl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
