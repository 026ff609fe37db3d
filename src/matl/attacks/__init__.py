"""Adversaries for simulations: each declares what it knows and what it changes."""

from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.attacks.data import LabelFlip
from matl.attacks.malformed import Malformed
from matl.attacks.timing import Sleeper
from matl.attacks.updates import Alie, GaussianNoise, Scaling, SignFlip

__all__ = [
    "ATTACKS",
    "Alie",
    "Attack",
    "AttackView",
    "GaussianNoise",
    "Knowledge",
    "LabelFlip",
    "Malformed",
    "Scaling",
    "SignFlip",
    "Sleeper",
]
