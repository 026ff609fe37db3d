"""Cartels: groups that vouch for each other against everybody else, how suspicious they are, and what is done about it.

A `Ledger` collects who vouched for whom against the majority; `find_groups` looks in it for groups and gives each a
calibrated risk; `respond` turns risks into an append-only log of reversible actions. All are pure functions over plain
data.
"""

from matl.trust.cartels.actions import Action, Level, respond, standing, undo, weight_factors
from matl.trust.cartels.groups import Group, find_groups
from matl.trust.cartels.ledger import Ledger

__all__ = ["Action", "Group", "Ledger", "Level", "find_groups", "respond", "standing", "undo", "weight_factors"]
