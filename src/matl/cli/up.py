"""``matl up``: a coordinator and its simulated clients on this machine, from nothing to a served run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matl.cli import options
from matl.cli.console import percent, print_json, show, stderr, verbosity
from matl.cli.exit_codes import ExitCode
from matl.cli.network import require_server
from matl.cli.watch import observing
from matl.errors import RunInterrupted
from matl.events import EventSink

if TYPE_CHECKING:
    import socket

    from matl.network.folder import LocalNetwork
    from matl.network.local import LocalRun, Summary

__all__ = ["up"]

_PORT = 8470
_HOST = "127.0.0.1"


@options.configuration()
def up(
    config: options.ConfigFile = None,
    *,
    given: dict[str, Any],
    folder: Annotated[
        Path, typer.Option(help="Where everything is kept; a network that is there already is gone on with.")
    ] = Path("matl-network"),
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Port of HTTP and WebSocket. \\[default: {_PORT}, or the next that is free]"
        ),
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of gRPC; none without.", show_default=False)
    ] = None,
    guests: Annotated[
        int | None,
        typer.Option(min=0, help="Clients of your own that every round waits for.", show_default="0"),
    ] = None,
    leave: Annotated[bool, typer.Option("--exit", help="End when the run has all its rounds.")] = False,
    log: options.Log = None,
    watch: options.Watch = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Serve a run on this machine, with simulated clients that take part in it over the network.

    The coordinator is the one that `matl serve` runs in production; clients, data and attackers are simulated, and the
    model is bit for bit that of `matl run` with the same options. What was begun in a folder is gone on with; --rounds
    may ask for more then. Clients of your own can join: `matl invite`.
    """
    require_server("sim")
    from matl.network.folder import LocalNetwork, in_use
    from matl.network.serving import free_socket

    network = LocalNetwork.of(folder, given, config, guests=guests)
    shown = verbosity(quiet, verbose, as_json=as_json)
    chosen = network.run.config.model_copy(update={"rounds": network.rounds})
    with (
        in_use(folder),
        free_socket(_HOST, _PORT if port is None else port, search=port is None) as listener,
        ExitStack() as display,
    ):
        sink = display.enter_context(observing(chosen, folder, log=log or (), watch=watch, verbosity=shown))(
            chosen.label
        )
        asyncio.run(_up(network, listener, grpc_port, sink, display.close, leave=leave, as_json=as_json, shown=shown))


async def _up(
    network: LocalNetwork,
    listener: socket.socket,
    grpc_port: int | None,
    sink: EventSink,
    end_display: Callable[[], None],
    *,
    leave: bool,
    as_json: bool,
    shown: int,
) -> None:
    from matl.network.local import open_network

    with _stopping() as stop:

        def say(line: str) -> None:
            if shown >= 0:
                stderr.print(line, markup=False, soft_wrap=True)

        async with open_network(network, listener=listener, grpc_port=grpc_port, sink=sink, say=say) as live:
            if shown >= 0:
                await _greet(network, live)
            if not await _unless(stop, live.to_the_end()):
                raise RunInterrupted(await _left(network, live))
            summary = await live.summary()
            end_display()  # it draws over whatever is printed meanwhile, and takes standard output for its own
            if as_json:
                print_json(summary.as_dict())
            else:
                show(_line(summary), markup=False)
            if leave:
                return
            if shown >= 0:
                stderr.print(
                    f"the run has its {summary.rounds} rounds; still serving {summary.url}, Ctrl-C ends "
                    f"(more rounds: {_command(network)} --rounds {summary.rounds + 10})",
                    markup=False,
                    soft_wrap=True,
                )
            await stop.wait()


async def _greet(network: LocalNetwork, live: LocalRun) -> None:
    done = await live.rounds_done()
    doors, guests = live.doors, network.run.terms.guests
    also = f", gRPC at {doors.grpc_url}" if doors.grpc_url is not None else ""
    stderr.print(
        f"coordinator: {doors.url}{also} (documents: {doors.url}/docs), files: {network.folder}\n"
        f"run {live.run}: {live.clients} simulated clients, {live.malicious} of them malicious"
        + (f"; going on after round {done} of {network.rounds}" if done else f"; {network.rounds} rounds")
        + (f"\nevery round waits for {guests} more: matl invite{_folder(network)}" if guests else ""),
        markup=False,
        soft_wrap=True,
    )


async def _left(network: LocalNetwork, live: LocalRun) -> str:
    done = await live.rounds_done()
    return f"stopped after round {done} of {network.rounds}; nothing is lost, go on with: {_command(network)}"


def _command(network: LocalNetwork) -> str:
    return f"matl up{_folder(network)}"


def _folder(network: LocalNetwork) -> str:
    return "" if network.folder == Path("matl-network") else f" --folder {network.folder}"


def _line(summary: Summary) -> str:
    """The summary in one line."""
    failed = f" ({summary.failed_rounds} failed)" if summary.failed_rounds else ""
    parts = [f"{summary.run}: {summary.rounds} rounds{failed}, accuracy {percent(summary.accuracy)}"]
    if summary.gives_verdicts:
        liars, accused = summary.caught, summary.accused
        honest = summary.clients - summary.malicious
        parts.append(f"quarantined {liars} of {summary.malicious} malicious and {accused} of {honest} honest clients")
    parts.append(f"model {summary.model_hash[:12]} (a simulation)")
    return ", ".join(parts)


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Do some work to its end, and say so, unless a stop is asked for before."""
    doing, asked = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, asked), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        return False
    finally:
        for task in (doing, asked):
            task.cancel()
        await asyncio.gather(doing, asked, return_exceptions=True)


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """Turn the first Ctrl-C, or SIGTERM, into a request to stop, and the second into an immediate end.

    What was acknowledged is on the disk at any time, so that an immediate end loses nothing either.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def ask() -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)  # threads that train or judge would be waited for
        stop.set()
        stderr.print("\nstopping (Ctrl-C again stops at once; nothing is lost)", markup=False)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
