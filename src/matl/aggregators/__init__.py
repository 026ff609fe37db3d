"""Robust aggregation rules: n updates in, one update out.

Examples
--------
>>> import numpy as np
>>> from matl.aggregators import TrimmedMean
>>> TrimmedMean(f=1)(np.array([[1.0], [2.0], [3.0], [1000.0]]))
array([2.5], dtype=float32)
"""

from matl.aggregators.base import AGGREGATORS, ROOT_DATA, Aggregator, Context, Result, Rows, Rule
from matl.aggregators.bucketing import Bucketing
from matl.aggregators.bulyan import Bulyan
from matl.aggregators.caf import CAF
from matl.aggregators.centered_clipping import CenteredClipping
from matl.aggregators.clipping import ARC, StaticClipping
from matl.aggregators.coordinate import Meamed, Median, TrimmedMean
from matl.aggregators.dnc import DnC
from matl.aggregators.flame import FLAME
from matl.aggregators.fltrust import FLTrust
from matl.aggregators.foolsgold import FoolsGold
from matl.aggregators.geometric_median import GeometricMedian
from matl.aggregators.krum import Krum, MultiKrum
from matl.aggregators.mda import MinimumDiameterAveraging
from matl.aggregators.mean import ClippedMean, Mean
from matl.aggregators.monna import MoNNA
from matl.aggregators.nnm import NNM
from matl.aggregators.pre import PreAggregator
from matl.aggregators.raw_pogq import RawPoGQ
from matl.aggregators.signguard import SignGuard
from matl.aggregators.smea import SMEA

__all__ = [
    "AGGREGATORS",
    "ARC",
    "CAF",
    "FLAME",
    "NNM",
    "ROOT_DATA",
    "SMEA",
    "Aggregator",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "ClippedMean",
    "Context",
    "DnC",
    "FLTrust",
    "FoolsGold",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Mean",
    "Median",
    "MinimumDiameterAveraging",
    "MoNNA",
    "MultiKrum",
    "PreAggregator",
    "RawPoGQ",
    "Result",
    "Rows",
    "Rule",
    "SignGuard",
    "StaticClipping",
    "TrimmedMean",
]
