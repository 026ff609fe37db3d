"""How samples are spread over clients, and the split of a data set into root, test and client parts."""

from matl.learning.partition.base import PARTITIONS, IndexPartition, Partition
from matl.learning.partition.feature import BrightnessPartition, RotationPartition
from matl.learning.partition.federated import FederatedData, hold_out, split_federation
from matl.learning.partition.label import (
    ClassesPartition,
    DirichletPartition,
    GroupBiasPartition,
    IidPartition,
    ShardsPartition,
)
from matl.learning.partition.natural import NaturalPartition
from matl.learning.partition.quantity import QuantityPartition
from matl.learning.partition.statistics import PartitionStatistics

__all__ = [
    "PARTITIONS",
    "BrightnessPartition",
    "ClassesPartition",
    "DirichletPartition",
    "FederatedData",
    "GroupBiasPartition",
    "IidPartition",
    "IndexPartition",
    "NaturalPartition",
    "Partition",
    "PartitionStatistics",
    "QuantityPartition",
    "RotationPartition",
    "ShardsPartition",
    "hold_out",
    "split_federation",
]
