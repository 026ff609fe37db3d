"""What stands in the addresses of routes, and what makes a router."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.routing import APIRoute

__all__ = ["LARGEST_COUNT", "LONGEST_WAIT", "ClientId", "Limit", "ModelHash", "RoundNumber", "RunId", "Wait", "router"]

LONGEST_WAIT = 30.0
"""Seconds that a request may wait for something new."""
LARGEST_COUNT = 2**53 - 1
_ID = "^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"

RunId = Annotated[str, Path(pattern=_ID, description="Id of the run.", examples=["demo"])]
ClientId = Annotated[str, Path(pattern=_ID, description="Id of the client.", examples=["alice"])]
RoundNumber = Annotated[int, Path(ge=0, le=LARGEST_COUNT, description="Number of the round, from 0.", examples=[3])]
ModelHash = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="Hash of a model, as a round names it.", examples=["ab" * 32])
]
Wait = Annotated[
    float,
    Query(ge=0, le=LONGEST_WAIT, allow_inf_nan=False, description="Seconds to wait for something new.", examples=[20]),
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.", examples=[100])]


def _name(route: APIRoute) -> str:
    return route.name


def router(tag: str) -> APIRouter:
    """A router of routes that belong together; the name of a function is the id of its operation."""
    return APIRouter(tags=[tag], generate_unique_id_function=_name)
