"""``matl backup`` and ``matl restore``: a coordinator as a folder of files, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, show
from matl.cli.network import LOCAL, Place, require_server, settings_of

__all__ = ["backup", "restore"]


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write; it may not be there yet.")],
    *,
    folder: Place = LOCAL,
    as_json: options.AsJson = False,
) -> None:
    """Copy a coordinator: database, payloads, models, keys, audit log. It may run meanwhile.

    The copy is of one moment, and holds keys: keep it where only its owner can read it.
    """
    require_server()
    from matl.network.saving import save

    saved = asyncio.run(save(settings_of(folder), target))
    if as_json:
        print_json(saved.as_dict())
        return
    show(
        f"{target}: {saved.store.rows} rows, {saved.store.blobs} blobs and {saved.files} files, "
        f"{saved.store.bytes / 2**20:.1f} MiB",
        markup=False,
    )
    show(f"digest {saved.digest}", markup=False, style="dim")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder that `matl backup` wrote.")],
    *,
    folder: Place = LOCAL,
    digest: Annotated[
        str | None, typer.Option(help="Refuse any backup but the one with this digest.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Put a backup into an empty folder and an empty database; SQLite and PostgreSQL take each other's."""
    require_server()
    from matl.files import make_directory
    from matl.network.saving import put_back

    if not folder.exists() and not folder.suffix:
        make_directory(folder)
    saved = asyncio.run(put_back(source, settings_of(folder), digest=digest))
    if as_json:
        print_json(saved.as_dict())
        return
    show(f"restored {saved.store.rows} rows, {saved.store.blobs} blobs and {saved.files} files", markup=False)
