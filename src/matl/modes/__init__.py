"""Judges: evidence and an aggregation rule, made into one decision per round."""

from matl.modes.mode0 import Mode0
from matl.modes.mode1 import Mode1
from matl.modes.plain import Plain
from matl.records import Mode
from matl.registry import Registry

__all__ = ["MODES", "Mode0", "Mode1", "Plain"]

MODES: Registry[Mode] = Registry("mode")
MODES.register("plain")(Plain)
MODES.register("mode0")(Mode0)
MODES.register("mode1")(Mode1)
