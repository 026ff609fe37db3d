"""Robust aggregation rules: n updates in, one update out.

Examples
--------
>>> import numpy as np
>>> from matl.aggregators import TrimmedMean
>>> TrimmedMean(f=1)(np.array([[1.0], [2.0], [3.0], [1000.0]]))
array([2.5], dtype=float32)
"""

from matl.aggregators.base import AGGREGATORS, Aggregator, Context, Result, Rule
from matl.aggregators.coordinate import Median, TrimmedMean
from matl.aggregators.fltrust import FLTrust
from matl.aggregators.krum import Krum, MultiKrum
from matl.aggregators.mean import ClippedMean, Mean
from matl.aggregators.nnm import NNM

__all__ = [
    "AGGREGATORS",
    "NNM",
    "Aggregator",
    "ClippedMean",
    "Context",
    "FLTrust",
    "Krum",
    "Mean",
    "Median",
    "MultiKrum",
    "Result",
    "Rule",
    "TrimmedMean",
]
