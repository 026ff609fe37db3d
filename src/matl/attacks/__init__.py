"""Adversaries for simulations: each declares what it knows and what it changes."""

from matl.attacks.adaptive import AdaptiveFLTrust, AdaptiveMix
from matl.attacks.backdoor import Backdoor
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge, Rehearsal, Validator
from matl.attacks.collusion import Collusion, Mimic, Sybil
from matl.attacks.cone import Cone
from matl.attacks.data import ClassOnly, LabelFlip, TargetedFlip
from matl.attacks.directed import ModelPoisoning
from matl.attacks.disguise import Disguise
from matl.attacks.free_rider import FreeRider
from matl.attacks.malformed import ForgedWords, Malformed
from matl.attacks.omniscient import Alie, Ipm, Lie, MinMax, MinSum
from matl.attacks.timing import OnOff, Sleeper, SlowDrift
from matl.attacks.updates import GaussianNoise, Scaling, SignFlip
from matl.attacks.white_box import WhiteBox, WhiteBoxBlend
from matl.attacks.wrapper import Wrapper

__all__ = [
    "ATTACKS",
    "AdaptiveFLTrust",
    "AdaptiveMix",
    "Alie",
    "Attack",
    "AttackView",
    "Backdoor",
    "ClassOnly",
    "Collusion",
    "Cone",
    "Disguise",
    "ForgedWords",
    "FreeRider",
    "GaussianNoise",
    "Ipm",
    "Knowledge",
    "LabelFlip",
    "Lie",
    "Malformed",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelPoisoning",
    "OnOff",
    "Rehearsal",
    "Scaling",
    "SignFlip",
    "Sleeper",
    "SlowDrift",
    "Sybil",
    "TargetedFlip",
    "Validator",
    "WhiteBox",
    "WhiteBoxBlend",
    "Wrapper",
]
