"""``matl status``: how a coordinator's runs stand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, show
from matl.cli.network import Ca, Folder, Insecure, TokenFile, Url, operator
from matl.cli.tables import table

if TYPE_CHECKING:
    from matl.network.operating import RunStanding
    from matl.protocol.messages import ClientView, RoundView

__all__ = ["status"]


def status(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How many of the latest rounds are listed.")] = 5,
    folder: Folder = Path("matl-network"),
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Say how the runs of a coordinator stand: the round that is open, the latest ones, and the clients."""
    with operator(folder, url, token_file, ca, insecure) as line:
        clients = {one.client_id: one for one in line.clients()}
        runs = [line.standing(one, rounds=rounds) for one in line.runs()]
        broken = line.metrics().broken_runs
    if as_json:
        print_json(
            {
                "url": line.url,
                "runs": [one.as_dict() for one in runs],
                "broken_runs": broken,
                "clients": [one.model_dump(mode="json") for one in clients.values()],
            }
        )
        return
    show(f"coordinator at {line.url}: {len(runs)} runs, {len(clients)} clients", markup=False)
    for name, reason in broken.items():
        show(f"{name}: cannot go on since the restart: {reason}", markup=False, style="bold red")
    for one in runs:
        _show_run(one, clients)
    if not runs and clients:
        show(table(("client", "standing"), [[name, each.standing] for name, each in clients.items()], left=("client",)))


def _show_run(one: RunStanding, clients: dict[str, ClientView]) -> None:
    about = one.run
    show()
    show(
        f"{about.id} ({about.mode}): {about.status}, {about.round} of {about.rounds or 'any number of'} rounds",
        markup=False,
        style="bold",
    )
    if about.obstacle:
        show(f"it cannot go on for now, and tries again: {about.obstacle}", markup=False, style="red")
    if (now := one.open_round) is not None:
        show(_waiting(now), markup=False)
    if one.rounds:
        rows = [
            [str(now.number), now.status, str(now.accepted), str(now.rejected), _when(now.ended_at), now.reason]
            for now in one.rounds
        ]
        show(table(("round", "status", "accepted", "rejected", "ended", "reason"), rows, left=("status", "reason")))
    judged = {each.client_id: each for each in one.standings}
    rows = []
    for name in sorted(clients.keys() | judged.keys()):
        view, verdict = clients.get(name), judged.get(name)
        standing = "not judged yet" if verdict is None else str(verdict.status)
        reason = "" if verdict is None else verdict.reason
        if view is not None and view.standing == "revoked":
            standing, reason = "revoked", ""
        rows.append([name, standing, "-" if verdict is None else f"{verdict.weight:g}", reason])
    if rows:
        show(table(("client", "standing", "weight", "reason"), rows, left=("client", "standing", "reason")))


def _waiting(now: RoundView) -> str:
    """What an open round waits for."""
    if now.status == "judging":
        return f"round {now.number} is being judged, with {now.accepted} updates"
    missing = now.target - now.accepted
    until = (
        "" if now.deadline_at is None else f", at the latest until {_when(now.deadline_at)} if {now.quorum} are there"
    )
    return f"round {now.number} is open: {now.accepted} of {now.target} updates accepted, waits for {missing}{until}"


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"
