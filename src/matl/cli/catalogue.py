"""``matl list``: what can be named in a configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from matl.aggregators import AGGREGATORS
from matl.attacks import ATTACKS
from matl.cli.console import print_json, show
from matl.codec import CODECS
from matl.learning.datasets import DATASETS
from matl.learning.partition import PARTITIONS
from matl.learning.server import SERVER_OPTIMIZERS
from matl.learning.tasks import TASKS
from matl.modes import MODES
from matl.registry import Registry

__all__ = ["Kind", "catalogue"]


class Kind(StrEnum):
    """What can be listed."""

    DATASETS = "datasets"
    ATTACKS = "attacks"
    AGGREGATORS = "aggregators"
    MODES = "modes"
    TASKS = "tasks"
    PARTITIONS = "partitions"
    OPTIMIZERS = "server-optimizers"
    CODECS = "codecs"


_REGISTRIES: dict[Kind, Registry[Any]] = {
    Kind.DATASETS: DATASETS,
    Kind.ATTACKS: ATTACKS,
    Kind.AGGREGATORS: AGGREGATORS,
    Kind.MODES: MODES,
    Kind.TASKS: TASKS,
    Kind.PARTITIONS: PARTITIONS,
    Kind.OPTIMIZERS: SERVER_OPTIMIZERS,
    Kind.CODECS: CODECS,
}


def catalogue(
    kind: Annotated[
        Kind | None, typer.Argument(help="What to list; the kinds if not given.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """List the parts a configuration can name."""
    if kind is None:
        _kinds(as_json=as_json)
        return
    registry = _REGISTRIES[kind]
    if as_json:
        print_json({name: {"summary": registry.summary(name), "aliases": registry.aliases(name)} for name in registry})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name in registry:
        also = registry.aliases(name)
        table.add_row(name + (f" ({', '.join(also)})" if also else ""), registry.summary(name))
    show(table)


def _kinds(*, as_json: bool) -> None:
    if as_json:
        print_json({one.value: list(registry) for one, registry in _REGISTRIES.items()})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("of which there are")
    for one, registry in _REGISTRIES.items():
        table.add_row(one.value, ", ".join(registry))
    show(table)
    show("\nmatl list KIND says what each is", markup=False, style="dim")
