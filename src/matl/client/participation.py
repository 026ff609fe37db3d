"""Which run and which round a client takes part in, and the model that it starts from."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from numpy.typing import NDArray

from matl.client.arrays import layout_of
from matl.client.choosing import choose, insist
from matl.client.connection import Connection
from matl.client.encoding import check_supported
from matl.client.folder import ClientFolder
from matl.client.rounds import Round, fetch_model, read_model
from matl.errors import InvalidValueError, ProtocolError, ServiceError
from matl.params import Float32, ParamLayout
from matl.protocol.messages import RoundView, RunView, UpdateView
from matl.protocol.problems import Code, refusal

__all__ = ["LONGEST_WAIT", "PAUSE", "Participation"]

LONGEST_WAIT = 25.0
"""Seconds that a request stays open; below what proxies commonly cut."""
PAUSE = 1.0
"""Seconds between two questions, where a host answers at once that there is nothing."""

_OVER = ("stopped", "finished")
_LOG = logging.getLogger("matl.client")


class Participation:
    """What one client knows of the run that it takes part in.

    Parameters
    ----------
    connection : Connection
        To the coordinator.
    folder : ClientFolder
        Who the client is.
    wanted : str or None
        The run; ``None`` for the only one.
    mode : str, class, object or None
        See `matl.client.choosing.insist`.
    sealing : bool
        Whether the client can seal updates for an oracle.
    """

    def __init__(
        self, connection: Connection, folder: ClientFolder, *, wanted: str | None, mode: object, sealing: bool
    ) -> None:
        self._connection, self._folder = connection, folder
        self._wanted, self._mode, self._sealing = wanted, mode, sealing
        self._run: RunView | None = None
        self._layout: ParamLayout | None = None
        self._past: int | None = None  # the last round that is done with
        self.current: Round | None = None  # the one that was given out last

    async def chosen(self) -> RunView:
        """The run, as it was when it was asked for last."""
        return self._run if self._run is not None else await self.look()

    async def look(self) -> RunView:
        """The run, as it stands now.

        Raises
        ------
        InvalidValueError
            There is none of that name, or there are several, or it is judged in another way than is insisted on.
        ServiceError
            The coordinator refuses, or cannot be reached.
        """
        if self._run is None:
            run = choose(await self._connection.ask(lambda transport: transport.runs()), self._wanted)
        else:
            name = self._run.id
            run = await self._connection.ask(lambda transport: transport.run(name))
        insist(run, self._mode)
        self._check_oracle(run)
        if self._layout is None:
            self._layout = layout_of(run.layout)
        self._run = run
        return run

    async def next_round(self, wait: float | None) -> Round | None:
        """See `matl.client.sdk.AsyncMATLClient.next_round`."""
        run = await self.chosen()
        ends = None if wait is None else time.monotonic() + wait
        while True:
            asked = time.monotonic()
            left = LONGEST_WAIT if ends is None else min(LONGEST_WAIT, max(0.0, ends - asked))
            view = await self._open_round(run.id, left)
            if view is not None and not await self._is_past(view):
                if view.selected is not False:
                    return await self._begin(view)
                _LOG.info("round %d of %s was drawn without this client; waiting for the next", view.number, run.id)
                self.pass_over(view.number)
                if ends is None or time.monotonic() < ends:
                    continue
            run = await self.look()
            if run.status in _OVER:
                _say_how_it_ended(run)
                return None
            if ends is not None and time.monotonic() >= ends:
                raise refusal(
                    Code.BUSY, f"no round of run {run.id!r} ({run.status}) opened in {wait:g} s", reason="no_round"
                )
            if time.monotonic() - asked < PAUSE:
                await asyncio.sleep(PAUSE)

    def pass_over(self, number: int) -> None:
        """Be done with a round and all before it."""
        self._past = number if self._past is None else max(self._past, number)

    async def verdict(self, number: int) -> UpdateView:
        """What became of this client's update in a round."""
        run = await self.chosen()
        return await self._connection.ask(lambda transport: transport.update(run.id, number, self._folder.client_id))

    async def about(self, number: int) -> RoundView:
        """A round, whatever became of it."""
        run = await self.chosen()
        return await self._connection.ask(lambda transport: transport.round(run.id, number))

    async def is_open(self, number: int) -> bool:
        """Whether a round still takes updates."""
        return (await self.about(number)).status == "open"

    async def is_past(self, number: int, *, wait: float) -> bool:
        """Whether a round has ended, well or not; at most so many seconds are waited until it has."""
        run = await self.chosen()
        view = await self._connection.ask(lambda transport: transport.current_round(run.id, after=number, wait=wait))
        return view.number > number or view.status in ("committed", "failed")

    async def latest_model(self) -> dict[str, NDArray[Any]]:
        """The run's model as it stands now, as named arrays."""
        run = await self.look()
        if run.status != "finished":
            _LOG.warning(
                "run %s is %s after %s: this is its model as it stands, not a final one", run.id, run.status, _done(run)
            )
        vector, carried = await self._model(run.model_hash)
        return self._the_layout.unflatten(vector, carried=carried)

    def _check_oracle(self, run: RunView) -> None:
        if run.oracle is not None and not self._sealing:
            raise InvalidValueError(
                f"run {run.id!r} is judged in an oracle at {run.oracle.url}; say what that has to prove: "
                "MATLClient(..., sealer=OracleWatch(OraclePins(measurements=...))), see matl.client.sealed"
            )
        if run.oracle is None and self._sealing:
            raise InvalidValueError(
                f"run {run.id!r} has no oracle, and its coordinator sees every update; leave sealer out to bear that"
            )
        if run.oracle is None:  # an oracle's key is vouched for by its evidence, and new each time it starts
            self._folder.pin(run.id, run.receipts_key)

    @property
    def _the_layout(self) -> ParamLayout:
        assert self._layout is not None, "set with the run"  # noqa: S101
        return self._layout

    async def _open_round(self, run: str, wait: float) -> RoundView | None:
        """The round that is open now or within a while."""
        try:
            view = await self._connection.ask(
                lambda transport: transport.current_round(run, after=self._past, wait=wait)
            )
        except ServiceError as error:
            if error.code != Code.NOT_FOUND.value:  # a run may have had no round yet
                raise
            return None
        return view if view.status == "open" else None

    async def _is_past(self, view: RoundView) -> bool:
        """Whether this client is done with a round: it sent its update, perhaps in an earlier process."""
        if self._past is not None:
            return view.number <= self._past
        if self.current is not None and self.current.number == view.number:
            return False
        try:
            sent = await self.verdict(view.number)
        except ServiceError as error:
            if error.code != Code.NOT_FOUND.value:
                raise
            return False
        if sent.status == "rejected":
            return False
        self._past = view.number
        return True

    async def _begin(self, view: RoundView) -> Round:
        spec, run, layout = view.spec.spec(), await self.chosen(), self._the_layout
        if (spec.run, spec.round, spec.model_hash) != (run.id, view.number, view.model_hash):
            raise ProtocolError("mismatch", f"round {view.number} of {run.id!r} and its specification differ")
        if spec.layout_hash != layout.digest:
            raise ProtocolError("layout", f"round {view.number} is about other arrays than run {run.id!r}")
        check_supported(spec)
        if self.current is None or self.current.spec != spec:
            vector, carried = await self._model(view.model_hash)
            self.current = Round(view, spec, layout, vector, carried)
        return self.current

    async def _model(self, model_hash: str) -> tuple[Float32, dict[str, NDArray[Any]]]:
        path = await fetch_model(self._connection, model_hash, self._the_layout, self._folder.models)
        return await asyncio.to_thread(read_model, path, model_hash, self._the_layout)


def _say_how_it_ended(run: RunView) -> None:
    if run.status == "stopped":
        _LOG.warning("run %s was stopped by its operator after %s", run.id, _done(run))
    else:
        _LOG.info("run %s is finished after %s", run.id, _done(run))


def _done(run: RunView) -> str:
    """How many of its rounds a run has behind it."""
    return f"{run.round} rounds" if run.rounds is None else f"{run.round} of {run.rounds} rounds"
