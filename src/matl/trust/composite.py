"""The composite trust score: calibrated components weighed together, with how far the sum can be trusted itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError

__all__ = ["Composite", "Trust"]

Float64 = NDArray[np.float64]

_SIDES = {"pogq": 1, "tcdm": 2, "entropy": 2}  # tails of the shadows in which a component is atypical
_Z = NormalDist().inv_cdf(0.975)  # two-sided 95 %
_ROUNDING = 1e-9


class Trust(NamedTuple):
    """Composite trust of n clients, each array of shape (n,), in [0, 1]; NaN where no component has an opinion."""

    score: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True, slots=True)
class Composite:
    """Weights of the three components; they are >= 0 and sum to 1.

    Parameters
    ----------
    pogq : float
        Weight of the proof of gradient quality: is the update explained by honest training?
    tcdm : float
        Weight of diversity (`matl.trust.diversity`): does the client keep company as honest clients do?
    entropy : float
        Weight of behavioural entropy (`matl.trust.entropy`): is its behaviour as varied as that of honest clients?

    Examples
    --------
    >>> trust = Composite().score({"pogq": np.array([0.5, 0.0]), "tcdm": np.array([0.8, np.nan])}, shadows=100)
    >>> trust.score.round(2), trust.low.round(2), trust.high.round(2)
    (array([0.63, 0.  ]), array([0.5, 0. ]), array([0.77, 0.04]))
    """

    pogq: float = 0.4
    tcdm: float = 0.3
    entropy: float = 0.3

    def __post_init__(self) -> None:
        weights = self._weights
        validate.non_negative(**weights)
        if abs(sum(weights.values()) - 1.0) > _ROUNDING:
            shown = ", ".join(f"{name}={weight}" for name, weight in weights.items())
            raise InvalidValueError(
                f"expected weights that sum to 1, got {shown}, which sum to {sum(weights.values())}"
            )

    def score(self, components: Mapping[str, Float64], shadows: int) -> Trust:
        """Weighted mean of the components that have an opinion, with a 95 % confidence interval.

        Parameters
        ----------
        components : mapping of str to array of shape (n,)
            Calibrated components by name, in [0, 1]; NaN for no opinion. One that is left out has none on anybody.
        shadows : int
            How many simulated honest clients the components were calibrated on.

        Returns
        -------
        Trust
            For each client ``sum w_c p_c / sum w_c`` over the components c that have an opinion about it.

        Raises
        ------
        InvalidValueError
            A component is unknown, out of range, or of another length than the first.

        Notes
        -----
        The interval says what calibration on that many shadows leaves open, and nothing else: neither how well they
        stand for honest clients nor what a client will do tomorrow is in it. Each tail probability gets a Wilson
        interval, a two-sided one that of one side, doubled; its ends are weighed like the score. That is wide enough
        however the errors of the components go together (they share the shadows): a sum deviates by no more than the
        sum of the deviations.

        References
        ----------
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
        """
        validate.whole(1, shadows=shadows)
        weights = self._weights
        self._check(components)
        size = max((len(values) for values in components.values()), default=0)
        total, sums = np.zeros(size), np.zeros((3, size))
        for name, values in components.items():
            opinion = ~np.isnan(values)
            known = np.where(opinion, values, 0.0)
            ends = _interval(known / _SIDES[name], shadows) * _SIDES[name]
            weight = np.where(opinion, weights[name], 0.0)
            sums += weight * np.stack([known, *np.clip(ends, 0.0, 1.0)])
            total += weight
        means = np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)
        return Trust(*means)

    @property
    def _weights(self) -> dict[str, float]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _check(self, components: Mapping[str, Float64]) -> None:
        sizes = {name: len(values) for name, values in components.items()}
        if unknown := [name for name in components if name not in self._weights]:
            raise InvalidValueError(f"unknown component {unknown[0]!r}; known: {', '.join(self._weights)}")
        if len(set(sizes.values())) > 1:
            raise InvalidValueError(f"expected components of one length, got {sizes}")
        for name, values in components.items():
            known = values[~np.isnan(values)]
            if known.size and not 0.0 <= known.min() <= known.max() <= 1.0:
                raise InvalidValueError(
                    f"expected {name} in [0, 1], got values from {known.min():.3g} to {known.max():.3g}; "
                    "calibrate it first, see matl.trust.calibration.typicality"
                )


def _interval(p: Float64, count: int) -> Float64:
    """Wilson's 95 % interval for shares p of ``count`` draws: its two ends, shape (2, n)."""
    centre = p + _Z**2 / (2 * count)
    half = _Z * np.sqrt(p * (1.0 - p) / count + _Z**2 / (4 * count**2))
    return np.stack([centre - half, centre + half]) / (1.0 + _Z**2 / count)
