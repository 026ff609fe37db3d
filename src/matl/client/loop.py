"""Taking part round after round, through outages and rounds that end without this client."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from matl.client.connection import Connection
from matl.client.encoding import unpack_trained
from matl.client.participation import Participation
from matl.client.retrying import passing
from matl.client.rounds import Round
from matl.client.watching import Watch
from matl.errors import ServiceError
from matl.protocol.messages import Acknowledgement
from matl.protocol.problems import Code

__all__ = ["Progress", "TrainFunction", "TrainingLoop"]

TrainFunction = Callable[[dict[str, NDArray[Any]], Round], Any]
"""Gets the model's arrays and the round; returns the new arrays, and how many examples were used."""
Progress = Callable[[Round, Acknowledgement], None]
"""Is told about every update that arrived."""

_PASSED = {"ended", "late", "not_selected", "round", "stale"}  # reasons: the round went on without this client
_LOG = logging.getLogger("matl.client")


class TrainingLoop(ABC):
    """What `matl.client.AsyncMATLClient` does over many rounds, by what it does in one."""

    _connection: Connection
    _part: Participation
    _watch: Watch

    @abstractmethod
    async def next_round(self, *, wait: float | None = None) -> Round | None:
        """The round to take part in next."""

    @abstractmethod
    async def submit_gradient(
        self,
        update: Any,
        *,
        round: Round | None = None,  # noqa: A002 - the protocol's own word, here and below
        metadata: Mapping[str, Any] | None = None,
    ) -> Acknowledgement:
        """Send an update for a round."""

    @abstractmethod
    def pass_over(self, round: Round) -> None:  # noqa: A002
        """Be done with a round."""

    async def rounds(self, count: int | None = None, *, patience: float = 3600.0) -> AsyncGenerator[Round, None]:
        """Round after round until the run is over, through outages of the coordinator.

        Whenever the verdict on this client changes, the log ``matl.client`` says so with the reason, as a warning where
        its updates do not count; and at the end in how many rounds they did.

        Parameters
        ----------
        count : int, optional
            How many at most.
        patience : float
            Seconds for which nobody may be reached before that is an error. Whoever asks to wait for longer than is
            left of them is not waited for.

        Raises
        ------
        ServiceError, InvalidValueError, ProtocolError
            As `next_round`.
        """
        given = 0
        while count is None or given < count:
            current = await self._patiently(patience)
            await self._watch.look()
            if current is None:
                break
            yield current
            self.pass_over(current)
            given += 1
        await self._watch.look()
        self._watch.summary((await self._part.chosen()).id)

    async def fit_loop(
        self,
        train: TrainFunction,
        rounds: int | None = None,
        *,
        progress: Progress | None = None,
        patience: float = 3600.0,
    ) -> int:
        """Take part until the run is over. Where one round goes on without this client, it takes part in the next.

        What is decided about its updates is in the log, see `rounds`. An arrival is not a verdict: that comes when the
        round is judged.

        Parameters
        ----------
        train : callable
            ``train(params, round)`` gets the model's arrays and the `Round`, and returns the new arrays (or the model
            that was trained) and how many examples were used. It runs in a thread of its own, unless it is a
            coroutine function.
        rounds : int, optional
            How many at most.
        progress : callable, optional
            ``progress(round, acknowledgement)`` is called for every update that arrived. What became of earlier ones
            is in `last_verdict`.
        patience : float
            As in `rounds`.

        Returns
        -------
        int
            How many updates arrived.

        Raises
        ------
        ServiceError
            An update was refused for what it is, or nobody was reached for too long.
        InvalidValueError, LayoutError
            What ``train`` returned does not fit. What it raises goes through.
        """
        arrived = 0
        async for current in self.rounds(rounds, patience=patience):
            if inspect.iscoroutinefunction(train):
                trained = await train(current.params, current)
            else:
                trained = await asyncio.to_thread(train, current.params, current)
            acknowledgement = await self.offer(current, trained)
            if acknowledgement is not None:
                arrived += 1
                if progress is not None:
                    progress(current, acknowledgement)
        return arrived

    async def offer(self, round: Round, trained: Any) -> Acknowledgement | None:  # noqa: A002
        """Send what a training function returned; ``None`` if the round went on without it, or nobody is there now.

        Parameters
        ----------
        round : Round
            The round.
        trained : (arrays, int)
            New parameters, and how many examples were used.

        Raises
        ------
        InvalidValueError, LayoutError
            It is no such pair, or the arrays do not fit.
        ServiceError
            The update was refused for what it is.
        """
        params, examples = unpack_trained(trained)
        delta = round.delta(params)
        try:
            return await self.submit_gradient(delta, round=round, metadata={"num_examples": examples})
        except ServiceError as error:
            if not passing(error) and not await self._went_on(round, error):
                raise
            _LOG.warning("round %d of %s: %s", round.number, round.run, error)
            return None

    async def _patiently(self, patience: float) -> Round | None:
        """The next round, through an outage."""
        failures, began = 0, time.monotonic()
        while True:
            try:
                return await self.next_round()
            except ServiceError as error:
                began = began if failures else time.monotonic()  # waiting for a round to open is no outage
                left = patience - (time.monotonic() - began)
                if not passing(error) or left < (error.retry_after or 0.0):
                    raise
                _LOG.warning("%s; going on trying", error)
                await self._connection.retrying.pause(failures, error.retry_after)
                failures += 1

    async def _went_on(self, round: Round, error: ServiceError) -> bool:  # noqa: A002
        """Whether an update was refused because its round takes none any more."""
        if error.reason in _PASSED:
            return True
        return error.code in (Code.CONFLICT.value, Code.INVALID.value) and not await self._part.is_open(round.number)
