"""Adaptive clipping: the norm to which updates are shortened follows a quantile of their norms, privately."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["AdaptiveClip"]


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """Every client tells, in one more coordinate of its private update, whether it was shorter than the clipping norm.

    The coordinate is part of the vector whose norm is enforced: the update is shortened to sqrt(1 - share^2) C, and the
    coordinate is +share C or -share C. So the mechanism, its sensitivity and its certificate are those of fixed
    clipping, and what is learned of the norms is paid for with signal: the error of the sum grows by the factor
    1 / (1 - share^2), and nothing else is charged. The next norm follows from a private sum and from nothing else,
    which is post-processing.

    Parameters
    ----------
    quantile : float
        Share of the clients whose updates are not to be shortened, in (0, 1).
    learning_rate : float
        How fast the norm follows; 0.2 and the median are the authors' recommendation.
    share : float
        Share of the norm that the coordinate takes, in (0, 1): less costs less, and tells less. The share of clients is
        seen with a standard deviation of z / (2 share n) for n clients and noise multiplier z.

    References
    ----------
    Andrew, Thakkar, McMahan, Ramaswamy: Differentially Private Learning with Adaptive Clipping. NeurIPS 2021. There the
    indicators are a second sum with noise of its own, and the noise of the first grows to make up for it.

    Examples
    --------
    >>> clip = AdaptiveClip()
    >>> sent = [clip.attached(np.full(4, size, np.float32), 1.0) for size in (0.1, 0.2, 0.9)]
    >>> [round(float(np.linalg.norm(one)), 3) for one in sent]
    [0.223, 0.41, 1.0]
    >>> mean, within = clip.detached(np.mean(sent, axis=0), 1.0)
    >>> round(within, 3), round(clip.next(1.0, within), 3)
    (0.667, 0.967)
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    share: float = 0.1

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)
        for name in ("quantile", "share"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidValueError(f"expected 0 < {name} < 1, got {name}={getattr(self, name)}")

    @property
    def mse_ratio(self) -> float:
        """By what the error of the sum grows."""
        return 1 / (1 - self.share**2)

    def attached(self, update: Float32, clip: float) -> Float32:
        """The vector (d + 1,) that is sent for an update (d,), of norm at most ``clip``."""
        norm = float(np.linalg.norm(update.astype(np.float64)))
        within = norm <= clip
        shortened = math.sqrt(1 - self.share**2) * (1.0 if within else clip / norm)
        sent = np.empty(update.size + 1, np.float32)
        with np.errstate(invalid="ignore"):  # what is not finite is the encoder's to refuse
            np.multiply(update, np.float32(shortened), out=sent[:-1])
        sent[-1] = self.share * clip if within else -self.share * clip
        return sent

    def detached(self, mean: Float32, clip: float) -> tuple[Float32, float]:
        """Of a mean (d + 1,), the mean update (d,) and the noisy share of clients within ``clip``."""
        told = float(mean[-1]) / (self.share * clip)
        update = mean[:-1] / np.float32(math.sqrt(1 - self.share**2))
        return update, min(1.0, max(0.0, (1 + told) / 2))

    def next(self, clip: float, within: float) -> float:
        """The clipping norm after a round in which this share of the clients was within it."""
        return clip * math.exp(-self.learning_rate * (within - self.quantile))
