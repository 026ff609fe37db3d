"""``matl serve``: a coordinator in production, from a file of settings."""

from __future__ import annotations

import asyncio
import signal
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matl.cli import options
from matl.cli.console import print_json, show, stderr
from matl.cli.network import require_server
from matl.errors import ConfigError, StateError

if TYPE_CHECKING:
    from matl.network.settings import NetworkSettings

__all__ = ["serve"]


def serve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file with the settings.", show_default=False)],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Check everything, database and certificates included, and end.")
    ] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve runs to clients elsewhere, until SIGTERM or Ctrl-C.

    The address, and the token of the first operator, are in files of the folder that the settings name. Runs of the
    file are begun where there are none yet, and gone on with otherwise. What happens is told in lines with their time:
    rounds that end, clients that come or are put into quarantine, and rounds that wait for updates.
    """
    require_server()
    from matl.network.checking import check_all
    from matl.network.settings import load_settings

    settings = load_settings(file)
    if check:
        found = asyncio.run(check_all(settings))
        if as_json:
            print_json([{"what": one.what, "problem": one.problem or None, "note": one.note or None} for one in found])
        else:
            for one in found:
                said = one.problem or one.note
                show(f"{'no ' if one.problem else 'ok '} {one.what}" + (f": {said}" if said else ""), markup=False)
        if problems := [f"{one.what}: {one.problem}" for one in found if one.problem]:
            raise ConfigError(str(file), problems)
        return
    asyncio.run(_serve(settings, shown=not quiet))


def _say(line: str) -> None:
    stderr.print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {line}", markup=False, soft_wrap=True)


async def _serve(settings: NetworkSettings, *, shown: bool) -> None:
    from matl.coordinator.storage.fencing import SUPERSEDED
    from matl.network.folder import in_use
    from matl.network.hosting import open_coordinator

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with in_use(settings.folder, advice="end that one, or give this one another folder in the file"):
        async with open_coordinator(settings, say=_say if shown else None) as doors:
            if shown:
                also = f", gRPC at {doors.grpc_url}" if doors.grpc_url is not None else ""
                where = f"{doors.url}{also} (documents: {doors.url}/docs), files: {settings.folder}"
                stderr.print(f"coordinator: {where}", markup=False, soft_wrap=True)
            ends = [asyncio.ensure_future(event.wait()) for event in (stop, doors.superseded)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            if doors.superseded.is_set():
                raise StateError(
                    f"{SUPERSEDED}, which serves one at a time: the one that was started last. This one ends, and "
                    "nothing is lost. If that was a mistake, end the other one before this one is started again, or "
                    "give each a database of its own"
                )
            if shown:
                stderr.print("stopping; nothing is lost", markup=False)
