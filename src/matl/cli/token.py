"""``matl token``: operators' tokens of a coordinator that runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, show, stderr, write
from matl.cli.network import Ca, Folder, Insecure, TokenFile, Url, asked, operator
from matl.cli.tables import table
from matl.protocol.messages import OperatorTokenView, TokenRequest

__all__ = ["token"]

token = typer.Typer(help="Make, change and revoke the tokens of operators.", no_args_is_help=True)

TokenId = Annotated[str, typer.Argument(metavar="ID", help="The token's id, see `matl token list`.")]


class _Scope(StrEnum):
    """What a token allows."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@token.command("list")
def list_tokens(
    *,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """List all tokens, without their secrets."""
    with operator(folder, url, token_file, ca, insecure) as line:
        found = line.tokens()
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    rows = [[one.id, one.name, one.scope, f"{one.expires_at:%Y-%m-%d}"] for one in found]
    show(table(["id", "name", "scope", "ends"], rows))


@token.command("issue")
def issue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; the audit log says so.")],
    *,
    scope: Annotated[_Scope, typer.Option(help="What it allows: its own scope and all below it.")] = _Scope.VIEWER,
    days: Annotated[float, typer.Option(help="How long it is good for.")] = 90.0,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a token. It is shown once and kept nowhere, and stands alone on standard output."""
    request = asked(
        TokenRequest, {"NAME": name, "--scope": scope.value, "--days": days}, ("name", "scope", "lifetime_days")
    )
    with operator(folder, url, token_file, ca, insecure) as line:
        _tell(line.issue(request), as_json=as_json)


@token.command("rotate")
def rotate(
    token_id: TokenId,
    *,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a token that takes another one's place. It is shown once, alone on standard output.

    It is kept nowhere; but the owner's, in `admin.token` of the coordinator's folder, is replaced there too.
    """
    with operator(folder, url, token_file, ca, insecure) as line:
        _tell(line.rotate(token_id), as_json=as_json)


@token.command("revoke")
def revoke(
    token_id: TokenId,
    *,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
) -> None:
    """Make a token worthless at once."""
    with operator(folder, url, token_file, ca, insecure) as line:
        line.revoke(token_id)
    show(f"{token_id} is revoked", markup=False)


def _tell(made: OperatorTokenView, *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    write(f"{made.secret}\n")
    stderr.print(
        f"{made.scope} token {made.id} of {made.name}, good until {made.expires_at:%Y-%m-%d}",
        markup=False, soft_wrap=True, style="dim",
    )  # fmt: skip
