"""``matl invite``: let clients in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, stderr, write
from matl.cli.network import Ca, Folder, Insecure, TokenFile, Url, asked, operator
from matl.protocol.messages import InviteRequest

__all__ = ["invite"]


def invite(
    client: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLIENT]", help="Who may use it; anybody with another name if none is given.", show_default=False
        ),
    ] = None,
    *,
    uses: Annotated[int, typer.Option(min=1, help="How many clients may enrol with it.")] = 1,
    hours: Annotated[float, typer.Option(help="How long it is good for.")] = 168.0,
    replaces: Annotated[
        bool, typer.Option("--replaces", help="The client may come with a new key: it lost the old one.")
    ] = False,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Make an invitation, with which a client becomes one of the federation.

    It is shown once and kept nowhere: give it to the client over a line that nobody else reads. It stands alone on
    standard output.
    """
    request = asked(
        InviteRequest, {"CLIENT": client, "--uses": uses, "--hours": hours, "--replaces": replaces},
        ("client_id", "uses", "lifetime_hours", "replaces"),
    )  # fmt: skip
    with operator(folder, url, token_file, ca, insecure) as line:
        made = line.invite(request)
        if as_json:
            print_json({**made.model_dump(mode="json"), "url": line.url})
            return
        write(f"{made.token}\n")
        stderr.print(
            f"good until {made.expires_at:%Y-%m-%d %H:%M} UTC, at {line.url}",
            markup=False, soft_wrap=True, style="dim",
        )  # fmt: skip
