"""What the commands for a coordinator share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from matl.errors import ConfigError, InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from matl.network.operating import Operator
    from matl.network.settings import NetworkSettings

__all__ = [
    "LOCAL",
    "Ca",
    "Folder",
    "Insecure",
    "Place",
    "TokenFile",
    "Url",
    "asked",
    "operator",
    "require_server",
    "settings_of",
]

_PACKAGES = ("aiosqlite", "alembic", "fastapi", "fsspec", "httpx", "sqlalchemy", "uvicorn", "websockets")

M = TypeVar("M", bound=BaseModel)

LOCAL = Path("matl-network")
"""The folder of `matl up` unless another one is given."""

Place = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER|FILE", help="Folder of the coordinator, or its settings' file.")
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

Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token to an http:// address of another machine all the same.")
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
    if not place.exists():
        raise ConfigError(
            str(place), ["cannot be read: there is no such file or folder; name the folder of a coordinator, or the "
            "TOML file of `matl serve`"],
        )  # fmt: skip
    return load_settings(place)


def asked(kind: type[M], given: Mapping[str, Any], fields: Sequence[str]) -> M:
    """A request from the options of a command.

    Parameters
    ----------
    kind : type
        Of the request.
    given : mapping of str to object
        Values by the names of their options.
    fields : sequence of str
        Fields of the request, in the same order.

    Raises
    ------
    InvalidValueError
        A value is not allowed; the message calls it as the user does.

    Examples
    --------
    >>> from matl.protocol.messages import TokenRequest
    >>> asked(TokenRequest, {"NAME": "x y", "--scope": "viewer"}, ("name", "scope"))
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: expected NAME as up to 128 letters, digits and . _ : @ -, ..., got 'x y'
    """
    try:
        return kind.model_validate(dict(zip(fields, given.values(), strict=True)))
    except ValidationError as error:
        names = dict(zip(fields, given, strict=True))
        raise InvalidValueError(
            "; ".join(f"expected {names[str(one['loc'][0])]} {_wanted(one)}, got {one['input']!a:.80}"
                      for one in error.errors())
        ) from error  # fmt: skip


def _wanted(problem: Any) -> str:
    if problem["type"].startswith("string_"):  # the only texts are names
        return "as up to 128 letters, digits and . _ : @ -, the first one a letter or a digit"
    words: str = problem["msg"]
    return words.removeprefix("Input should be ")


def operator(folder: Path, url: str | None, token_file: Path | None, ca: Path | None, insecure: bool) -> Operator:
    """The line of whoever types the command to a coordinator."""
    if find_spec("httpx") is None:
        raise MissingExtraError("httpx", extra="client")
    from matl.network.operating import Operator

    return Operator.of(folder, url=url, token_file=token_file, ca=ca, insecure=insecure)
