"""What the channels of Mode 1 say about the clients of a round, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from matl.trust.campaign import Campaign
from matl.trust.collusion import closeness, collusion, collusion_bar, likeness
from matl.trust.levels import DRIFT_QUANTILE, FIGURES, LEVELS, PAIR_OFFSET, Levels
from matl.trust.reasons import (
    alien_reason,
    campaign_reason,
    collusion_reason,
    earlier_reason,
    norm_reason,
    pair_reason,
    relabelling_reason,
    spectral_reason,
    turn_reason,
)
from matl.trust.spectral import Division
from matl.trust.view import View

__all__ = ["GOOD", "SUSPECT", "Agreement", "Findings"]

SUSPECT = 0.75
"""Evidence, in units of the bar, from which an update counts half."""

GOOD = 0.05
"""Part of sign-flipped shadows that may show as little evidence as good conduct: the usual 5 % level."""

_UPPER = 0.95
_FIGURES_OF = {"relabelling": ("gain", "share"), "pair": ("pair",), "alien": ("alien",), "norm": ("log_norm",)}

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close each of n clients is to others beyond what classes explain.

    Parameters
    ----------
    mean : float64 array of shape (n,)
        Mean cosine to its nearest neighbours; NaN for no opinion.
    bar : float
        The bar on it, from how close shadows are to each other.
    evidence : float64 array of shape (n,)
        The mean in units of the bar; NaN for no opinion.
    alike : bool array of shape (n, n)
        Which clients are past the bar with each other.
    """

    mean: Float64
    bar: float
    evidence: Float64
    alike: NDArray[np.bool_]

    @classmethod
    def of(cls, clients: View, shadows: View, bar: float) -> Agreement:
        """Compare clients with each other, as closely as shadows and most clients are; ``bar`` is the least."""
        n = len(clients.residuals)
        cosines, usual = likeness(clients.residuals), likeness(shadows.residuals)
        if cosines is None or usual is None:
            unknown = np.full(n, np.nan)
            return cls(unknown, bar, unknown, np.zeros((n, n), bool))
        mean = collusion(cosines)
        # How close most of a cohort comes is no evidence against anybody: with much data of one kind and long
        # training, honest clients come closer to each other than shadows of a few root samples do.
        bar = collusion_bar(
            bar, max(float(np.quantile(collusion(usual), _UPPER)), float(np.quantile(mean, DRIFT_QUANTILE)))
        )
        return cls(mean, bar, closeness(mean, bar), cosines > bar)


@dataclass(frozen=True)
class Findings:
    """Evidence about n clients; each array has one entry or row per client, NaN where a channel has no opinion.

    Parameters
    ----------
    clients : View
        What was seen of them.
    pairs : int64 array of shape (P, 2)
        True and false label of each relabelling that was looked for.
    figures, usual : float64 arrays of shape (n, F)
        The figures of this round, and what 95 % of the shadows like each client stay under.
    levels : Levels
        Level evidence.
    turned : float64 array of shape (n,)
        How far each has turned from its own past.
    usual_turn : float
        The same of the median shadow.
    turn : float64 array of shape (n,)
        Turn evidence.
    agreement : Agreement
        How close each is to others.
    copied : bool array of shape (n,)
        Who is copied by those that it is close to (`matl.trust.collusion.originals`).
    collusion : float64 array of shape (n,)
        Collusion evidence.
    campaign : Campaign
        What each has in common with those that look alien, and campaign evidence.
    division : Division
        How the cohort divides.
    spectral : float64 array of shape (n,)
        Spectral evidence.
    """

    clients: View
    pairs: NDArray[np.int64]
    figures: Float64
    usual: Float64
    levels: Levels
    turned: Float64
    usual_turn: float
    turn: Float64
    agreement: Agreement
    copied: NDArray[np.bool_]
    collusion: Float64
    campaign: Campaign
    division: Division
    spectral: Float64

    @cached_property
    def channels(self) -> dict[str, Float64]:
        """Evidence of each channel in units of its bar."""
        named = {name: self.levels.evidence[:, index] for index, name in enumerate(LEVELS)}
        return {
            **named,
            "turn": self.turn,
            "collusion": self.collusion,
            "campaign": self.campaign.evidence,
            "spectral": self.spectral,
        }

    @cached_property
    def strongest(self) -> Float64:
        """The evidence of each client that counts: its loudest channel, or joint where half the flipped show no more.

        Late in training honest clients stand out a little everywhere too, but less than one that lied would.
        """
        like_flipped = self.levels.joint >= np.median(self.levels.flipped, axis=1)
        levels = np.where(like_flipped, self.levels.joint, np.nanmax(self.levels.evidence, axis=1))
        others = [evidence for channel, evidence in self.channels.items() if channel not in LEVELS]
        return np.asarray(np.nanmax(np.stack([levels, *others]), axis=0))

    @property
    def good(self) -> NDArray[np.bool_]:
        """Whose conduct is shown to be good: one that lied would have shown more, with 95 % probability."""
        return self.levels.joint < np.quantile(self.levels.flipped, GOOD, axis=1)

    def reasons(self) -> list[str]:
        """For each client what its loudest channel saw; empty where nothing is near its bar.

        Where no channel speaks up alone, but the levels do together, the two loudest of them.
        """
        return [", and ".join(self._reason(channel, i) for channel in said) for i, said in enumerate(self._loudest)]

    def convicting(self) -> NDArray[np.bool_]:
        """Whose evidence is past the bar, and can be seen in this very round; (n,)."""
        seen = [any(self._shows(channel, i) for channel in said) for i, said in enumerate(self._loudest)]
        return np.asarray(seen, np.bool_) & (self.strongest > 1.0)

    @cached_property
    def _loudest(self) -> list[list[str]]:
        """For each client the channels that there is a word to be said of."""
        names, told = list(self.channels), np.stack(list(self.channels.values()))
        loudest = []
        for i, strongest in enumerate(self.strongest):
            ranked = np.argsort(-np.nan_to_num(told[:, i], nan=-np.inf), kind="stable")
            said = [names[index] for index in ranked[: 0 if strongest <= SUSPECT else 1]]
            if said and strongest > 1.0 >= told[ranked[0], i]:
                said = [names[index] for index in ranked if names[index] in LEVELS][:2]
            loudest.append(said)
        return loudest

    def _shows(self, channel: str, i: int) -> bool:
        """Whether a channel's evidence is of this round too: some remember those before."""
        if channel == "spectral":
            return bool(self.division.place[i] > 1.0)
        places = [FIGURES.index(figure) for figure in _FIGURES_OF.get(channel, ())]
        return not places or bool((self.figures[i, places] > self.usual[i, places]).any())

    def _reason(self, channel: str, i: int) -> str:
        seen = dict(zip(FIGURES, self.figures[i].tolist(), strict=True))
        usual = dict(zip(FIGURES, self.usual[i].tolist(), strict=True))
        amounts = self.clients.attribution.relabelled[i]
        if not self._shows(channel, i):
            return earlier_reason(channel, float(self.channels[channel][i]))
        match channel:
            case "relabelling":
                gain, share = ((seen[figure], usual[figure]) for figure in _FIGURES_OF[channel])
                return relabelling_reason(gain, share, amounts, self.pairs)
            case "pair":
                amount, limit = (math.exp(figure) - PAIR_OFFSET for figure in (seen["pair"], usual["pair"]))
                return pair_reason(amount, limit, self.pairs[int(np.argmax(amounts))])
            case "alien":
                return alien_reason(seen["alien"], usual["alien"])
            case "norm":
                return norm_reason(seen["log_norm"], usual["log_norm"])
            case "turn":
                return turn_reason(float(self.turned[i]), self.usual_turn)
            case "collusion":
                return collusion_reason(float(self.agreement.mean[i]), self.agreement.bar)
            case "spectral":
                far = int((self.division.place > 1.0).sum())
                return spectral_reason(float(self.division.shared[i]), self.division.near, far)
            case _:
                return campaign_reason(float(self.campaign.shared[i]), self.campaign.usual)
