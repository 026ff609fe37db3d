"""What machines and hardware keys prove."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from matl.coordinator.access import Caller
from matl.coordinator.http.bodies import JsonBody
from matl.coordinator.http.parameters import router
from matl.coordinator.http.senders import Anybody, Sender, ServiceOf
from matl.protocol.messages import (
    AttestationRequest,
    AttestationView,
    ChallengeView,
    GradientCheck,
    GradientRequest,
)

attest, mobile = router("attest"), router("mobile")

LARGEST_CHUNK_BODY = (1 << 20) + (8 << 10)
"""Bytes of a request with the longest chunk that version 1 signs, and the rest of it."""


@attest.post("/v1/attest/challenge")
async def issue_evidence_challenge(service: ServiceOf, caller: Anybody) -> ChallengeView:
    """A challenge that evidence has to hold."""
    return await service.challenge()


@attest.post("/v1/attest/evidence")
async def check_evidence(
    service: ServiceOf,
    caller: Annotated[Caller, Depends(Sender("client"))],
    asked: Annotated[AttestationRequest, Depends(JsonBody(AttestationRequest))],
) -> AttestationView:
    """Show evidence of the client's machine; what it proves is kept with the client."""
    return await service.attest(caller, asked)


@mobile.post("/mobile/verify_gradient")
async def verify_gradient(
    service: ServiceOf,
    caller: Anybody,
    asked: Annotated[GradientRequest, Depends(JsonBody(GradientRequest, limit=LARGEST_CHUNK_BODY))],
) -> GradientCheck:
    """Whether a chunk of a gradient is what a mobile hardware key signed. It is counted, and never a submission."""
    return await service.verify_gradient(asked)
