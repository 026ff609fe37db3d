"""What became of a client's updates, told to its user while the rounds go on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from matl.client.retrying import passing
from matl.errors import ServiceError
from matl.protocol.messages import RoundView, UpdateView
from matl.records import Status

__all__ = ["Watch"]

_NOT_COUNTED = {Status.QUARANTINED, Status.REJECTED}
_ADVICE = (
    "if that is a mistake: does the training follow the round's recipe (steps, batch size, learning rate, momentum), "
    "and are the samples and labels of the kind that the model is for, scaled alike?"
)
_LOG = logging.getLogger("matl.client")


class Watch:
    """Follows the verdicts on one client's updates, and says in the log when they change.

    Parameters
    ----------
    verdict : callable
        Asks what became of the update of a round.
    about : callable
        Asks about a round.
    """

    def __init__(
        self, verdict: Callable[[int], Awaitable[UpdateView]], about: Callable[[int], Awaitable[RoundView]]
    ) -> None:
        self._verdict, self._about = verdict, about
        self._waiting: set[int] = set()
        self._counted = self._not_counted = 0
        self._advised = False
        self.last: UpdateView | None = None
        """The latest verdict that is known."""

    def sent(self, round: int) -> None:  # noqa: A002 - the protocol's own word
        """An update was acknowledged in a round."""
        self._waiting.add(round)

    async def look(self) -> None:
        """Ask about what is not judged as far as is known. That nobody can be reached is no error here."""
        for number in sorted(self._waiting):
            try:
                view = await self._verdict(number)
                failed = view.status == "received" and await self._failed(number)
            except ServiceError as error:
                if passing(error):
                    return  # another time
                _LOG.warning("what became of the update for round %d is not to be learned: %s", number, error)
                self._waiting.discard(number)
                continue
            if view.status != "received":
                self._note(view)
            elif failed:
                self._not_counted += 1
            else:
                continue
            self._waiting.discard(number)

    def summary(self, run: str) -> None:
        """Say in how many rounds this client counted since the last summary, and begin to count anew."""
        judged = self._counted + self._not_counted
        if judged + len(self._waiting):
            still = f"; {len(self._waiting)} not judged yet" if self._waiting else ""
            level = logging.WARNING if self._not_counted else logging.INFO
            _LOG.log(level, "run %s: counted in %d of %d rounds%s", run, self._counted, judged, still)
        self._counted = self._not_counted = 0

    async def _failed(self, number: int) -> bool:
        """Whether a round ended without any verdict."""
        view = await self._about(number)
        if view.status == "failed":
            _LOG.warning("round %d of %s failed, and no update of it counts: %s", number, view.run, view.reason)
        return view.status == "failed"

    def _note(self, view: UpdateView) -> None:
        verdict = view.verdict or Status.REJECTED  # screening's come without one
        counts = verdict not in _NOT_COUNTED
        if counts:
            self._counted += 1
        else:
            self._not_counted += 1
        before, self.last = self.last, view
        if before is not None and (before.verdict or Status.REJECTED) is verdict:
            return
        effect = "" if counts else ", does not count"
        reason = f": {view.reason}" if view.reason else ""
        level = logging.INFO if counts else logging.WARNING
        _LOG.log(level, "round %d of %s: %s%s%s", view.round, view.run, verdict, effect, reason)
        if verdict is Status.QUARANTINED and not self._advised:
            self._advised = True
            _LOG.warning(_ADVICE)
