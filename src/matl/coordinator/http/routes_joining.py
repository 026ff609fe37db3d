"""How somebody becomes a client, and a client proves that it is one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from matl.coordinator.http.bodies import JsonBody
from matl.coordinator.http.parameters import router
from matl.coordinator.http.senders import Anybody, ServiceOf
from matl.protocol.messages import ChallengeView, Enrolled, EnrolRequest, SessionRequest, SessionView

routes = router("joining")


@routes.post("/v1/challenge")
async def issue_challenge(service: ServiceOf, caller: Anybody) -> ChallengeView:
    """A challenge to sign, good for a few minutes and for enrolling or opening a session once."""
    return await service.challenge()


@routes.post("/v1/clients", status_code=201)
async def enrol_client(
    service: ServiceOf, caller: Anybody, asked: Annotated[EnrolRequest, Depends(JsonBody(EnrolRequest))]
) -> Enrolled:
    """Become a client: an invitation, a public key, and the key's signature over the text `matl-enrolment/1`.

    Asking again with the same id and key is answered the same way.
    """
    return await service.enrol(asked)


@routes.post("/v1/sessions")
async def open_session(
    service: ServiceOf, caller: Anybody, asked: Annotated[SessionRequest, Depends(JsonBody(SessionRequest))]
) -> SessionView:
    """Get a session token for an hour: the enrolled key signs the text `matl-session/1`."""
    return await service.session(asked)
