"""The methods of the gRPC service, for the door that serves them and the transport that calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory

from matl.protocol.pb.training import DESCRIPTOR

__all__ = [
    "AUTHORIZATION",
    "CODE",
    "GO_ON",
    "LARGEST_MESSAGE",
    "LARGEST_PIECE",
    "METHODS",
    "REASON",
    "RETRY_AFTER",
    "SERVICE",
]

SERVICE = "matl.v1.Training"
"""Name of the service."""

AUTHORIZATION = "authorization"
"""Key of the metadata that holds ``Bearer <token>``."""
CODE, REASON, RETRY_AFTER = "matl-code", "matl-reason", "retry-after"
"""Keys of the metadata behind a call that was refused."""
GO_ON = "matl-go-on"
"""Key of the metadata that comes back when the payload of an update may follow."""

LARGEST_PIECE = 1 << 20
"""Bytes of the largest piece of an update or a model."""
LARGEST_MESSAGE = LARGEST_PIECE + (1 << 18)
"""Bytes of the largest message that comes in: a piece, or an enrolment with its evidence."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method.

    Parameters
    ----------
    name, path : str
        Its name, and what is called: ``/service/name``.
    request, response : type
        The messages, of `matl.protocol.pb.training`.
    asks, answers : bool
        Whether the request, and the response, is a stream of them.
    """

    name: str
    path: str
    request: Any
    response: Any
    asks: bool
    answers: bool


METHODS: dict[str, Method] = {
    method.name: Method(
        method.name,
        f"/{SERVICE}/{method.name}",
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
        method.client_streaming,
        method.server_streaming,
    )
    for method in DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods
}
"""By name."""
