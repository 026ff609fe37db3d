"""``matl db``: the tables of a coordinator's database."""

from __future__ import annotations

import asyncio

import typer

from matl.cli import options
from matl.cli.console import print_json, show
from matl.cli.network import LOCAL, Place, require_server, settings_of

__all__ = ["database"]

database = typer.Typer(help="Look after the database of a coordinator.", no_args_is_help=True)


@database.command("status")
def status(*, folder: Place = LOCAL, as_json: options.AsJson = False) -> None:
    """Say of which version the tables are, and which one this library needs."""
    require_server()
    from matl.network.hosting import versions

    current, needed = asyncio.run(versions(settings_of(folder)))
    if as_json:
        print_json({"version": current, "needed": needed, "up_to_date": current == needed})
        return
    words = "up to date" if current == needed else "upgrade it with: matl db upgrade"
    show(f"tables of version {current or 'none'}, this library needs {needed}: {words}", markup=False)


@database.command("upgrade")
def upgrade(*, folder: Place = LOCAL) -> None:
    """Bring the tables to the version of this library, or make them. Stop the coordinator and back it up before.

    The folder is taken for as long: while a coordinator runs from it, nothing is changed.
    """
    require_server()
    from matl.network.folder import in_use
    from matl.network.hosting import upgrade_database, versions

    settings = settings_of(folder)
    with in_use(settings.folder):
        asyncio.run(upgrade_database(settings))
    current, _ = asyncio.run(versions(settings))
    show(f"tables of version {current}", markup=False)
