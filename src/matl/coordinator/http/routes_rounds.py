"""Rounds: those that were, and the one that clients work on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from matl.coordinator.http.parameters import LARGEST_COUNT, Limit, RoundNumber, RunId, Wait, router
from matl.coordinator.http.senders import Known, ServiceOf
from matl.protocol.messages import RoundPage, RoundView

training, routes = router("training"), router("rounds")

After = Annotated[int | None, Query(ge=0, le=LARGEST_COUNT, description="The last round that is known.", examples=[3])]
Before = Annotated[int | None, Query(ge=0, le=LARGEST_COUNT, description="Rounds with smaller numbers.", examples=[10])]


@training.get("/v1/runs/{run}/rounds/current")
async def get_current_round(
    service: ServiceOf, caller: Known, run: RunId, after: After = None, wait: Wait = 0.0
) -> RoundView:
    """The open round with a number above `after`; if there is none, it is waited for.

    Where there is none after `wait` seconds, and where the run has ended, the answer is the latest round there is: a
    client looks at number and status.
    """
    return await service.current_round(caller, run, after=after, wait=wait)


@routes.get("/v1/runs/{run}/rounds")
async def list_rounds(
    service: ServiceOf, caller: Known, run: RunId, before: Before = None, limit: Limit = 50
) -> RoundPage:
    """Rounds of a run, latest first."""
    return await service.rounds(caller, run, before=before, limit=limit)


@routes.get("/v1/runs/{run}/rounds/{number}")
async def get_round(service: ServiceOf, caller: Known, run: RunId, number: RoundNumber) -> RoundView:
    """One round, whatever became of it."""
    return await service.round(caller, run, number)
