"""Parts that a user registered, for the processes that run cells: those know only what MATL brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from matl.aggregators import AGGREGATORS
from matl.attacks import ATTACKS
from matl.codec import CODECS
from matl.learning.datasets import DATASETS
from matl.learning.partition import PARTITIONS
from matl.learning.server import SERVER_OPTIMIZERS
from matl.learning.tasks import TASKS
from matl.modes import MODES
from matl.registry import Registry

__all__ = ["PART_ERRORS", "REGISTRIES", "OwnPart", "own_parts", "register_parts"]

REGISTRIES: dict[str, Registry[Any]] = {
    "dataset": DATASETS,
    "attack": ATTACKS,
    "mode": MODES,
    "aggregator": AGGREGATORS,
    "partition": PARTITIONS,
    "task": TASKS,
    "server_optimizer": SERVER_OPTIMIZERS,
    "codec": CODECS,
}
"""Where a configuration's key finds its part."""

PART_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What a part may raise that does not fit its data or machine (torch says by RuntimeError that an accelerator is full).

One setting out of many has then failed; the others can still be run.
"""

OwnPart: TypeAlias = tuple[str, str, list[str], Any]
"""Key of the configuration, name, aliases, and what is filed under them."""


def own_parts() -> list[OwnPart]:
    """All registered parts that do not come with MATL."""
    return [
        (key, name, registry.aliases(name), registry.get(name))
        for key, registry in REGISTRIES.items()
        for name in registry
        if registry.get(name).__module__.split(".")[0] != "matl"
    ]


def register_parts(parts: Iterable[OwnPart]) -> None:
    """Register parts of another process in this one."""
    for key, name, aliases, part in parts:
        REGISTRIES[key].register(name, *aliases)(part)
