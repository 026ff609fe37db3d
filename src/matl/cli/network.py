"""What the commands for a coordinator share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matl.errors import MissingExtraError

if TYPE_CHECKING:
    from matl.network.operating import Operator
    from matl.network.settings import NetworkSettings

__all__ = ["Ca", "Folder", "Place", "TokenFile", "Url", "operator", "require_server", "settings_of"]

_PACKAGES = ("aiosqlite", "alembic", "fastapi", "fsspec", "httpx", "sqlalchemy", "uvicorn", "websockets")

Place = Annotated[
    Path,
    typer.Option("--of", metavar="FILE|FOLDER", help="Settings of `matl serve`, or folder of `matl up`."),
]
Folder = Annotated[Path, typer.Option(help="Folder of the coordinator, where its address and token are.")]
Url = Annotated[
    str | None, typer.Option(help="Where the coordinator is, if not as the folder says.", show_default=False)
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with an operator's token, if not that of the folder.", show_default=False)
]
Ca = Annotated[
    Path | None, typer.Option(help="Certificates (PEM) to trust in place of the machine's.", show_default=False)
]


def require_server(*also: str) -> None:
    """See that what a coordinator needs is installed, before anything is written.

    Raises
    ------
    MissingExtraError
        It is not.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra=",".join([*also, "server"]))


def settings_of(place: Path) -> NetworkSettings:
    """The settings of a coordinator, by their file or by the folder of a local network."""
    from matl.network.settings import NetworkSettings, load_settings

    if place.is_dir():
        return NetworkSettings(folder=place)
    return load_settings(place)


def operator(folder: Path, url: str | None, token_file: Path | None, ca: Path | None) -> Operator:
    """The line of whoever types the command to a coordinator."""
    if find_spec("httpx") is None:
        raise MissingExtraError("httpx", extra="client")
    from matl.network.operating import Operator

    return Operator.of(folder, url=url, token_file=token_file, ca=ca)
