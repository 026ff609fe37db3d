"""How uneven a partition is: sizes, effective classes, and the distance of each client's labels from all labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PartitionStatistics"]


@dataclass(frozen=True)
class PartitionStatistics:
    """Statistics of a partition, one value per client.

    Parameters
    ----------
    samples : int64 array of shape (clients,)
        Samples that a client holds.
    effective_classes : float64 array of shape (clients,)
        exp of the entropy of its labels: K equally frequent classes count as K, and rare ones hardly count.
    divergence : float64 array of shape (clients,)
        Total variation distance of its labels from those of all clients together, in [0, 1]: the share of its samples
        that would have to change their class to match.

    Examples
    --------
    >>> statistics = PartitionStatistics.of(np.array([[10, 0], [5, 5], [1, 9]]))
    >>> statistics.effective_classes.round(2)
    array([1.  , 2.  , 1.38])
    >>> statistics.divergence.round(2)
    array([0.47, 0.03, 0.43])
    """

    samples: NDArray[np.int64]
    effective_classes: NDArray[np.float64]
    divergence: NDArray[np.float64]

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> PartitionStatistics:
        """Statistics of samples per client and class, shape (clients, classes); a client has at least one sample."""
        samples = counts.sum(axis=1)
        shares = counts / samples[:, None]
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        pooled = counts.sum(axis=0) / counts.sum()
        return cls(samples, np.exp(-(shares * logs).sum(axis=1)), 0.5 * np.abs(shares - pooled).sum(axis=1))

    def summary(self) -> dict[str, Any]:
        """The figures for a result: how many clients, the spread of their sizes, and the means of the other two."""
        return {
            "clients": len(self.samples),
            "samples_min": int(self.samples.min()),
            "samples_median": float(np.median(self.samples)),
            "samples_max": int(self.samples.max()),
            "effective_classes_mean": float(self.effective_classes.mean()),
            "divergence_mean": float(self.divergence.mean()),
        }
